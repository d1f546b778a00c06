"""What is asked of DICOM Segmentations before and during a prediction."""

import sys

import numpy as np
import pytest

from voxseg.data.cases import Case
from voxseg.data.reading import read_geometry
from voxseg.engine.case_volumes import CaseVolumes
from voxseg.engine.dicom_files import DicomSeg, export_dicom, seg_path, wanted_dicom
from voxseg.engine.predict_case import CaseAnswer, Checked
from voxseg.errors import UsageError, VoxsegError
from voxseg.export.labels import plain_table

pytestmark = pytest.mark.usefixtures("needs_highdicom")


@pytest.fixture(scope="module")
def needs_highdicom():
    pytest.importorskip("highdicom", reason="DICOM is an extra, and highdicom is missing")


@pytest.fixture
def answer(tmp_path, dicom):
    """Give the answer of a mask for one series."""
    files = tuple(dicom.write_series(tmp_path / "series"))

    def of(label):
        return CaseAnswer(
            Case("t1", files, None), tmp_path / "out" / "t1.nii.gz", read_geometry(files)[0],
            label, plain_table({3: "thing", 4: "other"}), CaseVolumes(),
        )  # fmt: skip

    return of


def test_a_mask_is_written_beside_its_nifti(answer, tmp_path, dicom):
    label = np.zeros(dicom.SHAPE, np.uint8)
    label[3:5, 4, 2] = 3
    extra = DicomSeg()
    assert extra(answer(label)) == [tmp_path / "out" / "t1.seg.dcm"]
    assert seg_path(tmp_path / "out" / "t1.nii.gz").is_file()
    assert extra.endings == (".seg.dcm",)
    found = dicom.read(tmp_path / "out" / "t1.seg.dcm")
    assert [one.SegmentLabel for one in found.SegmentSequence] == ["thing", "other"]


def test_an_empty_mask_has_no_segmentation_and_that_is_said(answer, tmp_path, dicom):
    said = []
    assert DicomSeg(say=said.append)(answer(np.zeros(dicom.SHAPE, np.uint8))) == []
    assert said == ["t1: no DICOM Segmentation, for the mask is empty"]
    assert not (tmp_path / "out").exists()


def test_it_is_asked_before_any_work(tmp_path, dicom, make_subjects, monkeypatch):
    (extra,) = wanted_dicom(True, False, print)
    assert isinstance(extra, Checked)
    extra.check([Case("a", tuple(dicom.write_series(tmp_path / "a")), None)])
    data = make_subjects(tmp_path / "data", 1)
    with pytest.raises(UsageError, match=r"case0\.nii\.gz is none; 'voxseg export dicom"):
        extra.check([Case("b", (data / "case0.nii.gz",), None)])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(VoxsegError, match=r"pip install 'voxseg\[dicom\]'"):
        extra.check([])


def test_nothing_to_anonymise_is_refused():
    assert wanted_dicom(False, False, print) == ()
    with pytest.raises(UsageError, match="add --dicom-seg"):
        wanted_dicom(False, True, print)


def test_a_label_that_falls_between_slices_is_counted_as_lost(tmp_path, dicom):
    import nibabel as nib

    dicom.write_series(tmp_path / "series", affine=dicom.axial())
    fine = dicom.axial() @ np.diag([1, 1, 0.2, 1])
    label = np.zeros((*dicom.SHAPE[:2], 40), np.uint8)
    label[3:9, 3:9, 10:21] = 1
    label[3:9, 3:9, 23] = 2  # nearest to no slice: they lie at 20 and 25
    nib.save(nib.Nifti1Image(label, fine), tmp_path / "mask.nii.gz")
    done = export_dicom(tmp_path / "mask.nii.gz", tmp_path / "m.dcm", tmp_path / "series")
    assert done.is_resampled
    assert done.voxels == {"class 1": (36 * 11, 36 * 3), "class 2": (36, 0)}
    assert [one.name for one in done.written.empty] == ["class 2"]
