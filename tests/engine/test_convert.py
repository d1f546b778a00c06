"""Conversion of COCO: files, counts, going on after a stop, refusals."""

import json

import numpy as np
import pytest
from PIL import Image

import voxseg
from voxseg.data.label_sets import VOC
from voxseg.data.layouts import find_cases
from voxseg.data.reading import read_label
from voxseg.errors import DataError, UsageError

FIRST = [[15, 15, 12, 0], [15, 15, 15, 0], [0, 0, 0, 0]]
SECOND = [[255, 0, 0, 0], [20, 0, 0, 0], [255, 0, 0, 0]]


def mask(out, number, part="train"):
    return out / "masks" / part / f"{number:012d}.png"


def values(path):
    return read_label(path).array[..., 0].tolist()


def test_masks_and_links_that_training_finds(coco, tmp_path):
    said, steps = [], []
    done = voxseg.convert("coco", coco, tmp_path / "out", say=said.append,
                          notify=lambda *one: steps.append(one))  # fmt: skip
    assert values(mask(tmp_path / "out", 1)) == FIRST
    assert values(mask(tmp_path / "out", 2)) == SECOND
    counts = (done.num_images, done.num_masks, done.num_left_out, done.num_objects)
    assert counts == (4, 2, 2, 3)
    assert said == ["2 of 4 photographs have objects of VOC's classes"]
    assert steps == [(1, 2), (2, 2)]
    dataset = find_cases(tmp_path / "out")
    assert dataset.parts == {"train": ("000000000001", "000000000002")}
    assert dataset.label_set == VOC
    image = dataset.cases[0].images[0]
    assert image.is_symlink()
    assert image.resolve() == (coco / "train2017" / image.name).resolve()
    with Image.open(mask(tmp_path / "out", 2)) as picture:
        palette = picture.getpalette()
    assert palette[45:48] == [192, 128, 128]
    assert palette[765:768] == [224, 224, 192]


def test_options(coco, tmp_path):
    done = voxseg.convert(
        "coco", tmp_path, tmp_path / "out", split="mine", copy=True, smallest_object=2,
        annotations=coco / "annotations" / "instances_train2017.json", images=coco / "train2017",
    )  # fmt: skip
    assert (done.num_masks, done.num_dropped, done.num_left_out) == (1, 2, 3)
    assert values(mask(tmp_path / "out", 1, "mine"))[0] == [15, 15, 15, 0]
    copied = tmp_path / "out" / "images" / "mine" / "000000000001.jpg"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (coco / "train2017" / copied.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "part"), [("val2017", "val"), ("minival", "minival"), ("test", "test")]
)
def test_the_part_is_named_after_the_annotations(name, part, coco, tmp_path):
    path = coco / "annotations" / "instances_train2017.json"
    path.rename(path.with_name(f"instances_{name}.json"))
    (coco / "train2017").rename(coco / name)
    assert voxseg.convert("coco", coco, tmp_path / "out").split == part


def test_names_are_looked_for_in_the_data_set(coco, tmp_path):
    done = voxseg.convert("coco", coco, tmp_path / "out", annotations="instances_train2017.json",
                          images="train2017")  # fmt: skip
    assert done.num_masks == 2


def test_a_conversion_goes_on_where_it_was_stopped(coco, tmp_path):
    def stop(number, _):
        if number == 1:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        voxseg.convert("coco", coco, out, notify=stop)
    record = json.loads((out / "convert-train.json").read_text())
    assert (record["finished"], record["num_masks"]) == (False, 0)
    before = mask(out, 1).stat().st_mtime_ns
    done = voxseg.convert("coco", coco, out)
    assert (done.num_masks, done.num_kept, done.num_objects) == (2, 1, 1)
    assert mask(out, 1).stat().st_mtime_ns == before
    assert values(mask(out, 2)) == SECOND
    again = voxseg.convert("coco", coco, out)
    assert (again.num_masks, again.num_kept, again.num_left_out) == (2, 2, 2)
    assert json.loads((out / "convert-train.json").read_text())["finished"]


def test_other_settings_are_not_mixed(coco, tmp_path):
    out = tmp_path / "out"
    voxseg.convert("coco", coco, out)
    with pytest.raises(UsageError, match="other settings; do all of it again with --overwrite"):
        voxseg.convert("coco", coco, out, smallest_object=2)
    done = voxseg.convert("coco", coco, out, smallest_object=2, overwrite=True)
    assert (done.num_masks, done.num_kept) == (1, 0)
    assert sorted(path.name for path in (out / "masks" / "train").iterdir()) == ["000000000001.png"]
    assert (coco / "train2017" / "000000000002.jpg").is_file()


def test_files_of_something_else_are_left_alone(coco, tmp_path):
    (tmp_path / "out" / "masks" / "train").mkdir(parents=True)
    mine = tmp_path / "out" / "masks" / "train" / "mine.png"
    mine.write_bytes(b"")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="no conversion has written"):
            voxseg.convert("coco", coco, tmp_path / "out", overwrite=overwrite)
    assert mine.is_file()


def test_two_parts_in_one_folder(coco, tmp_path):
    voxseg.convert("coco", coco, tmp_path / "out")
    voxseg.convert("coco", coco, tmp_path / "out", split="val")
    assert set(find_cases(tmp_path / "out").parts) == {"train", "val"}


def test_a_photograph_that_is_missing(coco, tmp_path):
    (coco / "train2017" / "000000000003.jpg").unlink()  # has nothing of VOC
    assert voxseg.convert("coco", coco, tmp_path / "out").num_masks == 2
    (coco / "train2017" / "000000000002.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 photographs are not in"):
        voxseg.convert("coco", coco, tmp_path / "other")


def test_a_photograph_of_another_size(coco, tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(coco / "train2017" / "000000000002.jpg")
    with pytest.raises(DataError, match=r"has 4x4 pixels, its annotations are of 4x3"):
        voxseg.convert("coco", coco, tmp_path / "out")
    assert not mask(tmp_path / "out", 2).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"annotations": "none.json"}, "there is no none.json"),
        ({"images": "none"}, "correct --images"),
        ({"split": "../x"}, "cannot name a part"),
        ({"form": "yolo"}, "there is no form 'yolo'"),
    ],
)
def test_options_that_cannot_work(options, words, coco, tmp_path):
    with pytest.raises(UsageError, match=words):
        voxseg.convert(**{"form": "coco", "data": coco, "output": tmp_path / "out", **options})


def test_annotations_that_are_not_named(coco, tmp_path):
    path = coco / "annotations" / "instances_train2017.json"
    (coco / "annotations" / "instances_val2017.json").write_text(path.read_text())
    with pytest.raises(UsageError, match=r"\(instances_train2017.json, instances_val2017.json\)"):
        voxseg.convert("coco", coco, tmp_path / "out")
    with pytest.raises(UsageError, match=r"there is no folder .*val2017 of photographs"):
        voxseg.convert("coco", coco, tmp_path / "out", annotations="instances_val2017.json")
