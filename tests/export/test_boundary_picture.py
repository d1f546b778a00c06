"""Pictures of boundaries: every line where it belongs, in its colour, and not lost when shrunk."""

import io

import numpy as np
import pytest
from PIL import Image

from voxseg.export.boundary_picture import BOUNDARY_ERRORS, draw_boundaries
from voxseg.export.photo_picture import PAGE_WIDTH

RIGHT, WRONG, MISSED = BOUNDARY_ERRORS.values()
NAMES = ("photograph", "prediction", "truth", "errors")
SIZE = (30, 40)


def drawn(*arguments):
    return np.asarray(Image.open(io.BytesIO(draw_boundaries(*arguments))))


def panel(picture, name, at):
    """Colour at (row, column) of the 30 x 40 photograph in one of four panels."""
    row, column = divmod(NAMES.index(name), 2)
    width, height = (picture.shape[1] - 4) // 2, (picture.shape[0] - 4) // 2
    y = row * (height + 4) + round((at[0] + 0.5) / SIZE[0] * height)
    x = column * (width + 4) + round((at[1] + 0.5) / SIZE[1] * width)
    return tuple(picture[y, x].tolist())


def lines(*marked):
    """A map with strengths at single pixels."""
    found = np.zeros(SIZE)
    for y, x, strength in marked:
        found[y, x] = strength
    return found


def test_every_panel_shows_its_part():
    photograph = np.full((*SIZE, 3), 100, np.uint8)
    prediction, truth = lines((20, 5, 1), (20, 15, 0.2)), lines((20, 5, 1), (20, 30, 0.4))
    errors = (prediction == 1, prediction == 0.2, truth == 0.4)
    picture = drawn(photograph, prediction, truth, errors)
    assert picture.shape[1] == PAGE_WIDTH
    assert panel(picture, "photograph", (20, 5)) == (100, 100, 100)
    assert panel(picture, "prediction", (20, 5)) == (0, 0, 0)
    assert panel(picture, "prediction", (20, 15)) == (204, 204, 204)
    assert panel(picture, "prediction", (20, 30)) == (255, 255, 255)
    assert panel(picture, "truth", (20, 30)) == (153, 153, 153)
    assert panel(picture, "errors", (20, 5)) == RIGHT
    assert panel(picture, "errors", (20, 15)) == WRONG
    assert panel(picture, "errors", (20, 30)) == MISSED
    assert panel(picture, "errors", (25, 35)) == (30, 30, 30)


def test_what_few_drew_is_dimmer_and_lies_under_what_was_found():
    hit = lines((20, 5, 1)) > 0
    missed = lines((20, 5, 0.6), (20, 15, 0.25))
    picture = drawn(np.zeros((*SIZE, 3), np.uint8), hit, missed, (hit, ~hit & hit, missed))
    assert panel(picture, "errors", (20, 5)) == RIGHT
    half = tuple(np.rint(np.rint(127.5) / 255 * np.array(MISSED)).astype(int).tolist())
    assert panel(picture, "errors", (20, 15)) == half


def test_thin_lines_survive_a_large_photograph():
    photograph = np.zeros((900, 1350, 3), np.uint8)
    line = np.zeros((900, 1350))
    line[np.arange(900), 650 + np.arange(900) // 300] = 1  # one of three columns is not sampled
    picture = drawn(photograph, line, line, (line > 0, line < 0, 0 * line))
    left = (PAGE_WIDTH - 4) // 2 + 4
    dark = (picture[40 : picture.shape[0] // 2 - 10, left:, 0] < 128).any(axis=1)
    assert dark.all()


@pytest.mark.parametrize("size", [(1, 1), (900, 20), (7, 900)], ids=str)
def test_any_size_fits_the_page(size):
    picture = drawn(np.full((*size, 3), 50, np.uint8), np.zeros(size), np.zeros(size))
    assert picture.shape[1] <= PAGE_WIDTH
    assert picture.shape[0] <= 2 * PAGE_WIDTH + 4


def test_parts_may_be_missing():
    assert drawn(None, np.ones(SIZE)).min() == 0
    assert drawn(None, None, np.zeros(SIZE)).max() == 255
    wrong = np.ones(SIZE, bool)
    picture = drawn(None, np.ones(SIZE), np.zeros(SIZE), (~wrong, wrong, np.zeros(SIZE)))
    assert (picture == np.array(WRONG)).all(axis=-1).any()


def test_two_sizes_and_nothing_are_rejected():
    with pytest.raises(ValueError, match="one size"):
        draw_boundaries(np.zeros((*SIZE, 3), np.uint8), np.zeros((5, 6)))
    with pytest.raises(ValueError, match="one size"):
        draw_boundaries(None, None)
