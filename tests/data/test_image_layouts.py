"""Photographs and masks in folders of any names: pairs, parts, classes, refusals."""

import json

import numpy as np
import pytest
from PIL import Image

from voxseg.data.label_sets import CAMVID, GTA5, VOC, VOC_NAMES
from voxseg.data.layouts import find_cases
from voxseg.errors import DataError


def pairs(dataset):
    """Return id -> (image name, label name)."""
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


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("Images", "Labels"), ("img", "annotations"), ("JPEGImages", "gt")],
)
def test_folders_of_images_and_masks(images, masks, tmp_path, save_pictures):
    names = (f"{images}/a.jpg", f"{images}/b.png", f"{masks}/a.png:0 1", f"{masks}/b_mask.png:0")
    dataset = find_cases(save_pictures(tmp_path, *names))
    assert pairs(dataset) == {"a": ("a.jpg", "a.png"), "b": ("b.png", "b_mask.png")}
    assert dataset.is_images
    assert (dataset.layout, dataset.parts, dataset.label_set) == (
        "folders of images and masks",
        {},
        None,
    )


def test_pairs_by_name_in_one_folder(tmp_path, save_pictures):
    names = ("a.jpg", "a_mask.png:0 1", "sub/b.tif", "sub/b_segmentation.png:1", "._a.jpg:1")
    dataset = find_cases(save_pictures(tmp_path, *names))
    assert pairs(dataset) == {"a": ("a.jpg", "a_mask.png"), "b": ("b.tif", "b_segmentation.png")}
    assert dataset.layout == "pairs of pictures"


def test_two_folders_that_are_named(tmp_path, save_pictures):
    save_pictures(tmp_path, "x/a.jpg", "x/train/b.jpg", "y/a.png:1", "y/train/b.png:1")
    dataset = find_cases(tmp_path / "x", tmp_path / "y")
    assert pairs(dataset) == {"a": ("a.jpg", "a.png"), "b": ("b.jpg", "b.png")}
    one = find_cases(tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.png")
    assert pairs(one) == {"a": ("a.jpg", "a.png")}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{0}/{1}.jpg", "{0}annot/{1}.png"),
        ("{0}/{1}.jpg", "{0}_labels/{1}_L.png"),
        ("{0}/{1}.jpg", "{0}_masks/{1}.png"),
        ("images/{0}/{1}.jpg", "masks/{0}/{1}.png"),
        ("{0}/images/{1}.jpg", "{0}/masks/{1}.png"),
        ("{0}/{1}.jpg", "{0}/{1}_mask.png"),
    ],
)
def test_parts(image, mask, tmp_path, save_pictures):
    places = (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d"))
    for part, name in places:
        save_pictures(tmp_path, image.format(part, name), f"{mask.format(part, name)}:0 1")
    dataset = find_cases(tmp_path)
    assert dataset.parts == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
    assert all(case.label is not None for case in dataset.cases)
    assert len(dataset.cases) == 4
    assert find_cases(tmp_path, need_labels=False) == dataset


@pytest.mark.parametrize("spelling", [("Training", "validation"), ("train", "valid")])
def test_parts_in_other_words(spelling, tmp_path, save_pictures):
    for part in spelling:
        save_pictures(tmp_path, f"images/{part}/{part}.jpg", f"masks/{part}/{part}.png:1")
    assert find_cases(tmp_path).parts == {"train": (spelling[0],), "val": (spelling[1],)}


def test_equal_names_in_two_parts_are_told_apart(tmp_path, save_pictures):
    for part in ("train", "val"):
        save_pictures(tmp_path, *(f"{part}/{n}.jpg" for n in "ab"))
        save_pictures(tmp_path, *(f"{part}annot/{n}.png:1" for n in "ab"))
    dataset = find_cases(tmp_path)
    assert dataset.parts == {"train": ("train_a", "train_b"), "val": ("val_a", "val_b")}
    assert {case.case_id for case in dataset.cases} == {*dataset.parts["train"], "val_a", "val_b"}


def test_a_test_part_without_masks_is_unlabelled(tmp_path, save_pictures):
    save_pictures(tmp_path, "images/train/a.jpg", "masks/train/a.png:1", "images/test/z.jpg")
    dataset = find_cases(tmp_path)
    assert (list(pairs(dataset)), [case.case_id for case in dataset.unlabelled]) == (["a"], ["z"])
    assert dataset.parts == {"train": ("a",), "test": ("z",)}
    assert pairs(find_cases(tmp_path, need_labels=False))["z"] == ("z.jpg", None)


def test_unlabelled_folders_are_set_apart(tmp_path, save_pictures):
    save_pictures(tmp_path, "images/train/a.jpg", "masks/train/a.png:1", "unlabelled/u.jpg")
    dataset = find_cases(tmp_path)
    assert [case.case_id for case in dataset.unlabelled] == ["u"]
    assert dataset.parts == {"train": ("a",)}


def test_images_alone_are_for_prediction(tmp_path, save_pictures):
    save_pictures(tmp_path, "images/a.jpg", "images/b_mask.png")
    assert pairs(find_cases(tmp_path, need_labels=False)) == {
        "a": ("a.jpg", None),
        "b_mask": ("b_mask.png", None),
    }
    assert "2 labels without image" not in refused(tmp_path)
    single = find_cases(tmp_path / "images" / "a.jpg", need_labels=False)
    assert (single.layout, pairs(single)) == ("a single image", {"a": ("a.jpg", None)})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images/a.jpg", "images/b.jpg", "masks/a.png:1"), "name its label b_mask.png"),
        (("images/a.jpg", "masks/a.png:1", "masks/b.png:1"), "1 label without image"),
        (("images/val/a.jpg", "images/val/b.jpg", "masks/val/b.png:1"), "1 image of 2"),
        (("images/a.jpg", "masks/a.png:1", "masks/a_mask.png:1"), "two labels for one image"),
        (("a.jpg", "b.jpg"), "2 images of 2 without label"),
        (("a.png", "a.jpg", "a_mask.png:1"), "two images for one label"),
        (("notes.gif",), "no photograph (found: 1 .gif)"),
    ],
)
def test_what_does_not_fit_is_refused(names, words, tmp_path, save_pictures):
    assert words in refused(save_pictures(tmp_path, *names))


def test_volumes_come_before_pictures(tmp_path, save_pictures, save_cases):
    save_pictures(tmp_path, "preview.png")
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz")
    dataset = find_cases(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["a"]
    assert not dataset.is_images
    (tmp_path / "a_seg.nii.gz").unlink()
    message = refused(tmp_path)
    assert "holds 1 NIfTI volumes and 1 pictures" in message
    assert "a.nii.gz" in message


def test_csv_lists_of_pictures(tmp_path, save_pictures):
    save_pictures(tmp_path, "i/x.jpg", "i/y.jpg", "m/x1.png:0 1", "m/y1.png:0 2")
    table = tmp_path / "list.csv"
    table.write_text("case,image,label\none,i/x.jpg,m/x1.png\ntwo,i/y.jpg,m/y1.png\n")
    dataset = find_cases(table)
    assert pairs(dataset) == {"one": ("x.jpg", "x1.png"), "two": ("y.jpg", "y1.png")}
    assert dataset.is_images
    table.write_text("case,image,label\na/b,i/x.jpg,m/x1.png\n")
    assert "'a/b'" in refused(table)


def test_a_list_of_both_kinds_is_refused(tmp_path, save_pictures, save_cases):
    save_pictures(tmp_path, "x.jpg")
    save_cases(tmp_path, "a.nii.gz")
    (tmp_path / "list.csv").write_text("image\nx.jpg\na.nii.gz\n")
    assert "lists volumes and photographs" in refused(tmp_path / "list.csv", need_labels=False)


def test_segnets_camvid_is_known_by_its_drives(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/0001TP_006690.jpg", "trainannot/0001TP_006690.png:0 11")
    save_pictures(tmp_path, "test/Seq05VD_f00000.jpg", "testannot/Seq05VD_f00000.png:0 11")
    dataset = find_cases(tmp_path)
    assert (dataset.label_set, dataset.class_names[8]) == (CAMVID, "car")
    save_pictures(tmp_path, "val/mine.jpg", "valannot/mine.png:0 11")
    assert find_cases(tmp_path).label_set is None


def test_a_table_of_colours_gives_classes(tmp_path, save_pictures):
    save_pictures(tmp_path, "images/a.png")
    Image.fromarray(np.array([[(0, 0, 0), (9, 9, 9)]], np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "m.png").rename(tmp_path / "masks" / "a.png")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\ncell,9,9,9\nvoid,1,1,1\n")
    label_set = find_cases(tmp_path).label_set
    assert (label_set.names, label_set.ignore) == ({0: "sky", 1: "cell"}, (255,))
    assert label_set.colours[1] == (9, 9, 9)


def test_names_by_value_give_classes(tmp_path, save_pictures):
    save_pictures(tmp_path, "images/a.png", "masks/a.png:0 1")
    names = tmp_path / "my_classes.json"
    names.write_text(json.dumps({"0": "background", "1": "cell", "9": "void"}))
    label_set = find_cases(tmp_path).label_set
    assert (label_set.names, label_set.ignore) == ({0: "background", 1: "cell"}, (9,))
    names.write_text(json.dumps([*VOC_NAMES]))
    assert "my_classes.json must give a name to each label value" in refused(tmp_path)
    names.write_text(json.dumps({**dict(enumerate(VOC_NAMES)), 255: "void"}))
    assert find_cases(tmp_path).label_set == VOC
    names.unlink()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1}}))
    assert find_cases(tmp_path).class_names == {0: "background", 1: "tumour"}


def test_gta5_is_known_by_names_and_ids(tmp_path, save_pictures):
    names = [f"images/{n:05d}.png" for n in (1, 2)]
    save_pictures(tmp_path, *names, "labels/00001.png:7 4 11", "labels/00002.png:23 34 7")
    dataset = find_cases(tmp_path)
    assert (dataset.layout, dataset.label_set, list(pairs(dataset))) == (
        "GTA-5",
        GTA5,
        ["00001", "00002"],
    )
    assert "taken for GTA-5" in dataset.notes[0]


@pytest.mark.parametrize("values", ["0 1 2", "7 8", "7 23 40", "20 23"])
def test_five_digits_alone_are_not_gta5(values, tmp_path, save_pictures):
    save_pictures(tmp_path, "images/00001.png", f"labels/00001.png:{values}")
    assert (find_cases(tmp_path).layout, find_cases(tmp_path).label_set) == (
        "folders of images and masks",
        None,
    )


def test_real_camvid_and_coco(real_data):
    camvid, coco = (find_cases(real_data / name) for name in ("camvid", "coco_voc21"))
    assert {part: len(ids) for part, ids in camvid.parts.items()} == {
        "train": 120,
        "val": 40,
        "test": 30,
    }
    assert (camvid.label_set, coco.label_set) == (CAMVID, VOC)
    assert {part: len(ids) for part, ids in coco.parts.items()} == {"train": 40, "val": 24}
