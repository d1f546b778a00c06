"""Series that are no regular grid are refused in words; those that nearly are, are read."""

from dataclasses import replace

import numpy as np
import pytest

from voxseg.data.dicom_geometry import Slice, stack
from voxseg.errors import DataError

ACROSS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def plane(height, **changes):
    values = {
        "frame": 0, "rows": 11, "columns": 14, "position": (-7.0, 5.0, float(height)),
        "orientation": ACROSS, "spacing": (1.1, 0.9),
    }  # fmt: skip
    return Slice(**(values | changes))


def planes(heights):
    return [plane(height) for height in heights]


def refused(slices, words):
    with pytest.raises(DataError, match=rf"^folder .*{words}") as caught:
        stack(slices, "folder")
    assert "; " in str(caught.value) or ": " in str(caught.value)  # and what to do


def test_slices_are_sorted_and_the_affine_is_in_ras():
    found = stack(planes([4, 0, 2, 6]), "folder")
    assert found.order == (1, 2, 0, 3)
    assert found.shape == (14, 11, 4)
    expected = [[-0.9, 0, 0, 7], [0, -1.1, 0, -5], [0, 0, 2, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(found.affine, expected, atol=1e-12)


def test_positions_rounded_to_a_tenth_are_read():
    heights = np.round(np.arange(40) * 0.7333, 1)
    found = stack(planes(heights), "folder")
    assert found.affine[2, 2] == pytest.approx(0.7333, abs=2e-3)


def test_orientations_rounded_to_four_digits_are_read():
    turned = np.array([0.99939, 0.0349, 0, -0.0349, 0.99939, 0])
    slices = [
        plane(k, orientation=tuple(np.round(turned, 4 + k % 2)), position=(-7.0, 5.0, 2.0 * k))
        for k in range(5)
    ]
    assert stack(slices, "folder").shape == (14, 11, 5)


@pytest.mark.parametrize(
    ("heights", "words"),
    [
        ([0, 2, 4, 8, 10], r"lacks 1 slice: between 4\.00 and 8\.00 mm .* 2 mm apart; copy all"),
        ([0, 2, 8, 10, 12], r"lacks 2 slices: between 2\.00 and 8\.00 mm"),
        ([0, 2, 6, 8, 10, 14], r"lacks 2 slices: between 2.00 and 6.00 mm .* at 1 other place"),
        ([0, 2, 4, 6.6, 8, 10], r"uneven distances \(1\.4 to 2\.6 mm\)"),
        ([0, 0, 2, 2, 4, 4], r"is 4D: 2 images at each of its 3 positions"),
        ([0, 2, 2, 4], r"1 positions with more than one slice"),
        ([], "holds no image; choose"),
        ([0], r"one slice, which makes no volume"),
    ],
)
def test_heights_that_make_no_grid(heights, words):
    refused(planes(heights), words)


def test_all_slices_at_one_place_are_4d():
    refused(planes([5, 5, 5]), "is 4D: 3 images at each of its 1 positions")


def test_tilted_gantry_is_told_with_its_angle():
    shift = np.tan(np.radians(12))
    slices = [plane(k, position=(-7.0, 5.0 + shift * k, float(k))) for k in range(6)]
    refused(slices, r"tilted gantry \(12\.0 degrees")


def test_slices_that_zigzag_are_refused():
    slices = [plane(k, position=(-7.0 + 0.5 * (k % 2), 5.0, float(k))) for k in range(7)]
    refused(slices, r"shifted sideways by up to 0\.5 mm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 12}, r"different size \(3 of 14x11, 1 of 14x12\)"),
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, "not parallel, as a localizer"),
        ({"spacing": (1.2, 0.9)}, r"different pixel spacing \(0\.9 to 1\.2 mm\)"),
        ({"spacing": (0.0, 0.9)}, "not above 0"),
        ({"spacing": (float("nan"), 0.9)}, "not above 0"),
        ({"position": None}, "does not say where 1 of its 4 slices lie"),
        ({"orientation": None}, "does not say where 1 of its 4 slices lie"),
        ({"spacing": None}, "does not say where 1 of its 4 slices lie"),
    ],
)
def test_one_slice_unlike_the_others(changes, words):
    slices = planes([0, 2, 4, 6])
    slices[2] = replace(slices[2], **changes)
    refused(slices, words)


@pytest.mark.parametrize("orientation", [(1.0, 0, 0, 1.0, 0, 0), (2.0, 0, 0, 0, 1.0, 0)])
def test_directions_that_are_no_right_angle(orientation):
    refused([plane(k, orientation=orientation) for k in range(3)], "not at right angles")
