"""Pictures of cases: the right way round, with errors in the right colours at the right place."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export import case_picture
from voxseg.export.case_picture import (
    ERROR_COLOURS,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    WRONG_CLASS,
    caption_of,
    draw_case,
    error_map,
)
from voxseg.export.labels import class_colours
from voxseg.export.report_parts import ReportCase

NAMES = {0: "background", 1: "CSF", 2: "grey & white"}
SHAPE = (31, 37, 29)


def phantom(spacing=(1.0, 1.0, 1.0)):
    """A grey body in RAS+ order with a bright block at its right, anterior, superior corner."""
    image = np.zeros(SHAPE, np.float32)
    image[3:28, 3:34, 3:26] = 50
    truth = np.zeros(SHAPE, np.uint8)
    truth[21:26, 25:31, 19:24] = 1
    image[truth == 1] = 100
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-12, 5, 30]
    return image, truth, affine


def turned(array, affine, axes, flips):
    """The same volume stored along other axes and directions."""
    moved = affine.copy()
    for axis in flips:
        moved[:3, 3] += (array.shape[axis] - 1) * moved[:3, axis]
        moved[:3, axis] *= -1
    array = np.flip(array, flips).transpose(axes)
    moved[:, :3] = moved[:, list(axes)]
    return array, moved


def case(image, truth, affine, **others):
    return ReportCase("one", image, affine, truth=truth, **others)


def pixels(png):
    return imread(io.BytesIO(png), format="png")


def bright(picture):
    """Rows and columns of what is nearly white within one panel, letters at the rim left out."""
    rows, columns = picture.shape[:2]
    inner = picture[rows // 10 : -rows // 10, columns // 10 : -columns // 10, :3].min(-1)
    found = np.nonzero(inner > 0.95)
    return found[0] + rows // 10, found[1] + columns // 10


def panels(png, rows):
    """The pictures of the first row, cut at the widths that the planes' extents give."""
    top = pixels(png) if isinstance(png, bytes) else png
    top = top[: top.shape[0] // rows]
    box = [n + 2 * (2 + (n - 1) // 10) for n in (25, 31, 23)]
    widths = np.cumsum([0, box[0], box[0], box[1]])
    edges = (widths / widths[-1] * top.shape[1]).astype(int)
    return [top[:, a:b] for a, b in itertools.pairwise(edges)]


def test_right_is_on_the_left_and_superior_and_anterior_are_up():
    png = draw_case(case(*phantom()), {})
    for panel in panels(png, 2):
        rows, columns = bright(panel)
        assert rows.size > 50
        assert rows.mean() < 0.45 * panel.shape[0]
        assert columns.mean() < 0.45 * panel.shape[1]


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((0, 1, 2), (0,)), ((0, 1, 2), (0, 1, 2)), ((2, 0, 1), ()), ((1, 2, 0), (1, 2))],
    ids=str,
)
def test_storage_order_changes_no_pixel(axes, flips):
    image, truth, affine = phantom((1.0, 1.5, 0.8))
    colours = class_colours(NAMES)
    expected = draw_case(case(image, truth, affine), colours)
    other, moved = turned(image, affine, axes, flips)
    found = draw_case(case(other, turned(truth, affine, axes, flips)[0], moved), colours)
    np.testing.assert_array_equal(pixels(found), pixels(expected))


def test_proportions_follow_the_spacing():
    """A block of 10 mm along every axis is square in every plane."""
    image = np.full(SHAPE, 50, np.float32)
    truth = np.zeros(SHAPE, np.uint8)
    truth[10:20, 15:20, 10:15] = 1
    image[truth == 1] = 100
    image[0] = 0
    picture = pixels(draw_case(case(image, truth, np.diag([1.0, 2.0, 2.0, 1.0])), {}))
    picture = picture[: picture.shape[0] // 2, :, :3].min(-1) > 0.95
    across = [mm * (n + 2 * (2 + (n - 1) // 10)) for n, mm in ((30, 1), (30, 1), (SHAPE[1], 2))]
    widths = np.cumsum(across) / sum(across)
    edges = (np.array([0, *widths]) * picture.shape[1]).astype(int)
    for left, right in itertools.pairwise(edges):
        rows, columns = np.nonzero(picture[:, left + 25 : right - 25])
        # The letters are bright too, so take where most of the block's pixels lie.
        height = np.count_nonzero(np.bincount(rows) > 30)
        width = np.count_nonzero(np.bincount(columns) > 30)
        assert height == pytest.approx(width, abs=4)
        assert height > 30


def test_classes_and_superpixels_are_drawn():
    image, truth, affine = phantom()
    colours = {1: (255, 0, 0)}
    superpixels = (np.indices(SHAPE) // 5).sum(0).astype(np.int32)
    plain = pixels(draw_case(ReportCase("one", image, affine), colours))
    assert np.ptp(plain[..., :3], axis=-1).max() < 0.02
    picture = pixels(
        draw_case(case(image, truth, affine, prediction=truth, superpixels=superpixels), colours)
    )
    third = picture.shape[0] // 3
    reddest = [np.max(row[..., 0] - row[..., 1]) for row in np.split(picture[: 3 * third], 3)]
    assert reddest[0] < 0.02
    assert reddest[1] > 0.9
    assert np.max(picture[2 * third :, :, 0] - picture[2 * third :, :, 2]) > 0.4


def coloured(picture, colour):
    """Rows and columns of one colour."""
    wanted = np.array(colour) / 255
    return np.nonzero(np.abs(picture[..., :3] - wanted).max(-1) < 0.01)


def with_error(kind):
    """Prediction and truth that differ in one block at the right, front, top; a speck elsewhere."""
    image, truth, affine = phantom()
    truth[8:20, 8:20, 8:15] = 2
    prediction = truth.copy()
    block = (slice(21, 26), slice(25, 31), slice(19, 24))
    truth[block] = {FALSE_POSITIVE: 0, FALSE_NEGATIVE: 1, WRONG_CLASS: 2}[kind]
    prediction[block] = {FALSE_POSITIVE: 1, FALSE_NEGATIVE: 0, WRONG_CLASS: 1}[kind]
    prediction[5, 5, 5] = 2
    return image, prediction, truth, affine


@pytest.mark.parametrize("kind", [FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS])
@pytest.mark.parametrize("flips", [(), (0,), (0, 1, 2)], ids=str)
def test_errors_have_their_colour_where_they_are(kind, flips):
    image, prediction, truth, affine = with_error(kind)
    stored = [turned(array, affine, (2, 0, 1), flips)[0] for array in (image, prediction, truth)]
    moved = turned(image, affine, (2, 0, 1), flips)[1]
    one = ReportCase("one", stored[0], moved, stored[1], stored[2], errors=True)
    picture = pixels(draw_case(one, class_colours(NAMES)))
    third = picture.shape[0] // 3
    for panel in panels(picture[2 * third :], 1):
        rows, columns = coloured(panel, ERROR_COLOURS[kind])
        assert rows.size > 200
        assert rows.mean() < 0.45 * panel.shape[0]  # to the front, or the top
        assert columns.mean() < 0.45 * panel.shape[1]  # the right, or the front
        others = [colour for value, colour in ERROR_COLOURS.items() if value != kind]
        assert not any(coloured(panel, colour)[0].size for colour in others)
    assert not coloured(picture[:third], ERROR_COLOURS[kind])[0].size


def test_error_map_by_hand():
    prediction = np.array([[[0, 1, 0, 2, 1]]])
    truth = np.array([[[0, 0, 1, 1, 1]]])
    expected = [[[0, FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS, 0]]]
    np.testing.assert_array_equal(error_map(prediction, truth), expected)


def spoken(monkeypatch, one):
    """What the first row says about its planes."""
    names = []
    monkeypatch.setattr(case_picture, "_write_letters", lambda a, b, name: names.append(name))
    draw_case(one, class_colours(NAMES))
    return names[:3]


def test_planes_go_through_the_most_error_and_say_where_in_mm(monkeypatch):
    image, prediction, truth, affine = with_error(FALSE_NEGATIVE)
    one = ReportCase("one", image, affine, prediction, truth, errors=True)
    # The middle of voxels 21-25, 25-30 and 19-23, of which 27 or 28 is nearest, moved to the world.
    said = spoken(monkeypatch, one)
    assert said[0] == "axial\nz = 51 mm"
    assert said[1] in ("coronal\ny = 32 mm", "coronal\ny = 33 mm")
    assert said[2] == "sagittal\nx = 11 mm"
    same = ReportCase("one", image, affine, truth, truth, errors=True)
    plain = ReportCase("one", image, affine, truth, truth)
    assert spoken(monkeypatch, same) == spoken(monkeypatch, plain)  # without errors, the middle


def test_the_bar_is_as_long_as_it_says():
    image, truth, affine = phantom((2.0, 2.0, 2.0))
    top = panels(draw_case(case(image, truth, affine), {}), 2)[0]
    corner = top[int(0.94 * top.shape[0]) :, : top.shape[1] // 2, :3].min(-1) > 0.9
    longest = corner.sum(1).max()
    width_mm = 2.0 * (25 + 2 * (2 + 24 // 10))
    assert longest / top.shape[1] == pytest.approx(10 / width_mm, abs=0.02)


def test_uncertainty_has_a_row_from_dark_to_bright():
    image, truth, affine = phantom()
    sure = np.zeros(SHAPE, np.float32)
    unsure = np.where(truth == 1, 1, sure).astype(np.float32)
    for values, brightest in ((sure, 0.05), (unsure, 0.9)):
        one = ReportCase("one", image, affine, prediction=truth, uncertainty=values)
        picture = pixels(draw_case(one, {}))
        height = picture.shape[0] // 3
        panel = panels(picture[2 * height :], 1)[0][:, 30:-30, :3]
        assert panel.max(-1)[25:-25].max() == pytest.approx(brightest, abs=0.1)


def test_masks_alone_are_drawn_on_black():
    _, truth, affine = phantom()
    one = ReportCase("one", None, affine, prediction=truth)
    assert "no image" in caption_of(one)
    picture = pixels(draw_case(one, {1: (255, 0, 0)}))
    assert (picture[..., 0] - picture[..., 1]).max() > 0.3


def test_oblique_volumes_say_so():
    image, truth, affine = phantom()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert "oblique by 20 degrees" in caption_of(case(image, truth, turn @ affine))
    assert "oblique" not in caption_of(case(image, truth, affine))


def test_an_empty_or_constant_image_is_drawn():
    empty = np.zeros(SHAPE, np.float32)
    for image in (empty, empty + 7):
        picture = pixels(draw_case(ReportCase("none", image, np.eye(4)), {}))
        assert picture.shape[1] == 1100


def test_a_needle_is_drawn_within_bounds():
    image = np.ones((3, 4, 2000), np.float32)
    image[0] = 0
    picture = pixels(draw_case(ReportCase("needle", image, np.eye(4)), {}))
    assert picture.shape[0] <= 4400
    assert picture.shape[1] < 200


def test_draw_case_rejects_another_grid():
    image, truth, affine = phantom()
    with pytest.raises(ValueError, match="truth of one must be"):
        draw_case(case(image, truth[1:], affine), {})
    with pytest.raises(ValueError, match="affine"):
        draw_case(ReportCase("one", image), {})
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_case(ReportCase("one"), {})
