"""Photographs with normals in folders of any names: pairs, parts, refusals."""

import numpy as np
import pytest

from voxseg.data.layouts import find_cases
from voxseg.errors import DataError


@pytest.fixture
def save(save_pictures):
    """Write pictures and archives; ``a.npz:image normal`` has both arrays."""

    def write(root, *names):
        save_pictures(root, *(name for name in names if ".npz" not in name))
        for entry in names:
            name, _, arrays = entry.partition(":")
            if name.endswith(".npz"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                np.savez(root / name, **dict.fromkeys(arrays.split(), np.zeros(1)))
        return root

    return write


def pairs(dataset):
    """Return id -> (image name, name of the normals)."""
    return {
        case.case_id: (case.images[0].name, case.label.name if case.label else None)
        for case in dataset.cases
    }


def refused(root, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        find_cases(root, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_archives_with_both(tmp_path, save):
    both = "image normal valid label"
    save(tmp_path, f"train/0.npz:{both}", f"train/7.npz:{both}", f"val/0.npz:{both}")
    dataset = find_cases(tmp_path)
    assert pairs(dataset) == {
        "7": ("7.npz", "7.npz"),
        "train_0": ("0.npz", "0.npz"),
        "val": ("0.npz", "0.npz"),  # the only one of its folder
    }
    assert dataset.parts == {"train": ("7", "train_0"), "val": ("val",)}
    assert (dataset.task, dataset.is_images) == ("normals", True)
    assert dataset.layout == "archives of photographs and normals"


def test_archives_of_photographs_are_for_prediction(tmp_path, save):
    save(tmp_path, "a.npz:image normal", "b.npz:image")
    assert pairs(find_cases(tmp_path, need_labels=False)) == {
        "a": ("a.npz", "a.npz"),
        "b": ("b.npz", None),
    }
    single = find_cases(tmp_path / "b.npz", need_labels=False)
    assert (single.layout, pairs(single)) == ("a single image", {"b": ("b.npz", None)})


def test_archives_of_something_else_are_no_photographs(tmp_path, save):
    assert "(found: 1 .npz)" in refused(save(tmp_path, "a.npz:data seg"))


@pytest.mark.parametrize(
    ("image", "normals", "case"),
    [
        ("{0}/{1}.rgb.png", "{0}/{1}.normal.png", "{1}"),
        ("{0}/{1}.jpg", "{0}/{1}.normal.png", "{1}"),
        ("images/{0}/{1}.jpg", "normals/{0}/{1}.png", "{1}"),
        ("Images/{0}/{1}.jpg", "Surface_Normals/{0}/{1}.npz:normal", "{1}"),
        ("{0}/rgb/{1}.rgb.png", "{0}/normal/{1}.normal.png", "{1}"),
        ("{0}/images/{1}.png", "{0}/normals/{1}_normal.png", "{1}"),
        ("{0}/images/{1}.npz:image", "{0}/normals/{1}.npz:normal", "{1}"),
    ],
)
def test_pairs_and_parts(image, normals, case, tmp_path, save):
    places = (("train", "a.1"), ("train", "b"), ("val", "c"))
    for part, name in places:
        save(tmp_path, image.format(part, name), normals.format(part, name))
    dataset = find_cases(tmp_path)
    assert dataset.parts == {"train": ("a.1", "b"), "val": ("c",)}
    assert dataset.task == "normals"
    assert dataset.label_set is None
    for one in dataset.cases:
        names = case.format("", one.case_id)
        assert one.images[0].name == image.format("", names).rpartition("/")[2].partition(":")[0]
        assert one.label.name == normals.format("", names).rpartition("/")[2].partition(":")[0]
    assert find_cases(tmp_path, need_labels=False) == dataset


def test_two_folders_that_are_named(tmp_path, save):
    save(tmp_path, "x/a.jpg", "y/a.normal.png", "z/a.npz:normal", "normals/a.png", "masks/a.png:1")
    for folder in ("y", "z", "normals"):
        assert find_cases(tmp_path / "x", tmp_path / folder).task == "normals"
    assert find_cases(tmp_path / "x", tmp_path / "masks").task == "segmentation"
    one = find_cases(tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.normal.png")
    assert (one.task, pairs(one)) == ("normals", {"a": ("a.jpg", "a.normal.png")})


def test_photographs_called_rgb_keep_their_names_without_normals(tmp_path, save):
    save(tmp_path, "a.rgb.png", "b.rgb.png")
    assert pairs(find_cases(tmp_path, need_labels=False)) == {
        "a": ("a.rgb.png", None),
        "b": ("b.rgb.png", None),
    }
    assert "2 images of 2 without label" in refused(tmp_path)


def test_other_pictures_are_left_aside_with_a_note(tmp_path, save):
    dataset = find_cases(save(tmp_path, "a.rgb.png", "a.normal.png", "a.depth.png"))
    assert pairs(dataset) == {"a": ("a.rgb.png", "a.normal.png")}
    assert dataset.notes == ("pictures that are neither called rgb nor normal are left aside: 1",)


def test_lists(tmp_path, save):
    save(tmp_path, "a.jpg", "n/a.png", "b.npz:image normal")
    (tmp_path / "l.csv").write_text("case,image,normals\nx,a.jpg,n/a.png\ny,b.npz,b.npz\n")
    dataset = find_cases(tmp_path / "l.csv")
    assert (dataset.task, pairs(dataset)) == (
        "normals",
        {"x": ("a.jpg", "a.png"), "y": ("b.npz", "b.npz")},
    )
    (tmp_path / "l.json").write_text('[{"image": "b.npz", "label": "b.npz"}]')
    assert find_cases(tmp_path / "l.json").task == "normals"


def test_masks_stay_masks(tmp_path, save):
    save(tmp_path, "images/a.jpg", "masks/a.png:0 1", "features/a.npz:normal")
    assert find_cases(tmp_path).task == "segmentation"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.rgb.png", "b.rgb.png", "a.normal.png"), "name its label b.normal.png"),
        (("a.rgb.png", "a.normal.png", "b.normal.png"), "1 label without image"),
        (("a.rgb.png", "a.normal.png", "a.normals.png"), "the normals of one photograph"),
        (("images/a.jpg", "images/b.jpg", "normals/a.png"), "name its label b.png"),
        (("images/a.jpg", "normals/a.png", "normals/a.npz:normal"), "one photograph, a; keep one"),
        (("images/a.jpg", "normals/b.png"), "1 label without image, the first"),
    ],
)
def test_what_does_not_fit_is_refused(names, words, tmp_path, save):
    assert words in refused(save(tmp_path, *names))


def test_real_sets(real_data):
    found = {name: find_cases(real_data / name) for name in ("nyuv2_normals", "rgbd_normals")}
    sizes = {
        name: {part: len(ids) for part, ids in one.parts.items()} for name, one in found.items()
    }
    assert sizes == {
        "nyuv2_normals": {"train": 8, "val": 4},
        "rgbd_normals": {"train": 36, "val": 10},
    }
    assert {one.task for one in found.values()} == {"normals"}
    assert "frame-000610" in found["rgbd_normals"].parts["val"]
