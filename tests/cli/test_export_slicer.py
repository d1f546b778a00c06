"""``voxseg export slicer``: files as clinicians have them, and all that can be wrong with them."""

import zipfile

import nibabel as nib
import numpy as np
import pytest

from voxseg.engine.config import build, dump
from voxseg.export.label_files import read_label_table

slicerio = pytest.importorskip("slicerio", reason="slicerio is missing: pip install 'voxseg[dev]'")
nrrd = pytest.importorskip("nrrd", reason="pynrrd comes with slicerio: pip install 'voxseg[dev]'")

TOML = """
name = "letters"
[[labels]]
value = 1
name = "left"
colour = "#ff0000"
[[labels]]
value = 2
name = "front"
colour = "#00ff00"
[[labels]]
value = 3
name = "nowhere"
colour = "#000001"
[[labels]]
value = 5
name = "top"
colour = "#0000ff"
"""


@pytest.fixture
def case(tmp_path, head):
    """Image, mask and label table of one case."""
    image, mask = head.write_phantom(tmp_path / "data", head.oriented_affines()["oblique"])
    table = tmp_path / "letters.toml"
    table.write_text(TOML, encoding="utf-8")
    return image, mask, table


@pytest.fixture
def folders(tmp_path, head):
    """A folder of images and one of masks, as predict writes them, with other maps beside."""
    for number, name in enumerate(("RAS", "LPI", "oblique")):
        affine = head.oriented_affines()[name]
        image, mask = head.write_phantom(tmp_path / "images", affine, f"s{number}")
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.rename(tmp_path / "masks" / image.name)
        for more in ("probability-1", "entropy", "disagreement"):
            (tmp_path / "masks" / f"s{number}_{more}.nii.gz").write_bytes(b"no mask")
    return tmp_path / "images", tmp_path / "masks"


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def names(path):
    read = slicerio.read_segmentation(str(path))
    return {segment["labelValue"]: segment["name"] for segment in read["segments"]}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def export(voxseg, *words):
    return voxseg("export", "slicer", *words)


def test_one_mask_into_a_folder(voxseg, case, tmp_path):
    image, mask, table = case
    out = tmp_path / "out"
    outcome = export(voxseg, mask, "--image", image, "--label-table", table, "--mrb", "-o", out)
    assert outcome.code == 0
    assert files(out) == ["head_seg.mrb", "head_seg.seg.nrrd", "labels.csv", "labels.ctbl"]
    assert str(out / "head_seg.mrb") in outcome.out
    assert names(out / "head_seg.seg.nrrd") == {1: "left", 2: "front", 3: "nowhere", 5: "top"}
    assert read_label_table(out / "labels.csv").names == read_label_table(table).names
    voxels = slicerio.read_segmentation(str(out / "head_seg.seg.nrrd"))["voxels"]
    np.testing.assert_array_equal(voxels, np.asarray(nib.load(mask).dataobj))
    with zipfile.ZipFile(out / "head_seg.mrb") as bundle:
        assert bundle.read("head_seg/Data/head_seg.nii.gz") == image.read_bytes()
        inside = bundle.read("head_seg/Data/head_seg.seg.nrrd")
    assert inside == (out / "head_seg.seg.nrrd").read_bytes()


def test_names_of_one_file(voxseg, case, tmp_path):
    image, mask, table = case
    start = (mask, "-i", image, "--labels", table, "-o")
    assert export(voxseg, *start, tmp_path / "a" / "x.seg.nrrd").code == 0
    assert files(tmp_path / "a") == ["x.seg.nrrd"]
    assert export(voxseg, *start, tmp_path / "b" / "x.mrb").code == 0
    assert files(tmp_path / "b") == ["x.mrb"]
    assert export(voxseg, *start, tmp_path / "c" / "x.seg.nrrd", "--mrb").code == 0
    assert files(tmp_path / "c") == ["x.mrb", "x.seg.nrrd"]
    for name in ("x.nrrd", "x.nii.gz", "x.mrml"):
        outcome = export(voxseg, *start, tmp_path / name)
        assert outcome.code == 2
        assert f"{name} cannot be written; -o names a folder" in outcome.err
    (tmp_path / "file").write_text("")
    outcome = export(voxseg, *start, tmp_path / "file")
    assert outcome.code == 2
    assert "file is a file; -o names a folder, or for one mask a file that ends in" in outcome.err
    outcome = export(voxseg, *start, tmp_path / "file" / "folder")
    assert outcome.code == 1
    assert "part of its folder is a file" in outcome.err
    (tmp_path / "y.mrb").mkdir()
    assert "y.mrb is a folder" in export(voxseg, *start, tmp_path / "y.mrb").err


def test_a_folder_of_masks_takes_the_table_beside_them(voxseg, folders, case, tmp_path):
    images, masks = folders
    assert voxseg("labels", case[2], "-o", masks / "labels.csv").code == 0
    outcome = export(voxseg, masks, "--image", images, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert f"names and colours: {masks / 'labels.csv'}" in outcome.err
    assert files(tmp_path / "out") == [
        "labels.csv", "labels.ctbl", "s0.seg.nrrd", "s1.seg.nrrd", "s2.seg.nrrd",
    ]  # fmt: skip
    assert names(tmp_path / "out" / "s1.seg.nrrd")[2] == "front"
    # Beside the masks, the table stays as it is.
    before = (masks / "labels.csv").stat().st_mtime_ns
    assert export(voxseg, masks, "--image", images, "-o", masks).code == 0
    assert (masks / "labels.csv").stat().st_mtime_ns == before


def test_a_run_knows_the_names_of_its_classes(voxseg, folders, tmp_path):
    images, masks = folders
    masks.rename(tmp_path / "predictions")
    labels = {"values": [0, 1, 2, 5], "names": ["bg", "one", "two", "five"]}
    (tmp_path / "config.toml").write_text(dump(build({"labels": labels})), encoding="utf-8")
    outcome = export(voxseg, tmp_path, "--image", images, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert f"names and colours: {tmp_path / 'config.toml'}" in outcome.err
    assert names(tmp_path / "out" / "s1.seg.nrrd") == {1: "one", 2: "two", 5: "five"}


def test_labels_lie_beside_their_images(voxseg, case, tmp_path):
    image, _, table = case
    words = (image.parent, "--image", image.parent, "--labels", table, "-o", tmp_path / "out")
    assert export(voxseg, *words).code == 0
    assert files(tmp_path / "out") == ["head.seg.nrrd", "labels.csv", "labels.ctbl"]


def test_without_a_table_classes_have_numbers(voxseg, case, tmp_path):
    image, mask, _ = case
    outcome = export(voxseg, mask, "--image", image, "-o", tmp_path / "out")
    assert outcome.code == 0
    assert "no labels.csv lies beside" in outcome.err
    assert names(tmp_path / "out" / "head_seg.seg.nrrd") == {
        1: "class 1", 2: "class 2", 5: "class 5",
    }  # fmt: skip


def test_nothing_is_replaced_unasked(voxseg, case, tmp_path):
    image, mask, table = case
    out = tmp_path / "out"
    words = (mask, "--image", image, "--label-table", table, "-o", out)
    assert export(voxseg, *words, "--mrb").code == 0
    outcome = export(voxseg, *words)
    assert outcome.code == 2
    assert outcome.err == f"{out / 'head_seg.seg.nrrd'} exists; use --overwrite, or another -o"
    (out / "head_seg.seg.nrrd").unlink()
    assert export(voxseg, *words).code == 0  # the same labels.csv is no hindrance
    (out / "head_seg.seg.nrrd").unlink()
    outcome = export(voxseg, mask, "--image", image, "-o", out)
    assert outcome.code == 2
    assert "labels.csv holds another label table; use --overwrite" in outcome.err
    assert not (out / "head_seg.seg.nrrd").exists()
    assert export(voxseg, mask, "--image", image, "-o", out, "--overwrite").code == 0
    assert names(out / "head_seg.seg.nrrd")[1] == "class 1"


def test_a_mask_on_another_grid(voxseg, case, head, tmp_path):
    _, mask, table = case
    other, _ = head.write_phantom(tmp_path / "other", head.oriented_affines()["LPS"])
    words = (mask, "--image", other, "--label-table", table, "-o", tmp_path / "out")
    outcome = export(voxseg, *words)
    assert outcome.code == 3
    for fact in (str(mask), str(other), "28x26x20 voxels of 2x2.5x3 mm", "axes LPS", "axes SLA",
                 "voxels apart", "use --resample"):  # fmt: skip
        assert fact in outcome.err
    assert not (tmp_path / "out").exists()
    outcome = export(voxseg, *words, "--resample")
    assert outcome.code == 0
    assert "by the nearest voxel" in outcome.err
    read = slicerio.read_segmentation(str(tmp_path / "out" / "head_seg.seg.nrrd"))
    for value, place in head.centroids(mask).items():
        middle = np.argwhere(read["voxels"] == value).mean(0)
        found = (read["ijkToLPS"] @ [*middle, 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(found, place, atol=0.5)  # of voxels of 2 to 3 mm


def test_a_label_that_resampling_loses_is_told(voxseg, tmp_path):
    label = np.zeros((12, 12, 12), np.uint8)
    label[5, 5, 5], label[2:5, 2:5, 2:5] = 1, 2
    mask = save(tmp_path / "mask.nii.gz", label)
    image = save(tmp_path / "image.nii.gz", np.ones((3, 3, 3), np.float32), np.diag([4, 4, 4, 1.0]))
    outcome = export(voxseg, mask, "-i", image, "-o", tmp_path / "out", "--resample")
    assert "nothing is left of label 1, which is too small or lies outside" in outcome.err


def test_an_empty_mask_is_written_and_told(voxseg, case, tmp_path):
    image, mask, table = case
    loaded = nib.load(mask)
    save(tmp_path / "empty.nii.gz", np.zeros(loaded.shape, np.uint8), loaded.affine)
    words = ("--image", image, "--label-table", table, "--mrb", "-o", tmp_path / "out")
    outcome = export(voxseg, tmp_path / "empty.nii.gz", *words)
    assert outcome.code == 0
    assert "empty.nii.gz holds no voxel of any class" in outcome.err
    assert len(names(tmp_path / "out" / "empty.seg.nrrd")) == 4


def test_more_labels_than_segments(voxseg, tmp_path, rng):
    label = np.arange(300, dtype=np.int16).reshape(10, 6, 5)
    image = save(tmp_path / "image.nii.gz", label.astype(np.float32))
    mask = save(tmp_path / "map.nii.gz", label)
    outcome = export(voxseg, mask, "--image", image, "-o", tmp_path / "out")
    assert outcome.code == 3
    assert "has 299 labels, and a segmentation holds at most 255" in outcome.err
    assert "--supervoxels" in outcome.err
    words = (mask, "--image", image, "-o")
    assert export(voxseg, *words, tmp_path / "out", "--supervoxels", "--mrb").code == 0
    assert files(tmp_path / "out") == ["map-label.nrrd", "map.mrb"]
    read, header = nrrd.read(str(tmp_path / "out" / "map-label.nrrd"))
    np.testing.assert_array_equal(read, label)
    assert not [key for key in header if key.startswith("Segment")]
    with zipfile.ZipFile(tmp_path / "out" / "map.mrb") as bundle:
        assert "map/Data/map-label.ctbl" in bundle.namelist()
        assert b"299 supervoxel_299 " in bundle.read("map/Data/map-label.ctbl")
    assert export(voxseg, *words, tmp_path / "a.nrrd", "--supervoxels").code == 0
    assert export(voxseg, *words, tmp_path / "a.seg.nrrd", "--supervoxels").code == 2
    outcome = export(voxseg, *words, tmp_path / "b.nrrd", "--supervoxels", "--labels", "x")
    assert outcome.code == 2
    assert "supervoxels have none" in outcome.err
    label[label > 9] = 0
    table = tmp_path / "many.csv"
    rows = "".join(f"{value},class {value},1,2,3\n" for value in range(1, 400))
    table.write_text(f"LabelValue,Name,Color_R,Color_G,Color_B\n{rows}")
    few = save(tmp_path / "few.nii.gz", label)
    outcome = export(voxseg, few, "-i", image, "--labels", table, "-o", tmp_path / "few")
    assert outcome.code == 0
    assert "of the 399 labels of the table, the 9 that it has are listed" in outcome.err
    assert len(names(tmp_path / "few" / "few.seg.nrrd")) == 9


def test_a_stack_of_masks_may_overlap(voxseg, case, tmp_path):
    image, mask, table = case
    loaded = nib.load(mask)
    label = np.asarray(loaded.dataobj)
    frames = [label == 1, label > 0, label == 9, label == 5]
    stack = save(tmp_path / "stack.nii.gz", np.stack(frames, -1).astype(np.uint8), loaded.affine)
    words = ("--image", image, "--label-table", table, "--mrb", "-o", tmp_path / "out")
    assert export(voxseg, stack, *words).code == 0
    read = slicerio.read_segmentation(str(tmp_path / "out" / "stack.seg.nrrd"))
    found = {one["labelValue"]: one["layer"] for one in read["segments"]}
    assert found == {1: 0, 2: 1, 3: 0, 5: 0}
    np.testing.assert_array_equal(read["voxels"][1] == 2, label > 0)

    outcome = export(voxseg, stack, "--image", image, "-o", tmp_path / "plain")
    assert names(tmp_path / "plain" / "stack.seg.nrrd") == {v: f"class {v}" for v in (1, 2, 3, 4)}
    three = save(tmp_path / "three.nii.gz", np.zeros((*label.shape, 3), np.uint8), loaded.affine)
    outcome = export(voxseg, three, *words)
    assert outcome.code == 3
    assert "holds 3 frames, and the label table letters has 4 labels" in outcome.err
    frames[1] = label
    wrong = save(tmp_path / "wrong.nii.gz", np.stack(frames, -1).astype(np.uint8), loaded.affine)
    outcome = export(voxseg, wrong, *words)
    assert outcome.code == 3
    assert "holds 5 in the frame of front; in a stack of masks every voxel is 0 or 1" in outcome.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value = 5", "value = 6", "holds the label 5, and the label table letters has 1, 2, 3, 6"),
        ("value = 5\n", "", "label number 4: value is missing"),
        ('name = "top"', 'name = "left"', "the name left stands there twice"),
        ('"#0000ff"', '"blue"', "the colour of label 5 (top) must be #rrggbb"),
    ],
)
def test_a_label_table_that_does_not_fit(voxseg, case, tmp_path, old, new, message):
    image, mask, table = case
    table.write_text(TOML.replace(old, new), encoding="utf-8")
    words = (mask, "--image", image, "--label-table", table, "-o", tmp_path / "x.seg.nrrd")
    outcome = export(voxseg, *words)
    assert outcome.code == 3
    assert message in outcome.err
    assert not (tmp_path / "x.seg.nrrd").exists()


def test_what_is_not_there_or_not_paired(voxseg, folders, case, tmp_path, save_pictures):
    images, masks = folders
    image, _, _ = case
    out = ("-o", tmp_path / "out")
    outcome = export(voxseg, tmp_path / "no.nii.gz", "--image", image, *out)
    assert outcome.code == 3
    assert "there is no file or folder" in outcome.err
    outcome = export(voxseg, masks, "--image", image, *out)
    assert outcome.code == 2
    assert "is one file; give two files or two folders" in outcome.err
    (images / "s1.nii.gz").unlink()
    outcome = export(voxseg, masks, "--image", images, *out)
    assert outcome.code == 3
    assert f"{masks / 's1.nii.gz'} has no image in {images}: there is no case s1" in outcome.err
    pictures = save_pictures(tmp_path / "pictures", "a.png:0 1")
    outcome = export(voxseg, pictures / "a.png", "--image", pictures / "a.png", *out)
    assert outcome.code == 2
    assert "is a picture; 3D Slicer gets volumes" in outcome.err
    assert export(voxseg, masks, "--image", images, "-o", tmp_path / "a.mrb").code in (2, 3)
    assert not (tmp_path / "out").exists()


def test_one_broken_mask_among_several(voxseg, folders, case, tmp_path):
    images, masks = folders
    save(masks / "s1.nii.gz", np.zeros((4, 4, 4), np.uint8))
    words = (masks, "--image", images, "--labels", case[2], "-o", tmp_path / "out")
    outcome = export(voxseg, *words)
    assert outcome.code == 4
    assert "s1: " in outcome.err
    assert "4x4x4 voxels" in outcome.err
    assert "s0.seg.nrrd" in files(tmp_path / "out")
    assert "s2.seg.nrrd" in files(tmp_path / "out")


def test_an_image_that_itk_would_put_elsewhere_is_copied(voxseg, tmp_path, rng):
    sheared = np.array([[2, 0.8, 0, 3], [0, 2, 0.3, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    array = rng.normal(100, 9, (6, 7, 8)).astype(np.float32)
    image = save(tmp_path / "image.nii.gz", array, sheared)
    mask = save(tmp_path / "mask.nii.gz", (array > 100).astype(np.uint8), sheared)
    words = (mask, "--image", image, "--mrb", "-o", tmp_path / "out")
    assert export(voxseg, *words).code == 0
    with zipfile.ZipFile(tmp_path / "out" / "mask.mrb") as bundle:
        (tmp_path / "copy.nrrd").write_bytes(bundle.read("mask/Data/mask.nrrd"))
    read, header = nrrd.read(str(tmp_path / "copy.nrrd"))
    np.testing.assert_array_equal(read, array)
    np.testing.assert_allclose(
        header["space directions"].T, np.diag([-1, -1, 1]) @ sheared[:3, :3], atol=1e-6
    )


def test_units_become_millimetres(voxseg, tmp_path):
    label = np.zeros((5, 5, 5), np.uint8)
    label[1, 2, 3] = 1
    affine = np.diag([0.001, 0.002, 0.003, 1.0])
    for name in ("image", "mask"):
        made = nib.Nifti1Image(label, affine)
        made.header.set_xyzt_units("meter")
        nib.save(made, tmp_path / f"{name}.nii.gz")
    words = (tmp_path / "mask.nii.gz", "-i", tmp_path / "image.nii.gz", "-o", tmp_path / "out")
    assert export(voxseg, *words).code == 0
    read = slicerio.read_segmentation(str(tmp_path / "out" / "mask.seg.nrrd"))
    np.testing.assert_allclose(np.diag(read["ijkToLPS"]), [-1, -2, 3, 1], rtol=1e-6)
