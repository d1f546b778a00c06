"""Surface distances against hand-made cases, a brute-force definition and MONAI."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from voxseg.metrics.surface import bounding_box, surface_distances, surface_voxels

SPACING = (0.94, 1.5, 2.0)


def blobs(rng, shape=(19, 23, 17), threshold=0.0):
    """Two overlapping smooth random masks."""
    base = gaussian_filter(rng.standard_normal(shape), 2)
    noise = gaussian_filter(rng.standard_normal((2, *shape)), (0, 2, 2, 2))
    both = [(base + 0.4 * n) / base.std() > threshold for n in noise]
    return both[0], both[1]


def brute_force(prediction, truth, spacing):
    """All pairs of surface voxels, straight from the definition."""
    points = [np.argwhere(surface_voxels(m)) * np.asarray(spacing) for m in (prediction, truth)]
    pairs = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    return pairs.min(1), pairs.min(0)


def test_two_points_by_hand():
    prediction, truth = np.zeros((2, 5, 6, 7), bool)
    prediction[1, 2, 3] = truth[3, 4, 6] = True
    distances = surface_distances(prediction, truth, (1.0, 2.0, 4.0))
    expected = math.hypot(2 * 1, 2 * 2, 3 * 4)
    np.testing.assert_allclose(distances.from_prediction, [expected])
    assert distances.hd95_mm == pytest.approx(expected)
    assert distances.assd_mm == pytest.approx(expected)
    assert distances.surface_dice(expected) == 1
    assert distances.surface_dice(expected - 0.01) == 0


def test_shifted_slab_by_hand():
    """A slab of 3 layers moved by one layer of 1.5 mm: faces move, so every distance is known."""
    prediction, truth = np.zeros((2, 9, 4, 5), bool)
    prediction[2:5], truth[3:6] = True, True
    distances = surface_distances(prediction, truth, (1.5, 1.0, 1.0))
    layer, rim = 4 * 5, 2 * (4 + 5) - 4  # a layer's voxels, and those on the array's border
    assert distances.from_prediction.size == 2 * layer + rim
    # The far face is one layer (1.5 mm) off. The rims of the other two layers lie on the other
    # slab's surface; what is left of the near face lies inside it, 1 mm from that layer's rim.
    expected = np.repeat([0.0, 1.0, 1.5], [2 * rim, layer - rim, layer])
    np.testing.assert_array_equal(np.sort(distances.from_prediction), expected)
    np.testing.assert_array_equal(np.sort(distances.from_truth), expected)
    assert distances.hd95_mm == 1.5
    assert distances.assd_mm == pytest.approx((layer - rim + 1.5 * layer) / (2 * layer + rim))
    assert distances.surface_dice(1.0) == pytest.approx((layer + rim) / (2 * layer + rim))


def test_distances_match_brute_force(rng):
    prediction, truth = blobs(rng)
    distances = surface_distances(prediction, truth, SPACING)
    expected = brute_force(prediction, truth, SPACING)
    np.testing.assert_allclose(distances.from_prediction, expected[0], rtol=1e-12)
    np.testing.assert_allclose(distances.from_truth, expected[1], rtol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING], ids=str)
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.7])
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
def test_metrics_match_monai(rng, spacing, threshold):
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    prediction, truth = blobs(rng, threshold=threshold)
    pair = [torch.tensor(mask)[None, None] for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing}
    distances = surface_distances(prediction, truth, spacing)
    expected = compute_hausdorff_distance(*pair, percentile=95, **options).item()
    assert distances.hd95_mm == pytest.approx(expected, rel=1e-5)
    expected = compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert distances.assd_mm == pytest.approx(expected, rel=1e-5)
    expected = compute_surface_dice(*pair, class_thresholds=[1.7], **options).item()
    assert distances.surface_dice(1.7) == pytest.approx(expected, rel=1e-5)


def test_hd95_takes_the_larger_direction():
    """A small mask inside a large one is near it, but not the other way round."""
    small, large = np.zeros((2, 21, 23), bool)
    large[1:20, 1:22] = True
    small[10, 1] = True
    there = surface_distances(small, large, (1.0, 1.0))
    back = surface_distances(large, small, (1.0, 1.0))
    assert there.from_prediction.max() == 0
    assert there.hd95_mm == np.percentile(there.from_truth, 95) > 15
    assert there.hd95_mm == back.hd95_mm


def test_swapping_masks_changes_nothing(rng):
    prediction, truth = blobs(rng)
    one, other = (
        surface_distances(*pair, SPACING) for pair in ((prediction, truth), (truth, prediction))
    )
    assert one.hd95_mm == other.hd95_mm
    assert one.assd_mm == pytest.approx(other.assd_mm, rel=1e-12)
    assert one.surface_dice(1.0) == other.surface_dice(1.0)


def test_distances_scale_with_spacing_and_ignore_far_background(rng):
    prediction, truth = blobs(rng)
    small = surface_distances(prediction, truth, SPACING)
    pads = [np.pad(mask, ((4, 9), (3, 5), (7, 2))) for mask in (prediction, truth)]
    doubled = surface_distances(prediction, truth, tuple(2 * s for s in SPACING))
    assert doubled.assd_mm == pytest.approx(2 * small.assd_mm)
    padded = surface_distances(*pads, SPACING)
    assert padded.assd_mm == small.assd_mm


def test_empty_masks():
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    both = surface_distances(empty, empty, (1, 1, 1))
    assert math.isnan(both.hd95_mm)
    assert math.isnan(both.assd_mm)
    assert math.isnan(both.surface_dice(1))
    for pair in ((empty, full), (full, empty)):
        one = surface_distances(*pair, (1, 1, 1))
        assert math.isnan(one.hd95_mm)
        assert math.isnan(one.assd_mm)
        assert one.surface_dice(1e6) == 0


def test_surface_is_the_shell_with_face_neighbours():
    mask = np.zeros((7, 6, 5), bool)
    mask[1:6, 1:5, 1:4] = True
    surface = surface_voxels(mask)
    assert surface.sum() == 5 * 4 * 3 - 3 * 2 * 1
    full = np.ones((4, 5, 6), bool)
    assert surface_voxels(full).sum() == 4 * 5 * 6 - 2 * 3 * 4  # the array's edge is outside


def test_a_single_slice_has_a_contour(rng):
    prediction, truth = (mask[:, :, 5] for mask in blobs(rng))
    flat = surface_distances(prediction, truth, SPACING[:2])
    slab = surface_distances(prediction[:, None], truth[:, None], (0.94, 9.0, 1.5))
    assert flat.from_prediction.size == slab.from_prediction.size
    assert flat.assd_mm == slab.assd_mm


def test_bounding_box(rng):
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 4, 2:7] = True
    assert bounding_box(mask) == (slice(1, 3), slice(4, 5), slice(2, 7))
    assert mask[bounding_box(np.zeros_like(mask))].size == 0


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, math.nan)], ids=str)
def test_surface_rejects_spacing(spacing):
    mask = np.ones((3, 4, 5), bool)
    with pytest.raises(ValueError, match="3 positive sizes in mm"):
        surface_distances(mask, mask, spacing)


def test_surface_rejects_negative_tolerance():
    mask = np.ones((3, 4, 5), bool)
    with pytest.raises(ValueError, match="must not be negative"):
        surface_distances(mask, mask, (1, 1, 1)).surface_dice(-1)
