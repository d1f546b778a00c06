"""Intervals of volumes: golden numbers by hand, and how often they hold the truth."""

import math

import numpy as np
import pytest

from voxseg.metrics.volumes import (
    Interval,
    asymmetry_percent,
    bias_percent,
    conformal_interval,
    conformal_rank,
    share_percent,
)

LEVELS = {2: None, 3: (1, 0.5), 4: (1, 0.6), 9: (1, 0.8), 10: (1, 9 / 11), 18: (1, 17 / 19),
          19: (1, 0.9), 20: (1, 0.9), 38: (1, 0.9), 39: (2, 0.9), 999: (50, 0.9)}  # fmt: skip


@pytest.mark.parametrize("count", LEVELS)
def test_as_much_as_the_cases_allow(count):
    found = conformal_rank(count)
    assert found == (None if LEVELS[count] is None else pytest.approx(LEVELS[count]))


def test_golden_ratios():
    """Nine cases whose truth is 0.8 to 1.6 times what was predicted; the ends bound 80 %."""
    predicted = [10.0, 20, 30, 40, 50, 60, 70, 80, 90]
    factors = [1.6, 0.8, 0.9, 1, 1, 1.1, 1.2, 1.3, 1.4]
    true = [p * f for p, f in zip(predicted, factors, strict=True)]
    found = conformal_interval(5, predicted, true)
    assert (found.low, found.high) == pytest.approx((4, 8))
    assert (found.level, found.num_cases) == (pytest.approx(0.8), 9)


def test_golden_differences_of_what_may_be_negative():
    predicted, true = [1.0, -2.0, 0.5], [0.0, -1.0, 3.0]  # errors -1, 1, 2.5
    unbounded = (-math.inf, math.inf)
    assert conformal_interval(0.25, predicted, true, unbounded) == Interval(-0.75, 2.75, 0.5, 3)
    assert conformal_interval(0.25, predicted, true, (-0.5, 2)) == Interval(-0.5, 2, 0.5, 3)


@pytest.mark.parametrize(
    ("value", "predicted", "true", "ends"),
    [
        (1.0, [0.0, 2, 3], [0.5, 2, 1], (0.0, 1.5)),  # errors 0.5, 0, -2
        (1.0, [1.0, 2, 3], [0.0, 2, 4], (0.0, 2.0)),  # errors -1, 0, 1
        (0.0, [1.0, 2, 3], [0.5, 2, 4], (0.0, 1.0)),  # errors -0.5, 0, 1
    ],
    ids=["not found", "not there", "not found now"],
)
def test_absent_structures_get_differences_and_never_less_than_nothing(
    value, predicted, true, ends
):
    found = conformal_interval(value, predicted, true)
    assert (found.low, found.high) == ends


def test_undefined_pairs_are_left_out():
    nan = math.nan
    found = conformal_interval(1, [1, nan, 2, 3, 4], [1, 1, nan, 6, 4])
    assert found == Interval(1, pytest.approx(2), 0.5, 3)
    assert conformal_interval(1, [1, nan, 2, 3], [1, 1, nan, 6]) is None
    assert conformal_interval(nan, [1, 2, 3], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="as many, got 1 and 2"):
        conformal_interval(1, [1], [1, 2])


@pytest.mark.parametrize("count", [9, 19, 45])
@pytest.mark.parametrize("is_signed", [False, True])
def test_new_cases_are_held_as_often_as_it_says(count, is_signed):
    """A biased network with skewed errors, seeded: coverage over new sets of held-out cases."""
    rng = np.random.default_rng(count)
    draws = 4000
    true = rng.lognormal(1, 0.4, (draws, count + 1))
    predicted = 0.9 * true * np.exp(0.1 * rng.standard_exponential(true.shape))
    bounds = (0.0, math.inf)
    if is_signed:
        true, predicted, bounds = true - 3, predicted - 3, (-math.inf, math.inf)
    rank, level = conformal_rank(count)
    held = 0
    for before, after in zip(predicted, true, strict=True):
        found = conformal_interval(before[-1], before[:-1], after[:-1], bounds)
        assert found.level == level
        held += found.low <= after[-1] <= found.high
    exact = 1 - 2 * rank / (count + 1)
    assert exact >= level - 1e-12
    deviation = math.sqrt(exact * (1 - exact) / draws)
    assert abs(held / draws - exact) < 4 * deviation


def test_bias_is_the_median_error():
    assert bias_percent([9.4, 18.8, 100], [10, 20, 50]) == pytest.approx(-6)
    assert bias_percent([9.4, 5, 18.8, 30], [10, 0, 20, 10]) == pytest.approx(-6)
    assert math.isnan(bias_percent([1.0], [0.0]))


def test_sides_and_shares():
    assert asymmetry_percent(3, 1) == 100
    assert asymmetry_percent(0, 1) == -200
    assert share_percent(1, 4) == 25
    assert math.isnan(asymmetry_percent(0, 0))
    assert math.isnan(share_percent(0, 0))
