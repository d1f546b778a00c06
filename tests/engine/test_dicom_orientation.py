"""A head with letters, recorded in every orientation: DICOM -> predict -> every output, in mm."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

import voxseg

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MOST_MM = 0.01

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def answers(phantom, dicom, tmp_path_factory):
    """Masks of series in all orientations: name -> the mask, and where its labels truly are."""
    pytest.importorskip("highdicom", reason="DICOM is an extra, and highdicom is missing")
    root = tmp_path_factory.mktemp("orientations")
    run = phantom.write_network(root / "run")
    truths = {}
    for name, (path, truth) in phantom.write_images(root / "nifti").items():
        image = nib.load(path)
        dicom.write_series(
            root / "dicom" / name, np.asarray(image.dataobj), image.affine,
            SeriesInstanceUID=dicom.uid(name),
        )  # fmt: skip
        truths[name] = truth
    folders = [root / "dicom" / name for name in truths]
    outcomes = voxseg.predict(
        run, folders, root / "masks", dicom_seg=True, slicer=True, device="cpu"
    )
    assert [outcome.error for outcome in outcomes] == [""] * len(truths)
    return {name: (root / "masks" / name, truth) for name, truth in truths.items()}


def test_there_is_every_orientation(answers):
    assert {"RAS", "LPS", "LAS", "oblique", "oblique-left-handed"} <= set(answers)
    assert len(answers) > 14


def test_nifti_masks_lie_where_the_head_is(answers, phantom):
    for name, (stem, truth) in answers.items():
        mask = nib.load(f"{stem}.nii.gz")
        found = phantom.places(np.asarray(mask.dataobj), mask.affine)
        agree(found, truth, name)


def test_segmentations_lie_where_the_head_is(answers):
    import highdicom

    for name, (stem, truth) in answers.items():
        seg = highdicom.seg.segread(f"{stem}.seg.dcm")
        volume = seg.get_volume(combine_segments=True)
        affine = LPS @ volume.affine
        labels = [one.SegmentLabel for one in seg.SegmentSequence]
        assert labels == ["head", "letter L", "letter A", "letter S"]
        for number, value in enumerate(sorted(truth), 1):
            voxels = np.argwhere(volume.array == number)
            mm = (affine @ [*voxels.mean(0), 1])[:3]
            np.testing.assert_allclose(mm, truth[value].centroid, atol=MOST_MM, err_msg=name)
            mm3 = len(voxels) * abs(np.linalg.det(affine))
            np.testing.assert_allclose(mm3, truth[value].mm3, rtol=1e-5, err_msg=name)


def test_files_for_slicer_lie_where_the_head_is(answers):
    for name, (stem, truth) in answers.items():
        shapes = SimpleITK.LabelShapeStatisticsImageFilter()
        shapes.Execute(SimpleITK.ReadImage(f"{stem}.seg.nrrd"))
        for value, place in truth.items():
            mm = np.array(shapes.GetCentroid(value)) * [-1, -1, 1]
            np.testing.assert_allclose(mm, place.centroid, atol=MOST_MM, err_msg=name)


def agree(found, truth, name):
    assert set(found) == set(truth), name
    for value, place in truth.items():
        np.testing.assert_allclose(
            found[value].centroid, place.centroid, atol=MOST_MM, err_msg=name
        )
        np.testing.assert_allclose(found[value].mm3, place.mm3, rtol=1e-5, err_msg=name)
