"""Pictures of normals: every part where it belongs, and what the plot says."""

import io

import numpy as np
import pytest
from PIL import Image

from voxseg.export.normal_picture import AngleCurve, draw_angles, draw_normals
from voxseg.export.photo_picture import PAGE_WIDTH

RIGHT, UP, VIEWER = np.eye(3)


def drawn(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def flat(vector, size=(30, 40)):
    return np.broadcast_to(vector[:, None, None], (3, *size)).copy()


def scene():
    """A photograph, what is predicted, the truth with unknown rows, and the angles between."""
    truth = flat(VIEWER)
    truth[:, :10] = 0
    angles = np.full((30, 40), 90.0)
    angles[20:] = 0
    angles[:10] = np.nan
    return np.full((30, 40, 3), 100, np.uint8), flat(RIGHT), truth, angles


def panel(picture, number, at):
    """Colour at (row, column) of the 30 x 40 photograph in a panel."""
    row, column = divmod(number, 2)
    width = (picture.shape[1] - 4) // 2
    height = round(width * 30 / 40)
    y = row * (height + 4) + round((at[0] + 0.5) / 30 * height)
    x = column * (width + 4) + round((at[1] + 0.5) / 40 * width)
    return tuple(picture[y, x].tolist())


def test_every_panel_shows_its_part():
    photograph, prediction, truth, angles = scene()
    given = {"prediction": prediction, "truth": truth}
    picture = drawn(draw_normals(photograph, given, angles))
    assert picture.shape[1] == PAGE_WIDTH
    assert panel(picture, 0, (15, 20)) == (100, 100, 100)
    assert panel(picture, 1, (15, 20)) == (255, 128, 128)
    assert panel(picture, 2, (15, 20)) == (128, 128, 255)
    assert panel(picture, 2, (5, 20)) == (0, 0, 0)
    wrong, right = panel(picture, 3, (15, 20)), panel(picture, 3, (25, 20))
    assert sum(wrong) > 600 > 30 > sum(right)  # bright where wrong, dark where right
    red, green, blue = panel(picture, 3, (5, 20))
    assert red == green == blue > 140  # unknown: no colour of the angles


def test_the_ball_shows_each_directions_colour():
    photograph, prediction, *_ = scene()
    picture = drawn(draw_normals(photograph, {"prediction": prediction}))
    foot = picture[-66:].astype(int)
    centre = foot[6 + 27, 6 + 27]
    np.testing.assert_allclose(centre, (128, 128, 255), atol=6)
    assert foot[6 + 27, 6 + 52][0] > 240  # red on the right
    assert foot[6 + 2, 6 + 27][1] > 240  # green above
    assert (foot[2, 2] == 255).all()


def test_the_bar_runs_through_the_colours_of_the_panel():
    photograph, _, truth, angles = scene()
    picture = drawn(draw_normals(photograph, {"truth": truth}, angles))
    bar = picture[-66 + 14, PAGE_WIDTH // 2 + 24 : PAGE_WIDTH - 40].astype(int)
    brightness = bar.sum(1)
    assert (np.diff(brightness) >= -12).all()  # in order, up to rounding
    assert tuple(bar[-1]) == panel(picture, 2, (15, 20))
    plain = drawn(draw_normals(photograph, {"truth": truth}))[-66 + 14, PAGE_WIDTH // 2 + 24 :]
    assert (plain == 255).all()  # no bar without angles


@pytest.mark.parametrize("size", [(1, 1), (700, 1300), (600, 20), (7, 600)], ids=str)
def test_any_size_fits_the_page(size):
    picture = drawn(draw_normals(None, {"prediction": flat(UP, size)}, np.zeros(size)))
    assert picture.shape[1] <= PAGE_WIDTH
    assert picture.shape[0] <= 2 * PAGE_WIDTH


def test_draw_normals_rejects_two_sizes_and_nothing():
    photograph, prediction, _, angles = scene()
    with pytest.raises(ValueError, match="one size"):
        draw_normals(photograph, {"truth": prediction[:, :5]})
    with pytest.raises(ValueError, match="one size"):
        draw_normals(photograph, {"truth": prediction}, angles[:5])
    with pytest.raises(ValueError, match="one size"):
        draw_normals(None, {})


def histogram(*degrees):
    """Counts in 3,600 bins."""
    return np.bincount([int(angle * 20) for angle in degrees], minlength=3600).tolist()


def test_curves_say_their_shares(monkeypatch):
    from matplotlib.figure import Figure

    shown = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (shown.append(self), save(self, *a, **k))
    )
    curves = [
        AngleCurve("a $network$ of a name that is long", histogram(5, 15, 25, 100)),
        AngleCurve("mean normal", histogram(40, 40)),
    ]
    assert draw_angles(curves).startswith(b"\x89PNG")
    left, right = shown[0].axes
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts == [
        "a $network$ of a name t…: 25.0 / 50.0 / 75.0",
        "mean normal: 0.0 / 0.0 / 0.0",
    ]
    line = right.lines[0]
    at = dict(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))
    assert (at[0], at[15], at[90], at[180]) == (0, 25, 75, 100)
    values = left.patches[0].get_data().values
    assert values[[2, 6, 10, 40]].tolist() == [25, 25, 25, 25]  # 5, 15, 25 and 100 degrees
    assert values.sum() == 100


def test_draw_angles_rejects_nothing():
    with pytest.raises(ValueError, match="got 0"):
        draw_angles([])
    with pytest.raises(ValueError, match="curves with pixels"):
        draw_angles([AngleCurve("a", [0, 0])])
