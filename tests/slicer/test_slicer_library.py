"""Files as 3D Slicer's own library loads them.

It is a gigabyte and brings a VTK of its own, so it may live in another Python, which
VOXSEG_SLICER_PYTHON names: ``slicer_reader.py`` runs there. Without it these tests are skipped.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import voxseg
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import Code, Codes, Label, LabelTable
from voxseg.export.seg_nrrd import write_seg_nrrd

pytestmark = [pytest.mark.slicer, pytest.mark.slow]

ORIENTATIONS = ("RAS", "RAI", "RPS", "RPI", "LAS", "LAI", "LPS", "LPI", "oblique")
TISSUE = "SCT^85756007^Tissue"
TABLE = LabelTable(
    labels=(
        Label(
            value=1,
            # A comma, which CSV quotes. Of a .ctbl Slicer drops a ' at either end of a name.
            name="Linke Höhle, die <erste> & d'Este",
            colour=(255, 0, 51),
            codes=Codes(
                category=Code("SCT", "91723000", "Anatomical Structure"),
                type=Code("SCT", "5366008", "Hippocampus"),
                type_modifier=Code("SCT", "7771000", "Left"),
            ),
        ),
        Label(value=2, name="letter A", colour=(0, 128, 255)),
        Label(value=4, name="in no mask", colour=(1, 2, 3)),
        Label(value=5, name="letter S", colour=(0, 0, 0)),
    )
)


@pytest.fixture(scope="session")
def slicer():
    """Load files with Slicer's library; the answer of ``slicer_reader.py`` for each."""
    python = os.environ.get("VOXSEG_SLICER_PYTHON", sys.executable)
    if python == sys.executable and importlib.util.find_spec("slicer_core") is None:
        pytest.skip(
            "no slicer-core here, and VOXSEG_SLICER_PYTHON names no Python that has it: "
            "pip install 'voxseg[slicer-test]'"
        )
    reader = Path(__file__).with_name("slicer_reader.py")

    def load(*paths):
        done = subprocess.run(
            [python, str(reader), *map(str, paths)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "ERR|" not in done.stderr, done.stderr
        found = json.loads(done.stdout)
        for path in paths:
            assert found[str(path)]["read"], (path, found[str(path)]["messages"])
            assert found[str(path)]["messages"] == ""
        return [found[str(path)] for path in paths]

    return load


def check_segments(told, label, affine, table=TABLE):
    """Compare segments with the label map that they were written of, by nibabel's affine."""
    assert [one["id"] for one in told] == [f"Segment_{one.value}" for one in table]
    for segment, wanted in zip(told, table, strict=True):
        assert segment["value"] == wanted.value
        assert segment["name"] == wanted.name
        assert segment["status"] == "completed"
        np.testing.assert_allclose(segment["colour"], np.array(wanted.colour) / 255, atol=1e-5)
        voxels = np.argwhere(label == wanted.value)
        assert segment["voxels"] == len(voxels)
        if len(voxels):
            place = nib.affines.apply_affine(affine, voxels.mean(0))
            np.testing.assert_allclose(segment["centroid"], place, atol=1e-3)
            # Slicer makes the surface on loading; it is smoothed, so it only lies about there.
            assert segment["surface"] > 50
            np.testing.assert_allclose(segment["surface_centre"], place, atol=2)


def test_segmentations_of_every_orientation(slicer, head, tmp_path):
    paths, expected = [], []
    for name in ORIENTATIONS:
        _, source = head.write_phantom(tmp_path, head.oriented_affines()[name], name)
        image = nib.load(source)
        label = np.asarray(image.dataobj)
        paths.append(write_seg_nrrd(tmp_path / f"{name}.seg.nrrd", label, image.affine, TABLE))
        expected.append((label, image.affine))
    for found, (label, affine) in zip(slicer(*paths), expected, strict=True):
        told = found["content"]
        assert told["source"] == "Binary labelmap"
        assert told["layers"] == 1
        check_segments(told["segments"], label, affine)
        first, second = told["segments"][:2]
        assert "~SCT^5366008^Hippocampus~SCT^7771000^Left~" in first["terminology"]
        assert f"~{TISSUE}~{TISSUE}~^^~" in second["terminology"]


def test_layers(slicer, tmp_path):
    masks = {value: np.zeros((9, 8, 7), bool) for value in (1, 2, 5)}
    masks[1][:5] = masks[2][3:6] = masks[5][4:, 2:4] = True
    affine = np.diag([-1.0, 2, 3, 1])
    affine[:3, 3] = 40, -20, 10
    (found,) = slicer(write_seg_nrrd(tmp_path / "a.seg.nrrd", masks, affine, TABLE))
    assert found["content"]["layers"] == 3
    for segment in found["content"]["segments"]:
        mask = masks.get(segment["value"])
        assert segment["voxels"] == (0 if mask is None else mask.sum())
        if mask is not None:
            place = nib.affines.apply_affine(affine, np.argwhere(mask).mean(0))
            np.testing.assert_allclose(segment["centroid"], place, atol=1e-3)


def test_colour_tables(slicer, tmp_path):
    for found in slicer(*write_label_table(tmp_path, TABLE)):
        told = {int(value): entry for value, entry in found["content"].items()}
        told.pop(0, None)  # background, in one of the two
        assert set(told) == {1, 2, 4, 5}
        for one in TABLE:
            assert told[one.value]["name"] == one.name
            colour = [*np.array(one.colour) / 255, 1]
            np.testing.assert_allclose(told[one.value]["colour"], colour, atol=1e-6)


@pytest.mark.parametrize("orientation", ["LAS", "oblique"])
def test_scenes_open_image_and_segmentation(slicer, head, tmp_path, orientation):
    image, mask = head.write_phantom(tmp_path, head.oriented_affines()[orientation], "Fall Ä&1")
    table, _ = write_label_table(tmp_path / "table", TABLE)
    voxseg.export_slicer(mask, image, tmp_path / "a.mrb", label_table=str(table))
    (found,) = slicer(tmp_path / "a.mrb")
    (segmentation,), (volume,) = found["segmentations"], found["volumes"]
    source, label = nib.load(image), np.asarray(nib.load(mask).dataobj)
    check_segments(segmentation["segments"], label, source.affine)
    assert segmentation["name"] == "Fall Ä&1_seg segmentation"
    assert segmentation["visible_3d"]
    assert segmentation["reference"] == volume["id"]
    assert volume["sum"] == pytest.approx(float(source.get_fdata().sum()), rel=1e-6)
    check_place(volume["matrix"], source.affine, source.shape)
    low, high = volume["window"]
    assert 20 <= low < high <= 170
    check_views(found["views"], volume["id"])
    voxel = np.linalg.solve(source.affine, [*found["views"]["camera"]["focus"], 1])[:3]
    assert label[tuple(np.rint(voxel).astype(int))] > 0
    assert found["views"]["Red"]["label"] is None


def check_place(matrix, affine, shape):
    """Slicer turns left-handed grids round; their corners stay where they are."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    pair = [nib.affines.apply_affine(np.array(m), corners) for m in (matrix, affine)]
    sorted_pair = [places[np.lexsort(places.round(2).T)] for places in pair]
    np.testing.assert_allclose(*sorted_pair, atol=1e-3)


def check_views(views, volume):
    assert {views[name]["orientation"] for name in ("Red", "Green", "Yellow")} == {
        "Axial", "Coronal", "Sagittal",
    }  # fmt: skip
    for name in ("Red", "Green", "Yellow"):
        assert views[name]["linked"]
        assert views[name]["background"] == volume
        axis = ["Yellow", "Green", "Red"].index(name)
        assert views[name]["centre"][axis] == pytest.approx(views["camera"]["focus"][axis])
    assert views["camera"]["at"][1] > views["camera"]["focus"][1]
    assert views["layout"] == 2


def test_a_sheared_image_opens_too(slicer, tmp_path, rng):
    """Slicer refuses it as NIfTI, so the scene holds a copy."""
    affine = np.array([[2, 0.8, 0, 3], [0, 2, 0.3, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    array = rng.normal(100, 9, (12, 13, 14)).astype(np.float32)
    label = np.zeros(array.shape, np.uint8)
    label[3:9, 2:8, 4:9] = 1
    for name, voxels in (("image", array), ("mask", label)):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    voxseg.export_slicer(tmp_path / "mask.nii.gz", tmp_path / "image.nii.gz", tmp_path / "a.mrb")
    (found,) = slicer(tmp_path / "a.mrb")
    stored = nib.load(tmp_path / "image.nii.gz").affine
    check_place(found["volumes"][0]["matrix"], stored, array.shape)
    assert found["volumes"][0]["sum"] == pytest.approx(float(array.sum(dtype=float)), rel=1e-6)
    (segment,) = found["segmentations"][0]["segments"]
    place = nib.affines.apply_affine(stored, np.argwhere(label).mean(0))
    np.testing.assert_allclose(segment["centroid"], place, atol=1e-3)


def test_predictions_of_every_orientation(slicer, phantom, tmp_path):
    """From NIfTI through a network that makes no mistake into Slicer, in the same millimetres."""
    images, out = phantom.write_images(tmp_path / "images"), tmp_path / "out"
    run = phantom.write_network(tmp_path / "run")
    outcomes = voxseg.predict(run, tmp_path / "images", out, mrb=True, device="cpu")
    assert {outcome.error for outcome in outcomes} == {""}
    scenes = {outcome.case_id: Path(outcome.also[1]) for outcome in outcomes}
    assert set(scenes) == set(images)
    for name, found in zip(scenes, slicer(*scenes.values()), strict=True):
        path, truth = images[name]
        image = nib.load(path)
        (segmentation,), (volume,) = found["segmentations"], found["volumes"]
        check_place(volume["matrix"], image.affine, image.shape)
        told = {one["value"]: one for one in segmentation["segments"]}
        assert set(told) == set(truth)
        voxel = abs(np.linalg.det(image.affine))
        for value, place in truth.items():
            np.testing.assert_allclose(told[value]["centroid"], place.centroid, atol=1e-3)
            assert told[value]["voxels"] * voxel == pytest.approx(place.mm3, rel=1e-5)


def test_supervoxels_are_a_label_map(slicer, tmp_path, rng):
    shape = (20, 18, 16)
    affine = np.diag([-1.0, 1, 2, 1])
    regions = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    image = rng.normal(100, 9, shape).astype(np.float32)
    for name, voxels in (("image", image), ("map", regions)):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    out = tmp_path / "out"
    voxseg.export_slicer(
        tmp_path / "map.nii.gz", tmp_path / "image.nii.gz", out, supervoxels=True, mrb=True
    )
    scene, alone = slicer(out / "map.mrb", out / "map-label.nrrd")
    assert scene["segmentations"] == []
    (label,) = scene["labels"]
    for told in (label, alone["content"]):
        assert told["class"] == "vtkMRMLLabelMapVolumeNode"
        assert told["sum"] == regions.sum(dtype=float)
        check_place(told["matrix"], affine, shape)
    assert label["colours"] == "labels"
    for name in ("Red", "Green", "Yellow"):
        assert scene["views"][name]["outline"]
        assert scene["views"][name]["label"] == label["id"]
