"""Pictures that are written, read back by another library."""

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.io
from PIL import Image

from voxseg.data.label_sets import CITYSCAPES, VOC, spread_colour
from voxseg.data.reading import read_label
from voxseg.errors import VoxsegError
from voxseg.export.images import write_grey_tiff, write_label_png, write_overlay

LABEL = np.array([[0, 7, 26], [33, 7, 0]])


@pytest.mark.parametrize("label_set", [CITYSCAPES, VOC], ids=lambda one: one.name)
def test_a_palette_png_shows_the_label_sets_colours(label_set, tmp_path):
    label = np.resize(label_set.values, (3, 7))
    path = write_label_png(tmp_path / "new" / "m.png", label, label_set.colours)
    shown = skimage.io.imread(path)  # applies the palette
    expected = np.array([label_set.colours[value] for value in label.ravel()])
    np.testing.assert_array_equal(shown.reshape(-1, shown.shape[-1])[:, :3], expected)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), label)  # and indices as values
    np.testing.assert_array_equal(read_label(path).array[..., 0], label)


def test_values_without_a_colour_are_black_and_255_can_be_written(tmp_path):
    path = write_label_png(tmp_path / "m.png", np.array([[1, 255]]), {1: (9, 8, 7)})
    assert skimage.io.imread(path)[0, :, :3].tolist() == [[9, 8, 7], [0, 0, 0]]
    assert read_label(path).array.ravel().tolist() == [1, 255]


def test_colours_by_default_are_told_apart(tmp_path):
    shown = skimage.io.imread(write_label_png(tmp_path / "m.png", LABEL))
    assert len(np.unique(shown.reshape(6, -1), axis=0)) == 4


@pytest.mark.parametrize("label", [np.array([[0, 256], [65535, 7]]), np.array([[1000]])], ids=str)
def test_more_than_255_is_written_in_16_bits(label, tmp_path):
    path = write_label_png(tmp_path / "m.png", label)
    found = imageio.imread(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, label)
    np.testing.assert_array_equal(read_label(path).array[..., 0], label)


@pytest.mark.parametrize("label", [np.array([[-1]]), np.array([[65536]])], ids=str)
def test_values_that_no_png_holds_are_refused(label, tmp_path):
    with pytest.raises(ValueError, match="a PNG holds values from 0 to 65535"):
        write_label_png(tmp_path / "m.png", label)
    assert not list(tmp_path.iterdir())


def test_boolean_and_one_pixel(tmp_path):
    path = write_label_png(tmp_path / "m.png", np.array([[True]]))
    assert read_label(path).array.tolist() == [[[1]]]


def test_an_earlier_file_is_replaced_and_a_failure_leaves_it(tmp_path):
    path = write_label_png(tmp_path / "m.png", LABEL)
    write_label_png(path, LABEL + 1)
    assert read_label(path).array.max() == 34
    assert [one.name for one in tmp_path.iterdir()] == ["m.png"]
    with pytest.raises(VoxsegError, match="part of its folder is a file"):
        write_label_png(path / "x.png", LABEL)


def test_a_map_of_numbers(tmp_path, rng):
    values = rng.normal(size=(5, 7)).astype(np.float32)
    found = skimage.io.imread(write_grey_tiff(tmp_path / "p.tif", values))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def test_an_overlay_mixes_colours_and_leaves_the_rest(tmp_path):
    photograph = np.full((3, 2, 3, 1), 100, np.float32)
    colours = {7: (200, 0, 100), 26: (0, 0, 0)}
    path = write_overlay(tmp_path / "o.png", photograph, LABEL[..., None], colours, opacity=0.25)
    mixed, dark, plain = [125, 75, 100], [75, 75, 75], [100, 100, 100]
    assert imageio.imread(path).tolist() == [[plain, mixed, dark], [plain, mixed, plain]]
    assert (photograph == 100).all()


@pytest.mark.parametrize(("opacity", "expected"), [(0, 50), (1, 200)])
def test_the_ends_of_opacity(opacity, expected, tmp_path):
    label, colours = np.zeros((16, 16), int), {0: (200, 200, 200)}
    path = write_overlay(tmp_path / "o.jpg", np.full((3, 16, 16), 50), label, colours, opacity)
    assert path.read_bytes().startswith(b"\xff\xd8")  # a JPEG
    np.testing.assert_allclose(imageio.imread(path), expected, atol=2)


@pytest.mark.parametrize(
    ("shape", "opacity", "words"),
    [((2, 3), 1.5, "opacity must be in"), ((3, 3), 0.5, "a photograph"), ((4,), 0.5, "4")],
)
def test_an_overlay_that_cannot_be_made_is_refused(shape, opacity, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        write_overlay(tmp_path / "o.png", np.zeros((3, 2, 3)), np.zeros(shape), {}, opacity)


def test_colours_of_all_values_make_a_whole_palette(tmp_path):
    every = np.arange(256).reshape(16, 16)
    path = write_label_png(tmp_path / "m.png", every, {v: spread_colour(v) for v in range(256)})
    assert len(np.unique(skimage.io.imread(path).reshape(256, -1), axis=0)) == 256
