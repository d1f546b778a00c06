"""The phantom goes into ``voxseg predict`` in every orientation, and lies where it lay, in mm.

``FORMATS`` has a row for each file that clinicians get; each is read by somebody else's library.
"""

import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK

import voxseg

from . import phantom as made
from .phantom import LABELS, MOST_MM, Case, Place
from .viewer_page import ViewerPage

VALUES = {"head": 1, "letter L": 2, "letter A": 5, "letter S": 9}
"""Of labels, by the names that files have for them."""


def read_nifti(case, folder):
    """The mask itself, by ITK, whose world runs to the left and the back."""
    return by_itk(SimpleITK.ReadImage(str(case.mask)))


def by_itk(image):
    """Where each label of an ITK image is."""
    values = SimpleITK.GetArrayFromImage(image)  # (Z, Y, X)
    found = {}
    for value in np.unique(values[values > 0]):
        voxels = np.argwhere(values == value)
        left, back, top = image.TransformContinuousIndexToPhysicalPoint(voxels.mean(0)[::-1])
        mm3 = len(voxels) * float(np.prod(image.GetSpacing()))
        found[int(value)] = Place((-left, -back, top), mm3)
    return found


def read_segmentation(case, folder):
    """CASE.seg.nrrd by slicerio, whose world is ITK's; a value is whose name says so."""
    slicerio = pytest.importorskip(
        "slicerio", reason="slicerio is missing: pip install 'voxseg[dev]'"
    )
    read = slicerio.read_segmentation(str(_beside(case.mask, ".seg.nrrd")))
    to_ras = np.diag([-1, -1, 1, 1]) @ read["ijkToLPS"]
    segments = {one["name"]: one for one in read["segments"]}
    assert {one["layer"] for one in segments.values()} == {0}
    label = np.zeros(read["voxels"].shape, np.uint8)
    for name, value in VALUES.items():
        label[read["voxels"] == segments[name]["labelValue"]] = value
    return made.places(label, to_ras)


def read_scene(case, folder):
    """What lies in CASE.mrb, by ITK: the segmentation, on the grid of the image beside it."""
    with zipfile.ZipFile(_beside(case.mask, ".mrb")) as scene:
        scene.extractall(folder)
    (image,), (mask,) = (list(folder.glob(f"*/Data/{case.name}{end}"))
                         for end in (".nii.gz", ".seg.nrrd"))  # fmt: skip
    image, mask = SimpleITK.ReadImage(str(image)), SimpleITK.ReadImage(str(mask))
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    seen = SimpleITK.GetArrayFromImage(image)[SimpleITK.GetArrayFromImage(mask) == LABELS["S"]]
    assert set(np.unique(seen)) == {made.INTENSITIES[LABELS["S"]]}
    return by_itk(mask)


def read_dicom(case, folder):
    """The mask as DICOM Segmentation of a series that was recorded on the image's grid."""
    pytest.importorskip("pydicom", reason="DICOM is an extra, and pydicom is missing")
    highdicom = pytest.importorskip(
        "highdicom", reason="DICOM is an extra, and highdicom is missing"
    )
    from . import dicom_series

    image = nibabel.load(case.image)
    dicom_series.write_series(folder / "series", np.asarray(image.dataobj), image.affine)
    names = str(case.mask.with_name("labels.csv"))
    voxseg.export_dicom(case.mask, folder / "mask.dcm", series=folder / "series", label_table=names)
    segmentation = highdicom.seg.segread(folder / "mask.dcm")
    volume = segmentation.get_volume(combine_segments=True)
    label = np.zeros(volume.array.shape, np.uint8)
    for number, segment in enumerate(segmentation.SegmentSequence, 1):
        label[volume.array == number] = VALUES[segment.SegmentLabel]
    return made.places(label, np.diag([-1, -1, 1, 1]) @ volume.affine)


def read_viewer(case, folder):
    """What lies in the page of a viewer, where classes are numbered from 1."""
    page = voxseg.view(case.image, case.mask, folder / "page.html").path
    held = ViewerPage(page.read_text(encoding="utf-8"))
    numbered = held.volume("mask-0")
    indices = np.asarray(numbered.dataobj)
    label = np.zeros(indices.shape, np.uint8)
    for row in held.case()["labels"]:
        assert VALUES[row["name"]] == row["value"]
        label[indices == row["index"]] = row["value"]
    return made.places(label, numbered.affine)


def _beside(mask, ending):
    return mask.with_name(mask.name.replace(".nii.gz", ending))


FORMATS = {
    "nifti": read_nifti,
    "seg.nrrd": read_segmentation,
    "mrb": read_scene,
    "seg.dcm": read_dicom,
    "viewer": read_viewer,
}
"""Name -> function of a case and an empty folder: where each label of that format's file lies."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """All orientations, predicted by one command."""
    root = tmp_path_factory.mktemp("phantom")
    images = made.write_images(root / "images")
    run = made.write_network(root / "run")
    outcomes = voxseg.predict(
        run, root / "images", root / "masks", device="cpu", slicer=True, mrb=True
    )
    assert [outcome.error for outcome in outcomes] == [""] * len(images)
    return {
        name: Case(name, path, root / "masks" / path.name, truth)
        for name, (path, truth) in images.items()
    }


def test_letters_are_where_they_say():
    found = made.places(*made.phantom())
    head, *letters = (np.array(found[value].centroid) for value in LABELS.values())
    assert list(LABELS) == ["head", "L", "A", "S"]
    right, front, top = np.array(letters) - head
    assert right[0] < -8
    assert front[1] > 8
    assert top[2] > 8


def test_all_orientations_are_different():
    turned = made.orientations()
    assert len(turned) == 8 + 5 + 2
    label, affine = made.phantom()
    stored = {name: made.turned(label, affine, *how)[0].tobytes() for name, how in turned.items()}
    del stored["oblique"], stored["oblique-left-handed"]  # which differ in the world
    assert len(set(stored.values())) == len(stored)


@pytest.mark.parametrize("orientation", made.orientations())
@pytest.mark.parametrize("form", FORMATS)
def test_every_label_lies_in_the_same_millimetres(cases, form, orientation, tmp_path):
    case = cases[orientation]
    found = FORMATS[form](case, tmp_path)
    assert sorted(found) == sorted(LABELS.values())
    for value, place in case.truth.items():
        np.testing.assert_allclose(found[value].centroid, place.centroid, atol=MOST_MM)
        np.testing.assert_allclose(found[value].mm3, place.mm3, rtol=1e-5)


def test_storing_a_body_otherwise_does_not_move_it(cases):
    for name in set(cases) - {"oblique", "oblique-left-handed"}:  # which are turned in the world
        for value, place in cases["RAS"].truth.items():
            other = cases[name].truth[value]
            np.testing.assert_allclose(other.centroid, place.centroid, atol=1e-9)
