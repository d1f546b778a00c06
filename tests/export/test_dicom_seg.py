"""DICOM Segmentations, read back by highdicom and dcmqi and checked by dciodvfy."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from voxseg.errors import DataError, VoxsegError
from voxseg.export.dicom_seg import write_dicom_seg
from voxseg.export.labels import Code, Codes, Label, LabelTable

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HIPPOCAMPUS = Codes(
    category=Code("SCT", "91723000", "Anatomical Structure"),
    type=Code("SCT", "5366008", "Hippocampus"),
    type_modifier=Code("SCT", "7771000", "Left"),
)
LESION = Codes(
    category=Code("SCT", "49755003", "Morphologically Abnormal Structure"),
    type=Code("SCT", "4147007", "Mass"),
    region=Code("SCT", "12738006", "Brain"),
    region_modifier=Code("SCT", "24028007", "Right"),
)
TABLE = LabelTable(
    labels=(
        Label(value=2, name="Rückenmark", colour=(230, 77, 51)),
        Label(value=5, name="left hippocampus", colour=(51, 153, 230), codes=HIPPOCAMPUS),
        Label(value=7, name="nothing of it here", colour=(0, 0, 0)),
        Label(value=300, name="lesion", colour=(255, 255, 255), codes=LESION),
    )
)
PRESENT = (2, 5, 300)
KINDS = ("axial", "oblique", "left_handed", "coronal", "multiframe")


@pytest.fixture(scope="module")
def highdicom():
    return pytest.importorskip("highdicom", reason="DICOM is an extra, and highdicom is missing")


@pytest.fixture(scope="module")
def label(dicom):
    """(columns, rows, slices) as the array was written, of no symmetry."""
    array = np.zeros(dicom.SHAPE, np.uint16)
    array[2:5, 6:9, 1:3] = 5
    array[7:12, 1:3, 4:9] = 2
    array[0, 0, 0] = 300
    return array


@pytest.fixture(scope="module", params=KINDS)
def written(request, dicom, highdicom, label, tmp_path_factory):
    """A Segmentation, where its voxels must lie, and its series."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "multiframe":
        affine, order = dicom.oblique(), [3, 1, 0, 2, 8, 7, 6, 5, 4]
        path = dicom.write_multiframe(root / "many.dcm", affine=affine, order=order)
        frames = [(path, order.index(k)) for k in range(dicom.SHAPE[2])]
    else:
        affine = getattr(dicom, request.param)()
        frames = [(path, 0) for path in dicom.write_series(root / "series", affine=affine)]
    done = write_dicom_seg(root / "mask.dcm", label, frames, TABLE)
    return done, affine, frames


def centres(label, affine):
    """Centroid of each class in mm, RAS."""
    return {v: (affine @ [*np.argwhere(label == v).mean(0), 1])[:3] for v in PRESENT}


def test_highdicom_finds_every_voxel_in_its_millimetres(written, highdicom, label):
    done, affine, _ = written
    volume = highdicom.seg.segread(done.path).get_volume(combine_segments=True)
    numbers = {number: one.value for number, one in enumerate(done.segments, 1)}
    for number, value in numbers.items():
        found = np.argwhere(volume.array == number)
        assert len(found) == (label == value).sum()
        if value in PRESENT:
            mm = (LPS @ volume.affine @ [*found.mean(0), 1])[:3]
            np.testing.assert_allclose(mm, centres(label, affine)[value], atol=1e-3)
            # Each voxel, not only their middle.
            back = np.linalg.solve(
                affine, LPS @ volume.affine @ np.c_[found, np.ones(len(found))].T
            )
            indices = np.rint(back[:3].T).astype(int)
            np.testing.assert_allclose(back[:3].T, indices, atol=1e-3)
            assert (label[tuple(indices.T)] == value).all()


def test_dcmqi_finds_the_same_millimetres(written, label, tmp_path):
    done, affine, _ = written
    dcmqi = pytest.importorskip("dcmqi", reason="dcmqi has no wheel for this machine")
    program = shutil.which("segimage2itkimage") or dcmqi._lookup("segimage2itkimage")
    subprocess.run(
        [program, "--inputDICOM", done.path, "--outputDirectory", tmp_path, "-t", "nii"],
        check=True, capture_output=True,
    )  # fmt: skip
    for number, one in enumerate(done.segments, 1):
        image = nib.load(tmp_path / f"{number}.nii.gz")
        found = np.argwhere(np.asarray(image.dataobj) > 0)
        assert len(found) == (label == one.value).sum()
        if one.value in PRESENT:
            mm = (image.affine @ [*found.mean(0), 1])[:3]
            np.testing.assert_allclose(mm, centres(label, affine)[one.value], atol=0.01)


@pytest.mark.parametrize("anonymise", [False, True])
def test_dciodvfy_finds_no_error(written, label, tmp_path, anonymise):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing; it is in Debian's package dicom3tools")
    _, _, frames = written
    done = write_dicom_seg(tmp_path / "m.dcm", label, frames, TABLE, anonymise=anonymise)
    told = subprocess.run(
        ["dciodvfy", "-new", done.path], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0
    assert told.stderr.splitlines()[-1] == "Segmentation"  # what it was taken for
    assert not [line for line in told.stderr.splitlines() if line.startswith("Error")]


def test_dciodvfy_would_find_an_error(written, tmp_path, dicom):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing; it is in Debian's package dicom3tools")
    found = dicom.read(written[0].path)
    del found.SegmentSequence
    found.save_as(tmp_path / "m.dcm")
    told = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "m.dcm"], capture_output=True, text=True, check=False
    )
    assert "Error" in told.stderr


def test_segments_have_names_colours_codes_and_their_maker(written, dicom):
    done, _, _ = written
    found = dicom.read(done.path)
    assert [(one.SegmentNumber, one.SegmentLabel) for one in found.SegmentSequence] == [
        (1, "Rückenmark"), (2, "left hippocampus"), (3, "nothing of it here"), (4, "lesion"),
    ]  # fmt: skip
    assert done.empty == (TABLE[7],)
    assert found.SegmentationType == "BINARY"
    plain, left, _, lesion = found.SegmentSequence

    def code(item):
        return item[0].CodingSchemeDesignator, item[0].CodeValue, item[0].CodeMeaning

    tissue = ("SCT", "85756007", "Tissue")
    assert code(plain.SegmentedPropertyCategoryCodeSequence) == tissue
    assert code(plain.SegmentedPropertyTypeCodeSequence) == tissue
    kind = left.SegmentedPropertyTypeCodeSequence
    assert code(kind) == ("SCT", "5366008", "Hippocampus")
    modifier = kind[0].SegmentedPropertyTypeModifierCodeSequence
    assert code(modifier) == ("SCT", "7771000", "Left")
    region = lesion.AnatomicRegionSequence
    assert code(region) == ("SCT", "12738006", "Brain")
    assert code(region[0].AnatomicRegionModifierSequence) == ("SCT", "24028007", "Right")
    # CIELab in 16 bits: L 0..100, a and b -128..127 (PS3.3, C.10.7.1.1).
    white = np.array(lesion.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255]
    np.testing.assert_allclose(white - [0, 128, 128], [100, 0, 0], atol=0.1)
    for one in found.SegmentSequence:
        assert one.SegmentAlgorithmType == "AUTOMATIC"
        maker = one.SegmentationAlgorithmIdentificationSequence[0]
        assert maker.AlgorithmName == "voxseg"
        family = code(maker.AlgorithmFamilyCodeSequence)
        assert family == ("DCM", "123110", "Artificial Intelligence")


def test_patient_study_and_frame_of_reference_are_those_of_the_series(written, dicom):
    done, _, frames = written
    found, source = dicom.read(done.path), dicom.read(frames[0][0])
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
        "StudyDate", "AccessionNumber", "FrameOfReferenceUID", "ContentDate",
    ):  # fmt: skip
        assert found[keyword].value == source[keyword].value, keyword
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert (found.Modality, found.SeriesNumber) == ("SEG", 1003)
    referred = found.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == {
        dicom.read(path).SOPInstanceUID for path, _ in frames
    }


def test_the_same_mask_gives_the_same_file(written, label, tmp_path, dicom):
    done, _, frames = written
    again = write_dicom_seg(tmp_path / "again.dcm", label, frames, TABLE)
    assert again.path.read_bytes() == done.path.read_bytes()
    other = label.copy()
    other[3, 3, 3] = 2
    third = write_dicom_seg(tmp_path / "other.dcm", other, frames, TABLE)
    fourth = write_dicom_seg(
        tmp_path / "named.dcm", label, frames,
        LabelTable(labels=tuple(replace(one, name=f"a {one.name}") for one in TABLE)),
    )  # fmt: skip
    uids = {dicom.read(one.path).SOPInstanceUID for one in (done, third, fourth)}
    assert len(uids) == 3


def test_anonymised_files_tell_nothing(written, label, tmp_path, dicom, highdicom):
    done, affine, frames = written
    path = tmp_path / "a.dcm"
    write_dicom_seg(path, label, frames, TABLE, anonymise=True)
    content = path.read_bytes()
    source = dicom.read(frames[0][0])
    uids = [source.StudyInstanceUID, source.SeriesInstanceUID, source.FrameOfReferenceUID,
            *(dicom.read(file).SOPInstanceUID for file, _ in frames)]  # fmt: skip
    for secret in (*dicom.SECRETS, *uids, "20240506", "101112", "Phantoms", "mprage"):
        assert secret.encode() not in content, secret
        if secret in dicom.SECRETS[:3]:
            assert secret.encode() in done.path.read_bytes()  # so this test can fail
    found = dicom.read(path)
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert (found.PatientName, found.PatientID, found.StudyDate) == ("", "", "")
    assert found.ContentDate == "19000101"
    assert found.LongitudinalTemporalInformationModified == "REMOVED"
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    mm = (LPS @ volume.affine @ [*np.argwhere(volume.array == 2).mean(0), 1])[:3]
    np.testing.assert_allclose(mm, centres(label, affine)[5], atol=1e-3)


def test_two_anonymised_files_of_a_study_stay_together(written, label, tmp_path, dicom):
    _, _, frames = written
    found = []
    for number in range(2):
        mask = np.where(label == 5, label, 0) if number else label
        path = tmp_path / f"{number}.dcm"
        write_dicom_seg(path, mask, frames, TABLE, anonymise=True)
        found.append(dicom.read(path))
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert found[0][keyword].value == found[1][keyword].value
    assert found[0].SOPInstanceUID != found[1].SOPInstanceUID


def test_what_real_files_lack_is_made_up_for(tmp_path, dicom, highdicom, label):
    """Empty attributes that are not there, a sex that is no code, digits that differ."""

    def turned(k):
        return ["1", "0", "0", "0", "1", "0"] if k else ["1", "0", "0", "0", "1.0", "1e-7"]

    with warnings.catch_warnings():
        # pydicom says so while the test writes what it should not be.
        warnings.filterwarnings("ignore", "Invalid value for VR CS")
        files = dicom.write_series(
            tmp_path / "s", affine=dicom.axial(), AccessionNumber=None, StudyID=None,
            StudyTime=None, PatientBirthDate=None, ReferringPhysicianName=None,
            PatientSex="female", ImageOrientationPatient=turned, SeriesNumber=None,
        )  # fmt: skip
        frames = [(path, 0) for path in files]
        done = write_dicom_seg(tmp_path / "m.dcm", label, frames, TABLE)
        found = dicom.read(done.path)
    assert (found.PatientSex, found.StudyID) == ("", "")
    assert found.SeriesNumber == 1000
    assert highdicom.seg.segread(done.path).NumberOfFrames > 3


def test_orientation_within_each_frame_is_shared(tmp_path, dicom, label, highdicom):
    path = dicom.write_multiframe(tmp_path / "m.dcm")
    found = dicom.read(path)
    shared = found.SharedFunctionalGroupsSequence[0]
    for frame in found.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PlaneOrientationSequence
    del shared.PixelMeasuresSequence
    found.save_as(path)
    frames = [(path, k) for k in range(dicom.SHAPE[2])]
    done = write_dicom_seg(tmp_path / "seg.dcm", label, frames, TABLE)
    volume = highdicom.seg.segread(done.path).get_volume(combine_segments=True)
    mm = (LPS @ volume.affine @ [*np.argwhere(volume.array == 2).mean(0), 1])[:3]
    np.testing.assert_allclose(mm, centres(label, dicom.oblique())[5], atol=1e-3)


def test_masks_that_cannot_be_written(tmp_path, dicom, label):
    frames = [(path, 0) for path in dicom.write_series(tmp_path / "s")]
    out = tmp_path / "m.dcm"
    with pytest.raises(DataError, match="the mask has no voxel"):
        write_dicom_seg(out, np.zeros_like(label), frames, TABLE)
    with pytest.raises(DataError, match="holds the label 9"):
        write_dicom_seg(out, np.where(label == 5, 9, label), frames, TABLE)
    with pytest.raises(ValueError, match="must not be negative"):
        write_dicom_seg(out, np.where(label == 5, -1, label.astype(int)), frames, TABLE)
    with pytest.raises(ValueError, match=r"must be \(columns, rows, 9\)"):
        write_dicom_seg(out, label[..., :4], frames, TABLE)
    with pytest.raises(DataError, match="no DICOM Segmentation can be made"):
        write_dicom_seg(out, label[:5], frames, TABLE)
    assert not out.exists()
    assert not list(tmp_path.glob(".part-*"))


def test_series_that_cannot_be_referred_to(tmp_path, dicom, label):
    files = dicom.write_series(tmp_path / "s", FrameOfReferenceUID=None)
    with pytest.raises(DataError, match="has no FrameOfReferenceUID"):
        write_dicom_seg(tmp_path / "m.dcm", label, [(f, 0) for f in files], TABLE)
    many = [dicom.write_multiframe(tmp_path / f"{n}.dcm") for n in range(2)]
    frames = [(many[k // 5], k % 5) for k in range(9)]
    with pytest.raises(DataError, match="over 2 multi-frame files"):
        write_dicom_seg(tmp_path / "m.dcm", label, frames, TABLE)


def test_damaged_attributes_are_told_without_their_content(tmp_path, dicom, label):
    files = dicom.write_series(tmp_path / "s")
    whole = files[0].read_bytes()
    files[0].write_bytes(whole.replace(b"PN\x08\x00Doe^Jane", b"P?\x08\x00Doe^Jane"))
    with pytest.raises(DataError, match="no DICOM Segmentation can be made") as caught:
        write_dicom_seg(tmp_path / "m.dcm", label, [(f, 0) for f in files], TABLE)
    assert "Doe" not in str(caught.value)


def test_missing_highdicom_is_one_sentence(tmp_path, monkeypatch, label):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(VoxsegError, match=r"pip install 'voxseg\[dicom\]'"):
        write_dicom_seg(tmp_path / "m.dcm", label, [(tmp_path, 0)] * 9, TABLE)
