"""``voxseg.view``: files in, one page out; what does not fit is refused in one sentence."""

import nibabel as nib
import numpy as np
import pytest

import voxseg
from voxseg.errors import DataError, UsageError
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import plain_table

SHAPE = (16, 18, 14)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.5, 0, -10], [0, 0, 2.0, 5], [0, 0, 0, 1]])


def save(path, array, affine=AFFINE, unit="mm"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


@pytest.fixture
def label():
    found = np.zeros(SHAPE, np.uint8)
    found[4:9, 5:12, 3:8] = 1
    found[6:8, 7:9, 4:6] = 6
    return found


@pytest.fixture
def image(tmp_path, rng):
    return save(tmp_path / "data" / "s1.nii.gz", rng.normal(90, 9, SHAPE).astype(np.float32))


@pytest.fixture
def mask(tmp_path, label):
    return save(tmp_path / "masks" / "s1.nii.gz", label)


def test_a_page_is_named_after_its_image(image, mask, tmp_path, monkeypatch, read_viewer):
    monkeypatch.chdir(tmp_path)
    said = []
    written = voxseg.view(image, mask, say=said.append)
    assert written.path.resolve() == tmp_path / "s1_view.html"
    assert said[-1].startswith("page: s1_view.html (1.")
    assert "holds the patient's images" in said[-1]
    page = read_viewer(written.path)
    assert page.case()["name"] == "s1"
    assert [row["name"] for row in page.case()["labels"]] == ["label 1", "label 6"]
    with pytest.raises(UsageError, match="--overwrite"):
        voxseg.view(image, mask)
    voxseg.view(image, [mask, mask], overwrite=True)
    assert [one["name"] for one in read_viewer(written.path).case()["masks"]] == [
        "masks/s1", "masks/s1 again",
    ]  # fmt: skip


def test_names_come_from_the_table_beside_the_mask(image, mask, tmp_path, read_viewer):
    page = tmp_path / "page.html"
    write_label_table(mask.parent, plain_table({1: "shell", 6: "core", 9: "other"}))
    voxseg.view(image, mask, page)
    labels = read_viewer(page).case()["labels"]
    assert [row["name"] for row in labels] == ["shell", "core", "other"]
    assert labels[2]["ml"] == [0]

    write_label_table(mask.parent, plain_table({1: "shell"}))
    written = voxseg.view(image, mask, page, overwrite=True)
    assert [row["name"] for row in read_viewer(page).case()["labels"]] == ["shell", "label 6"]
    assert "no name for label 6" in written.notes[0]

    (mask.parent / "labels.csv").write_text("case,label\ns1,3\n")
    written = voxseg.view(image, mask, page, overwrite=True)
    assert "Labels have no names, for" in written.notes[0]
    assert "labels.csv" in written.notes[0]


def test_a_table_can_be_chosen(image, mask, label, tmp_path, read_viewer):
    page = tmp_path / "page.html"
    with pytest.raises(DataError, match="holds the label 6, and the label table"):
        voxseg.view(image, mask, page, label_table="msd-hippocampus")
    save(mask, np.minimum(label, 2))
    voxseg.view(image, mask, page, label_table="msd-hippocampus")
    assert read_viewer(page).case()["labels"][0]["name"] == "anterior hippocampus"
    with pytest.raises(UsageError, match="did you mean msd-hippocampus"):
        voxseg.view(image, mask, page, label_table="msd-hipocampus", overwrite=True)


def test_a_mask_on_another_grid_is_refused_or_resampled(image, label, tmp_path, read_viewer):
    affine = AFFINE.copy()
    affine[:3, 3] += [-2, 3, 4]  # by 2, 2 and 2 voxels
    away = save(tmp_path / "away.nii.gz", label, affine)
    page = tmp_path / "page.html"
    with pytest.raises(DataError) as error:
        voxseg.view(image, away, page)
    assert str(error.value).count("16x18x14 voxels of 1x1.5x2 mm, axes LAS, first voxel at (") == 2
    assert "(28, -7, 9) mm" in str(error.value)
    assert "(30, -10, 5) mm" in str(error.value)
    assert "--resample" in str(error.value)
    written = voxseg.view(image, away, page, resample=True, full=True)
    assert "brought onto the image's grid, by the nearest voxel" in written.notes[0]
    found = np.asarray(read_viewer(page).volume("mask-0").dataobj)[::-1]  # which runs to the right
    moved = np.zeros(SHAPE, np.uint8)
    moved[2:, 2:, 2:] = label[:-2, :-2, :-2]
    np.testing.assert_array_equal(found, np.array([0, 1, 0, 0, 0, 0, 2])[moved])
    affine[:3, 3] += 5000
    save(away, label, affine)
    written = voxseg.view(image, away, page, resample=True, overwrite=True)
    assert any("None of what away.nii.gz marks lies within" in note for note in written.notes)


def test_other_units_are_brought_to_mm(mask, label, tmp_path, read_viewer):
    metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE
    image = save(tmp_path / "m.nii.gz", label.astype(np.float32), metres, "meter")
    save(mask, label, metres, "meter")
    voxseg.view(image, mask, tmp_path / "page.html", full=True)
    found = read_viewer(tmp_path / "page.html").volume("mask-0").affine
    np.testing.assert_allclose(np.linalg.norm(found[:3, :3], axis=0), [1, 1.5, 2], rtol=1e-6)
    np.testing.assert_allclose(found[:3, 3], [30 - 15, -10, 5], rtol=1e-5)


def test_maps_are_shown(image, mask, tmp_path, read_viewer, rng):
    regions = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE) // 30
    unsure = rng.random(SHAPE).astype(np.float32)
    page = tmp_path / "page.html"
    maps = {
        "supervoxels": save(tmp_path / "regions.nii.gz", regions),
        "uncertainty": save(tmp_path / "unsure.nii.gz", unsure),
    }
    voxseg.view(image, mask, page, **maps)
    case = read_viewer(page).case()
    assert case["superpixels"] == len(np.unique(regions)) - 1  # 0 is outside
    assert case["uncertainty"] is True
    save(maps["uncertainty"], 4 * unsure)
    with pytest.raises(DataError, match=r"values from .* to [34].*; an uncertainty map lies in"):
        voxseg.view(image, mask, page, **maps, overwrite=True)


def test_an_empty_mask_is_shown_and_said(image, mask, label, tmp_path, read_viewer):
    save(mask, label * 0)
    written = voxseg.view(image, mask, tmp_path / "page.html")
    assert written.notes[0] == "The mask s1 has no labelled voxel."
    page = read_viewer(written.path)
    assert page.case()["masks"][0]["voxels"] == 0
    assert "The mask s1 has no labelled voxel." in page.notes()


def test_what_cannot_be_shown_is_refused(image, mask, label, tmp_path):
    page = tmp_path / "page.html"
    many = save(tmp_path / "many.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    below = save(tmp_path / "below.nii.gz", label.astype(np.int16) - 1)
    frames = save(tmp_path / "frames.nii.gz", np.zeros((*SHAPE, 3), np.float32))
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb = save(tmp_path / "rgb.nii.gz", colours)
    for name in ("photo.png", "photo.jpg"):
        (tmp_path / name).write_bytes(b"")
    for place, masks, error, words in (
        (image, many, DataError, r"many.nii.gz holds 4031 labels.*--supervoxels"),
        (image, below, DataError, r"below.nii.gz holds the label -1"),
        (image, frames, DataError, r"frames.nii.gz holds 3 frames"),
        (frames, mask, DataError, r"frames.nii.gz holds 3 frames"),
        (rgb, mask, DataError, r"rgb.nii.gz holds colour voxels"),
        (tmp_path / "photo.png", mask, UsageError, r"photo.png is a photograph"),
        (image, tmp_path / "photo.jpg", UsageError, r"photo.jpg is a photograph"),
        (tmp_path / "gone.nii.gz", mask, DataError, r"gone.nii.gz"),
    ):
        with pytest.raises(error, match=words) as found:
            voxseg.view(place, masks, page)
        assert "\n" not in str(found.value)
    assert not page.exists()
    half = np.zeros(SHAPE, np.int16)
    half.flat[:200] = np.arange(200)
    parts = [save(tmp_path / f"{n}.nii.gz", half + n * 200) for n in range(2)]
    with pytest.raises(DataError, match="399 labels together"):
        voxseg.view(image, parts, page)


def test_a_page_in_a_bad_place_is_refused_before_any_work(image, mask, tmp_path):
    with pytest.raises(UsageError, match=r"is a folder; name the page, as .*s1_view.html"):
        voxseg.view(image, mask, tmp_path)
    with pytest.raises(UsageError, match="is one of the volumes"):
        voxseg.view(image, mask, mask, overwrite=True)
    with pytest.raises(UsageError, match="lower and a higher intensity, got 9 and 9"):
        voxseg.view(image, mask, tmp_path / "page.html", window=(9, 9))
