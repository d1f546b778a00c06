"""Known classes, and which values of masks are classes."""

import numpy as np
import pytest
from skimage.util import map_array

from voxseg.data.camvid import CAMVID_COLOURS
from voxseg.data.label_sets import CAMVID, CITYSCAPES, GTA5, VOC, label_values, spread_colour


def test_cityscapes():
    """Ids, categories and who has instances, as the benchmark's own scripts list them."""
    trained = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert CITYSCAPES.values == tuple(trained)
    assert sorted((*CITYSCAPES.values, *CITYSCAPES.ignore)) == list(range(-1, 34))
    categories = [one.category for one in CITYSCAPES.classes]
    assert [categories.count(name) for name in dict.fromkeys(categories)] == [2, 3, 3, 2, 1, 2, 6]
    with_instances = {one.name for one in CITYSCAPES.classes if one.has_instances}
    assert with_instances == {
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    }  # fmt: skip
    assert (CITYSCAPES.names[23], CITYSCAPES.colours[23]) == ("sky", (70, 130, 180))
    assert (GTA5.values, set(GTA5.ignore) - set(CITYSCAPES.ignore)) == (CITYSCAPES.values, {34})


def test_voc():
    assert (VOC.values, VOC.ignore) == (tuple(range(21)), (255,))
    assert (VOC.names[15], VOC.colours[15]) == ("person", (192, 128, 128))
    assert spread_colour(255) == (224, 224, 192)
    assert len({spread_colour(value) for value in range(256)}) == 256


def test_camvid():
    assert (CAMVID.values, CAMVID.ignore, CAMVID.names[8]) == (tuple(range(11)), (11,), "car")
    assert len(CAMVID_COLOURS) == 32
    assert {value for value, _ in CAMVID_COLOURS.values()} == set(range(12))
    for one in CAMVID.classes:  # each class is painted as the published class that names it
        assert CAMVID_COLOURS[one.colour][0] == one.value


@pytest.mark.parametrize(
    ("found", "values", "ignore", "words"),
    [
        ((0, 255), (0, 255), (), "255 is taken as the one foreground class"),
        ((255,), (0, 255), (), "255 is taken as the one foreground class"),
        ((0, 1, 255), (0, 1), (255,), "does not count"),
        ((7, 3, 255), (3, 7), (255,), "beside 2 other values"),
        ((2, 0, 1), (0, 1, 2), (), ""),
        ((3, 4), (3, 4), (), ""),
        ((), (), (), ""),
    ],
)
def test_values_without_a_label_set(found, values, ignore, words):
    choice = label_values(found)
    assert (choice.values, choice.ignore) == (values, ignore)
    assert words in choice.sentence
    assert bool(choice.sentence) == bool(words)


def test_values_of_a_label_set_are_its_classes():
    choice = label_values((7, 0, 4, 26, 50), CITYSCAPES)
    assert (choice.values, choice.ignore) == (CITYSCAPES.values, CITYSCAPES.ignore)
    assert choice.sentence == "classes: the 19 of Cityscapes; values 0, 4 do not count"
    assert label_values((0, 1), VOC).sentence == "classes: the 21 of PASCAL VOC"


# scikit-image 0.26 does what NumPy 2.5 asks nobody to do any more.
@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
def test_colours_are_told_apart_by_another_library():
    """Each label set's colours are distinct, or palettes could not be read back."""
    for label_set in (CITYSCAPES, VOC, CAMVID):
        colours = np.array(list(label_set.colours.values()))
        codes = colours @ np.array([65536, 256, 1])
        values = np.array(label_set.values)
        np.testing.assert_array_equal(map_array(codes, codes, values), values)
