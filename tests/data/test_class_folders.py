"""Photographs sorted into folders of classes: arrangements, names, refusals, and what is none."""

import json

import numpy as np
import pytest
from PIL import Image

from voxseg.data.check import check_dataset
from voxseg.data.check_document import check_document
from voxseg.data.images import picture_facts, read_photograph
from voxseg.data.layouts import find_cases
from voxseg.errors import DataError


def classes(dataset):
    """Return id -> class."""
    return {case.case_id: case.category for case in dataset.cases}


def refused(root, *, need_labels=True):
    with pytest.raises(DataError) as caught:
        find_cases(root, need_labels=need_labels)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_a_folder_for_each_class(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/a.jpg", "cat/b.png", "dog/c.jpg")
    dataset = find_cases(tmp_path)
    assert dataset.layout == "a folder for each class"
    assert dataset.task == "classification"
    assert classes(dataset) == {"a": "cat", "b": "cat", "c": "dog"}
    assert {case.label for case in dataset.cases} == {None}
    assert all(case.is_labelled and case.is_image for case in dataset.cases)
    assert dataset.parts == {}
    assert dataset.notes == ("2 classes of 1 to 2 photographs each",)


def test_parts_with_names_for_people(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/n1/0.jpg", "train/n2/0.jpg", "val/n1/0.jpg", "val/n2/9.jpg")
    (tmp_path / "classes.json").write_text(json.dumps({"n1": "goldfish", "n7": "not here"}))
    dataset = find_cases(tmp_path)
    assert dataset.layout == "parts with a folder for each class"
    assert classes(dataset) == {
        # Those whose name another has are called by their folders.
        "train_n1": "goldfish",
        "train_n2": "n2",
        "val_n1": "goldfish",
        "9": "n2",
    }
    assert dataset.parts == {"train": ("train_n1", "train_n2"), "val": ("9", "val_n1")}


def test_a_part_has_the_names_of_its_set(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/n1/a.jpg", "val/n1/0.jpg", "val/n2/0.jpg", "more/n1/a.jpg")
    (tmp_path / "classes.json").write_text('{"n1": "goldfish"}')
    assert classes(find_cases(tmp_path / "val")) == {"n1": "goldfish", "n2": "n2"}
    # Another folder beside it is no part, and has names of its own.
    save_pictures(tmp_path, "more/n2/b.jpg")
    assert classes(find_cases(tmp_path / "more")) == {"a": "n1", "b": "n2"}


def test_pictures_may_lie_a_folder_deeper_and_a_test_part_be_unsorted(tmp_path, save_pictures):
    save_pictures(
        tmp_path, "train/n1/images/a.jpg", "train/n2/images/b.jpg", "test/images/c.jpg",
        "unlabelled/d.png",
    )  # fmt: skip
    dataset = find_cases(tmp_path)
    assert classes(dataset) == {"a": "n1", "b": "n2"}
    assert [case.case_id for case in dataset.unlabelled] == ["c", "d"]
    assert dataset.parts == {"train": ("a", "b")}


def test_a_sorted_test_part_is_a_part(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/x/a.jpg", "train/y/b.jpg", "test/x/c.jpg")
    assert find_cases(tmp_path).parts == {"train": ("a", "b"), "test": ("c",)}


def test_without_need_of_labels_they_are_pictures(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/a.jpg", "dog/c.jpg")
    dataset = find_cases(tmp_path, need_labels=False)
    assert classes(dataset) == {"a": "", "c": ""}
    assert dataset.task == "segmentation"


def test_names_do_not_depend_on_whether_classes_are_needed(tmp_path, save_pictures):
    save_pictures(
        tmp_path, "train/a/0.jpg", "train/b/0.jpg", "train/b/1.jpg", "val/a/0.jpg", "val/b/7.jpg",
        "test/1.jpg",
    )  # fmt: skip
    needed, free = (find_cases(tmp_path, need_labels=need) for need in (True, False))
    by_file = {case.images: case.case_id for case in (*needed.cases, *needed.unlabelled)}
    assert by_file == {case.images: case.case_id for case in free.cases}


def test_grey_pictures_among_colours_become_colours(tmp_path):
    for name, mode in (("a/grey.jpg", "L"), ("b/colour.jpg", "RGB")):
        (tmp_path / name).parent.mkdir()
        pixels = np.full((8, 9) if mode == "L" else (8, 9, 3), 77, np.uint8)
        Image.fromarray(pixels, mode).save(tmp_path / name)
    for case in find_cases(tmp_path).cases:
        photograph = read_photograph(case.images[0])
        assert photograph.array.shape == (3, 8, 9, 1)
        np.testing.assert_allclose(photograph.array, 77, atol=1)


def test_a_class_without_a_picture_is_refused(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/a.jpg", "dog/c.jpg")
    (tmp_path / "bird").mkdir()
    message = refused(tmp_path)
    assert "bird holds no picture" in message
    assert "remove the folder" in message


def test_a_class_that_nothing_is_trained_on_is_refused(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "val/cow/c.jpg")
    assert "cow is the folder of a class that the training part lacks" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"cat": "pet", "dog": "pet"}', "calls two classes 'pet'"),
        ('{"cat": "dog"}', "calls two classes 'dog'"),
        ('["cat", "dog"]', 'must be like {"FOLDER": "name"}'),
        ('{"cat": 3}', 'must be like {"FOLDER": "name"}'),
    ],
)
def test_names_that_do_not_tell_classes_apart_are_refused(tmp_path, save_pictures, content, said):
    save_pictures(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "classes.json").write_text(content)
    assert said in refused(tmp_path)


def test_names_that_are_no_json_are_refused_with_their_line(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "classes.json").write_text('{"cat":\n')
    with pytest.raises(DataError, match=r"classes.json is not valid JSON \(line"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("stills/a.jpg", "stills/b.jpg", "drawn/a.png", "drawn/b.png"),  # the same names
        ("stills/a.jpg", "stills/b.jpg", "drawn/a_L.png"),  # longer names
        ("cat/a.jpg", "dog/b_mask.png"),  # a word for masks
        ("images/a.jpg", "dog/b.jpg"),  # a word for images
        ("cat/a.jpg", "dog/b.jpg", "c.jpg"),  # unsorted beside sorted
        ("cat/a.jpg", "dog/more/b.jpg"),  # deeper than a class
        ("cat/a.jpg", "cat/b.jpg"),  # one class
        ("train/cat/a.jpg", "train/dog/b.jpg", "trainannot/a.png"),
    ],
    ids=str,
)
def test_other_arrangements_are_not_taken_for_classes(tmp_path, save_pictures, names):
    save_pictures(tmp_path, *names)
    try:
        dataset = find_cases(tmp_path)
    except DataError:
        return
    assert dataset.task == "segmentation"


def test_numbers_are_no_names_that_go_on(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/1.jpg", "dog/12.jpg")
    assert classes(find_cases(tmp_path)) == {"1": "cat", "12": "dog"}


def test_names_of_classes_settle_what_looks_like_masks(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "classes.json").write_text("{}")
    assert classes(find_cases(tmp_path)) == {"cat": "cat", "dog": "dog"}


def test_check_tells_the_class_of_each(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/1.jpg", "dog/12.jpg")
    dataset = find_cases(tmp_path)
    report = check_dataset(dataset)
    assert [report.status(pair) for pair in report.pairs] == ["ok", "ok"]
    pairs = check_document(tmp_path, dataset, report)["pairs"]
    assert [pair["category"] for pair in pairs] == ["cat", "dog"]


def test_a_damaged_picture_is_an_error_of_the_check(tmp_path, save_pictures):
    save_pictures(tmp_path, "cat/1.jpg", "dog/12.jpg")
    whole = (tmp_path / "dog" / "12.jpg").read_bytes()
    (tmp_path / "dog" / "12.jpg").write_bytes(whole[: len(whole) // 2])
    report = check_dataset(find_cases(tmp_path))
    assert "12.jpg is truncated or damaged" in str(report.errors[0])
    with pytest.raises(DataError, match=r"12\.jpg"):
        report.raise_for_errors()


def test_tiny_imagenet(real_data):
    root = real_data / "tiny_imagenet10"
    dataset = find_cases(root)
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 1000, "val": 300}
    categories = {case.category for case in dataset.cases}
    assert len(categories) == 10
    assert "king penguin, Aptenodytes patagonica" in categories
    part = find_cases(root / "val")
    assert {case.category for case in part.cases} == categories
    grey = [case for case in part.cases if "grey" in picture_facts(case.images[0]).habits]
    for case in [*grey, part.cases[0]]:
        assert read_photograph(case.images[0]).array.shape == (3, 64, 64, 1)
