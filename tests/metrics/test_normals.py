"""Angles between normals: by hand, against plain NumPy over all pixels, at other sizes."""

import math

import numpy as np
import pytest
import torch

from voxseg.metrics.normals import (
    BINS_PER_DEGREE,
    NUM_BINS,
    Angles,
    angle_map,
    count_angles,
    count_constant,
    mean_normal,
    no_angles,
    sum_angles,
    unit_on_grid,
)

BIN = 1 / BINS_PER_DEGREE


def tilted(degrees):
    """Normals (3, 1, n), tilted from the viewer to the right."""
    angles = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)])[:, None]


def random_normals(shape, seed, unknown=0.2):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(3, *shape))
    normals[2] += 1.5
    normals /= np.linalg.norm(normals, axis=0)
    return (normals * (rng.random(shape) > unknown)).astype(np.float32)


def plain(pairs):
    """The six numbers as the authors' protocol has them, from all pixels at once."""
    angles = []
    for prediction, truth in pairs:
        predicted = prediction / np.linalg.norm(prediction, axis=0)
        known = np.linalg.norm(truth, axis=0) > 0.5
        dot = np.sum(predicted * truth, axis=0)[known].astype(np.float64)
        angles.append(np.degrees(np.arccos(np.clip(dot, -1, 1))))
    angles = np.concatenate(angles)
    shares = [(angles < threshold).mean() for threshold in (11.25, 22.5, 30)]
    return [angles.mean(), np.median(angles), np.sqrt((angles**2).mean()), *shares]


def numbers(scores):
    return [
        scores.mean_degrees, scores.median_degrees, scores.rmse_degrees,
        scores.within_11_25, scores.within_22_5, scores.within_30,
    ]  # fmt: skip


def test_by_hand():
    """0, 10, 20, 60 degrees, and a pixel without a normal."""
    truth = tilted([0, 0, 0, 0, 0])
    truth[..., 4] = 0
    prediction = 5 * tilted([0, 10, 20, 60, 90])
    angles = angle_map(prediction, truth)
    np.testing.assert_allclose(angles, [[0, 10, 20, 60, np.nan]], atol=1e-9)
    found = count_angles(prediction, truth).scores
    assert found.pixels == 4
    assert found.mean_degrees == pytest.approx(90 / 4)
    assert found.rmse_degrees == pytest.approx(math.sqrt((100 + 400 + 3600) / 4))
    assert (found.within_11_25, found.within_22_5, found.within_30) == (2 / 4, 3 / 4, 3 / 4)


def test_thresholds_are_not_within():
    found = sum_angles(np.array([11.25, 22.5, 30, 11.2499, 22.4999, 29.9999]))
    assert found.within == (1, 3, 5)


@pytest.mark.parametrize(
    ("angles", "median"),
    [([17.0], 17), ([3, 3, 3], 3), ([1, 2, 90], 2), ([0.0], 0), ([180.0], 180), ([1, 1, 3, 3], 2)],
)
def test_a_median_is_exact_to_a_bin(angles, median):
    found = sum_angles(np.array(angles, float)).scores.median_degrees
    assert found == pytest.approx(median, abs=BIN)


@pytest.mark.parametrize("seed", range(3))
def test_scores_match_reference(seed):
    shapes = [(40, 33), (25, 61), (5, 7)]
    pairs = [
        (random_normals(shape, seed + 10, unknown=0) * 3, random_normals(shape, seed + n))
        for n, shape in enumerate(shapes)
    ]
    total = no_angles()
    for prediction, truth in pairs:
        own = count_angles(prediction, truth)
        np.testing.assert_allclose(numbers(own.scores), plain([(prediction, truth)]), atol=BIN)
        total += own
    found, expected = numbers(total.scores), plain(pairs)
    assert found[1] == pytest.approx(expected[1], abs=BIN)
    del found[1], expected[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_smallest_and_largest_angles_are_told():
    """In float32 the cosine of 0.01 degrees is 1."""
    small = np.array([0.0, 0.01, 179.99, 180.0])
    np.testing.assert_allclose(angle_map(tilted(small), tilted(small * 0))[0], small, atol=1e-5)


def test_turning_both_changes_nothing():
    truth, prediction = random_normals((9, 8), 0), random_normals((9, 8), 1, unknown=0)
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = [np.einsum("ij,jhw->ihw", turn, one) for one in (prediction, truth)]
    np.testing.assert_allclose(angle_map(*turned), angle_map(prediction, truth), atol=1e-4)


def test_a_prediction_without_direction_is_off_by_a_right_angle():
    assert angle_map(np.zeros((3, 1, 1)), tilted([40])) == [[90]]


@pytest.mark.parametrize("size", [(9, 14), (5, 7), (4, 20), (1, 1)], ids=str)
def test_another_size_is_interpolated_as_torch_does(size):
    normals = random_normals((5, 7), 3, unknown=0)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(normals).double()[None], size, mode="bilinear", align_corners=False
    )[0]
    expected = torch.nn.functional.normalize(expected, dim=0)
    found = unit_on_grid(normals, size)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    truth = random_normals(size, 4)
    np.testing.assert_allclose(angle_map(normals, truth), angle_map(found, truth), rtol=1e-12)


def test_volumes_of_one_slice_are_the_same():
    truth, prediction = random_normals((9, 8), 0), random_normals((5, 4), 1, unknown=0)
    flat = angle_map(prediction, truth)
    np.testing.assert_array_equal(angle_map(prediction[..., None], truth[..., None])[..., 0], flat)


def test_nothing_known_has_no_score():
    found = count_angles(tilted([3, 4]), np.zeros((3, 1, 2)))
    assert found.scores.pixels == 0
    assert np.isnan(numbers(found.scores)).all()
    assert (found + sum_angles(np.array([7.0]))).scores.mean_degrees == 7


def test_sums_are_kept_as_plain_values():
    angles = sum_angles(np.array([0, 12.3, 12.3, 155.0, np.nan]))
    again = Angles.from_json(angles.to_json())
    assert again.scores == angles.scores
    np.testing.assert_array_equal(again.histogram, angles.histogram)
    assert len(angles.to_json()["histogram"]) == 155 * BINS_PER_DEGREE + 1
    assert Angles.from_json(no_angles().to_json()).pixels == 0


def test_mean_normal_by_hand():
    """x and y in three pixels to one; what is unknown has no say."""
    first = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]], float)[:, None]
    second = np.array([[1, 0], [0, 1], [0, 0]], float)[:, None]
    found = mean_normal([first, second])
    np.testing.assert_allclose(found, np.array([3, 1, 0]) / math.sqrt(10))
    angles = angle_map(np.broadcast_to(found[:, None, None], (3, 1, 2)), second)
    expected = np.rad2deg([math.atan(1 / 3), math.atan(3)])
    np.testing.assert_allclose(angles, [expected])
    assert count_constant(found, second).scores.mean_degrees == pytest.approx(45)


def test_no_mean_of_nothing():
    with pytest.raises(ValueError, match="cancel out"):
        mean_normal([np.zeros((3, 2, 2))])
    with pytest.raises(ValueError, match="cancel out"):
        mean_normal([])


def test_angles_reject_what_is_no_normals():
    with pytest.raises(ValueError, match=r"must both be \(3, \*S\)"):
        angle_map(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="must be finite"):
        angle_map(np.full((3, 1, 1), np.nan), tilted([0]))
    with pytest.raises(ValueError, match="angles need 3 counts"):
        Angles(0, 0.0, 0.0, (0,), np.zeros(NUM_BINS, np.int64))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nyuv2_normals", (47.9042, 48.7952, 54.3990, 0.04624, 0.19356, 0.37891)),
        ("rgbd_normals", (52.0697, 51.4431, 54.2387, 0.00728, 0.04571, 0.09127)),
    ],
)
def test_golden_mean_normal_of_real_sets(name, expected, real_data):
    """Of the training part, on the validation part; computed with plain NumPy over all angles."""
    from voxseg.data.layouts import find_cases
    from voxseg.data.normals import read_normals

    dataset = find_cases(real_data / name)
    train, val = (
        [read_normals(one.label).array for one in dataset.cases if one.case_id in ids]
        for ids in (dataset.parts["train"], dataset.parts["val"])
    )
    mean = mean_normal(train)
    total = sum((count_constant(mean, truth) for truth in val), no_angles())
    np.testing.assert_allclose(numbers(total.scores)[:3], expected[:3], atol=0.01)
    np.testing.assert_allclose(numbers(total.scores)[3:], expected[3:], atol=1e-5)
