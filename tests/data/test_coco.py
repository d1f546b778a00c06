"""COCO's regions, by hand: polygons, runs, packed runs, crowds, what lies over what."""

import json

import numpy as np
import pytest

from voxseg.data.coco import (
    CocoImage,
    Region,
    paint,
    read_annotations,
    region_pixels,
    unpack_counts,
)
from voxseg.data.label_sets import VOC_NAMES
from voxseg.errors import DataError

SHAPE = (3, 4)


def drawn(segmentation, shape=SHAPE):
    mask = np.zeros(shape, int)
    mask.flat[region_pixels(segmentation, shape)] = 1
    return mask.tolist()


def square(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("0", [0]),
        ("T3", [100]),  # 4 + 3 * 32
        ("039N", [0, 3, 9, 1]),  # from the fourth on, differences: 1 - 3 = -2
        ("1112", [1, 1, 1, 3]),
        ("PPP1", [1 << 15]),
    ],
)
def test_packed_runs(text, numbers):
    assert unpack_counts(text) == numbers


def packed(numbers):
    """Pack runs as COCO does: the reverse of what is tested."""
    text = ""
    for place, number in enumerate(numbers):
        rest = number - (numbers[place - 2] if place > 2 else 0)
        while True:
            group, rest = rest & 31, rest >> 5
            done = rest == (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * (not done))
            if done:
                break
    return text


def test_packed_runs_of_random_masks(rng):
    for _ in range(30):
        runs = [int(n) for n in rng.integers(1, 4000, rng.integers(1, 30))]
        assert unpack_counts(packed(runs)) == runs


@pytest.mark.parametrize("text", ["T", "0T", " ", "ß"])
def test_damaged_packed_runs_are_refused(text):
    with pytest.raises(ValueError, match="its runs"):
        unpack_counts(text)


def test_runs_go_down_the_columns():
    expected = [[0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert drawn({"size": [3, 4], "counts": [4, 3, 5]}) == expected
    assert drawn({"size": [3, 4], "counts": packed([4, 3, 5])}) == expected
    assert drawn({"size": [3, 4], "counts": [0, 12]}) == [[1] * 4] * 3


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        (square(1, 0, 2, 2), [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        (square(1, 0, 2.4, 1.4), [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),  # centres count
        (square(-5, -5, 50, 6), [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),  # beyond the edge
        ([0, 0, 4, 0, 0, 3.999], [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]),
        ([0, 0, 3, 3], [[0] * 4] * 3),  # two corners enclose nothing
        (square(0, 0, 0.2, 0.2), [[0] * 4] * 3),
    ],
)
def test_polygons_hold_the_pixels_whose_centres_they_enclose(polygon, expected):
    assert drawn([polygon]) == expected


def test_polygons_of_one_object_are_united():
    assert drawn([square(0, 0, 2, 1), square(1, 0, 2, 1)]) == [[1, 1, 1, 0], [0] * 4, [0] * 4]
    assert drawn([]) == [[0] * 4] * 3


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[0, 0, 1, 0, 1]], "an x and a y"),
        ({"size": [4, 3], "counts": [12]}, r"of size \[4, 3\], the image \[3, 4\]"),
        ({"size": [3, 4], "counts": [5, 5]}, "do not fill the image"),
        ({"size": [3, 4], "counts": [13, -1]}, "do not fill the image"),
    ],
)
def test_regions_that_do_not_fit_are_refused(segmentation, words):
    with pytest.raises(ValueError, match=words):
        region_pixels(segmentation, SHAPE)


def image(*regions):
    return CocoImage("a.jpg", SHAPE, tuple(Region(*one, 7) for one in regions))


def test_crowds_lie_lowest_and_later_objects_highest():
    painted = paint(
        image(
            (15, False, [square(0, 0, 3, 1)]),
            (12, False, [square(1, 0, 1, 2)]),
            (1, True, [square(0, 0, 4, 2)]),
        )
    )
    assert painted.values.tolist() == [[15, 12, 15, 255], [255, 12, 255, 255], [0] * 4]
    assert (painted.values.dtype, painted.objects, painted.dropped) == (np.uint8, 2, 0)


def test_small_objects_become_background_but_crowds_stay():
    regions = (
        (15, False, [square(0, 0, 3, 1)]),
        (12, False, [square(0, 1, 2, 1)]),
        (1, True, [square(3, 0, 1, 1)]),
    )
    painted = paint(image(*regions), smallest_object=3)
    assert painted.values.tolist() == [[15, 15, 15, 255], [0] * 4, [0] * 4]
    assert (painted.objects, painted.dropped) == (1, 1)
    assert paint(image(*regions), smallest_object=2).dropped == 0


def test_a_damaged_region_is_named():
    with pytest.raises(DataError, match=r"annotation 7 of a\.jpg cannot be understood"):
        paint(image((1, False, {"counts": [12]})))


def test_annotations(coco):
    images = read_annotations(coco / "annotations" / "instances_train2017.json")
    assert [one.name for one in images] == [f"{number:012d}.jpg" for number in range(1, 5)]
    assert [[VOC_NAMES[region.value] for region in one.regions] for one in images] == [
        ["person", "dog"],
        ["person", "tvmonitor"],
        [],
        [],
    ]
    assert [region.is_crowd for region in images[1].regions] == [True, False]
    assert images[0].shape == (3, 4)


def test_every_class_of_voc_has_its_category(tmp_path):
    """COCO's twenty names and ids, as its category list gives them."""
    kinds = {
        5: "airplane", 2: "bicycle", 16: "bird", 9: "boat", 44: "bottle", 6: "bus", 3: "car",
        17: "cat", 62: "chair", 21: "cow", 67: "dining table", 18: "dog", 19: "horse",
        4: "motorcycle", 1: "person", 64: "potted plant", 20: "sheep", 63: "couch", 7: "train",
        72: "tv",
    }  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "train2014/a.jpg", "height": 1, "width": 1}],
        "annotations": [{"image_id": 1, "category_id": kind, "segmentation": []} for kind in kinds],
        "categories": [{"id": kind, "name": name} for kind, name in kinds.items()],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    (found,) = read_annotations(path)
    assert [region.value for region in found.regions] == list(range(1, 21))
    assert found.name == "a.jpg"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "no file of COCO's instances"),
        ({"images": [], "annotations": []}, "no file of COCO's instances"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "KeyError: 'file_name'"),
        ({"images": [], "annotations": [3], "categories": []}, "not as COCO's are"),
    ],
)
def test_other_files_are_refused(content, words, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_annotations(path)
