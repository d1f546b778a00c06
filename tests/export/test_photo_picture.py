"""Pictures of photographs: every pixel where it belongs, large ones shrunk, errors coloured."""

import io

import numpy as np
import pytest
from PIL import Image

from voxseg.export.photo_picture import (
    NOT_COUNTED,
    PAGE_WIDTH,
    PHOTO_ERRORS,
    WRONG,
    draw_photograph,
    error_map,
)

COLOURS = {0: (10, 200, 30), 5: (250, 20, 90)}
WRONG_COLOUR, LEFT_OUT_COLOUR = PHOTO_ERRORS.values()


def drawn(*arguments):
    return np.asarray(Image.open(io.BytesIO(draw_photograph(*arguments))))


def street():
    photograph = np.full((30, 40, 3), 100, np.uint8)
    truth = np.zeros((30, 40), int)
    truth[20:, 30:] = 5
    return photograph, truth


def panel(picture, name, names, at):
    """Colour at (row, column) of the 30 x 40 photograph in one of the panels."""
    row, column = divmod(names.index(name), 2)
    width, height = (picture.shape[1] - 4) // 2, (picture.shape[0] - 4) // 2
    y = row * (height + 4) + round((at[0] + 0.5) / 30 * height)
    x = column * (width + 4) + round((at[1] + 0.5) / 40 * width)
    return tuple(picture[y, x].tolist())


def test_every_panel_shows_its_part():
    photograph, truth = street()
    prediction = np.roll(truth, -10, axis=1)
    counted = truth.copy()
    counted[10:15, :10] = 255
    names = ["photograph", "prediction", "truth", "errors"]
    masks = {"prediction": prediction, "truth": counted}
    picture = drawn(photograph, masks, COLOURS, np.array([0, 5]))
    assert picture.shape[1] == PAGE_WIDTH
    assert panel(picture, "photograph", names, (25, 35)) == (100, 100, 100)
    over = tuple(round(0.4 * 100 + 0.6 * part) for part in COLOURS[5])
    assert panel(picture, "truth", names, (25, 35)) == over
    assert panel(picture, "prediction", names, (25, 25)) == over
    assert panel(picture, "errors", names, (25, 25)) == WRONG_COLOUR
    assert panel(picture, "errors", names, (12, 5)) == LEFT_OUT_COLOUR
    assert panel(picture, "errors", names, (12, 20)) == (45, 45, 45)  # right: dimmed
    assert panel(picture, "truth", names, (12, 5)) == (100, 100, 100)  # 255 is no class


def test_errors_are_told_apart():
    truth, prediction = np.array([[1, 2, 255, 255]]), np.array([[1, 1, 1, 255]])
    found = error_map(prediction, truth, truth != 255)
    assert found.tolist() == [[0, WRONG, NOT_COUNTED, NOT_COUNTED]]
    assert error_map(prediction, truth).tolist() == [[0, WRONG, WRONG, 0]]


@pytest.mark.parametrize("size", [(1, 1), (1500, 2800), (900, 20), (7, 900)], ids=str)
def test_any_size_fits_the_page(size):
    picture = drawn(np.full((*size, 3), 50, np.uint8), {"prediction": np.zeros(size, int)}, COLOURS)
    assert picture.shape[1] <= PAGE_WIDTH
    assert picture.shape[0] <= 2 * PAGE_WIDTH


def test_masks_alone_lie_on_black():
    _, truth = street()
    picture = drawn(None, {"truth": truth}, {5: COLOURS[5]})
    assert tuple(picture[300, 300]) == (0, 0, 0)


def test_draw_photograph_rejects_two_sizes_and_nothing():
    photograph, truth = street()
    with pytest.raises(ValueError, match="one size"):
        draw_photograph(photograph, {"truth": truth[:5]}, COLOURS)
    with pytest.raises(ValueError, match="one size"):
        draw_photograph(None, {}, COLOURS)
