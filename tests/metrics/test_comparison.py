"""Paired tests against cases worked out by hand, by counting every pattern, and by symmetry."""

import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxseg.metrics.comparison import (
    MOST_EXACT,
    attainable_p,
    bootstrap_interval,
    compare_paired,
    fewest_cases,
    holm,
    rank_biserial,
    sign_flip,
    wilcoxon,
)

NAN = math.nan
SCORES = st.floats(0, 1).map(lambda value: round(value, 3))
PAIRS = st.lists(st.tuples(SCORES | st.just(NAN), SCORES | st.just(NAN)), min_size=1, max_size=9)


def array(*values):
    return np.array(values, dtype=np.float64)


def compare(a, b, **options):
    return compare_paired(a, b, **{"resamples": 199, **options})


def every_pattern(differences):
    """Two-sided p of the mean by trying all signs, one after the other."""
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(value >= seen - 1e-12 for value in sums) / len(sums)


def test_wilcoxon_of_five_by_hand():
    # Ranks 1..5. W- = 5 has ten subsets of {1..5} with a sum of at most 5: {}, 1, 2, 3, 12, 4, 13,
    # 5, 14, 23. Twice 10 / 32.
    assert wilcoxon(array(0.1, 0.2, 0.3, 0.4, -0.5)) == (pytest.approx(20 / 32), "exact")
    # W- = 1: {} and 1.
    assert wilcoxon(array(-0.1, 0.2, 0.3, 0.4, 0.5))[0] == pytest.approx(4 / 32)
    assert wilcoxon(array(0.1, 0.2, 0.3, 0.4, 0.5))[0] == pytest.approx(2 / 32)


def test_wilcoxon_with_ties_by_hand():
    # Magnitudes 1, 1, 1, 1, 2 have the ranks 2.5 (four times) and 5, so W- = 2.5. As far out are
    # {} and each of the four alone; twice 5 / 32.
    p, method = wilcoxon(array(1, 1, 1, -1, 2))
    assert p == pytest.approx(10 / 32)
    assert method == "exact with ties"


def test_wilcoxon_leaves_zeros_out():
    assert wilcoxon(array(0, 1, 2, 0, 3)) == wilcoxon(array(1, 2, 3))
    assert wilcoxon(array(0, 0)) == (1.0, "no case differs")


def test_wilcoxon_of_many_is_the_normal_approximation(rng):
    p, method = wilcoxon(rng.normal(0.05, 1, 60))
    assert method == "normal approximation"
    assert 0 < p < 1
    tied = np.repeat([1.0, -2.0, 3.0], 10)
    # Mid-ranks 5.5, 15.5, 25.5, so W- = 155 of a mean of 232.5; ties take 3 (10**3 - 10) / 48 off
    # the variance n (n + 1) (2n + 1) / 24.
    z = (155 - 232.5) / math.sqrt(30 * 31 * 61 / 24 - 3 * 990 / 48)
    assert wilcoxon(tied)[0] == pytest.approx(math.erfc(-z / math.sqrt(2)), rel=1e-6)


def test_sign_flip_by_hand():
    # The sum is 0.25 of 0.35; as far out are no sign turned and the smallest turned: 4 / 8.
    assert sign_flip(array(0.1, 0.2, -0.05)) == (0.5, "exact")
    assert sign_flip(array(1, 2, 3, 4, 5, 6))[0] == 2 / 64
    assert sign_flip(array(1, -1))[0] == 1
    assert sign_flip(array(0.3))[0] == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11])
def test_sign_flip_counts_every_pattern(size, rng):
    for differences in (rng.normal(0.3, 1, size), np.round(rng.normal(0.1, 0.3, size), 1)):
        assert sign_flip(differences)[0] == pytest.approx(every_pattern(differences), abs=1e-12)


def test_random_patterns_agree_with_exact_ones(rng):
    differences = rng.normal(0.4, 1, MOST_EXACT)
    exact, method = sign_flip(differences)
    assert method == "exact"
    # A case that does not differ changes no p, but makes one too many to count.
    drawn, method = sign_flip(np.append(differences, 0), resamples=20000, seed=3)
    assert method == "20000 random patterns"
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 20000))
    assert sign_flip(np.append(differences, 0), 20000, 3)[0] == drawn


def test_random_patterns_are_never_certain():
    assert sign_flip(np.ones(40), resamples=199)[0] == 1 / 200


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, which may not fall.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, NAN, 0.01]), [0.6, NAN, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_holm_never_lowers_p_and_keeps_its_order(p_values, data):
    raw, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    index = data.draw(st.integers(0, raw.size - 1))
    raw[index] *= data.draw(st.floats(0, 1))
    assert (holm(raw) <= adjusted + 1e-12).all(), "a smaller p made another larger"


def test_effect_sizes_by_hand():
    found = compare([0, 0, 0], [1, 2, 3])
    assert found.cohens_dz == pytest.approx(2 / 1)
    assert found.rank_biserial == 1
    # W+ = 2 + 3 and W- = 1 of 6.
    assert rank_biserial(array(3, 2, -1)) == pytest.approx(4 / 6)
    assert rank_biserial(array(1, 2, 0, -3)) == 0


def test_what_n_can_show():
    assert attainable_p(array(1, -2, 3, 4)) == 2 / 16
    assert attainable_p(array(1, 0, 3, 4)) == 2 / 8
    assert attainable_p(array(0, 0)) == 1
    assert attainable_p(np.ones(30), resamples=999) == 1 / 1000
    assert [fewest_cases(tests, 0.05) for tests in (1, 4, 5)] == [6, 8, 8]
    assert fewest_cases(6, 0.05) == 8  # 12 / 2**8 = 0.047
    assert fewest_cases(7, 0.05) == 9


def test_interval_of_many_is_that_of_the_normal_distribution(rng):
    differences = rng.normal(0.1, 1, 400)
    low, high, method = bootstrap_interval(differences)
    half = 1.96 * differences.std(ddof=1) / 20
    assert method == "BCa"
    np.testing.assert_allclose(
        [low, high], differences.mean() + array(-half, half), atol=0.05 * half
    )
    inner = bootstrap_interval(differences, alpha=0.5)
    assert low < inner[0] < inner[1] < high


def test_interval_does_not_know_order_or_side(rng):
    differences = rng.normal(0.1, 1, 12)
    low, high, _ = bootstrap_interval(differences)
    assert bootstrap_interval(rng.permutation(differences))[:2] == (low, high)
    assert bootstrap_interval(-differences)[:2] == (-high, -low)


def test_interval_covers_about_as_often_as_it_says(rng):
    """With ten cases a bootstrap interval is known to be narrow: 90% rather than 95%."""
    held = 0
    for _ in range(300):
        low, high, _ = bootstrap_interval(rng.normal(0.3, 1, 10), resamples=499)
        held += low <= 0.3 <= high
    assert 0.84 < held / 300 < 0.96


def test_sign_flip_keeps_its_level(rng):
    rejected = sum(sign_flip(rng.normal(0, 1, 9))[0] <= 0.05 for _ in range(600))
    assert rejected / 600 < 0.075


def test_degenerate_intervals():
    low, high, method = bootstrap_interval(array(0.2, 0.2, 0.2))
    assert (low, high) == (0.2, 0.2)
    assert "all differences equal" in method
    assert all(map(math.isnan, bootstrap_interval(array(0.2))[:2]))
    # Where all resampled means lie on one side BCa has no answer; with two that is soon the case.
    found = [bootstrap_interval(array(0, 0, 1), resamples=2, seed=seed) for seed in range(30)]
    assert {method for *_, method in found} == {"BCa", "percentile (BCa is degenerate)"}
    assert all(math.isfinite(low) and low <= high for low, high, _ in found)


def test_equal_scores():
    found = compare([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (found.difference, found.p_wilcoxon, found.p_permutation) == (0, 1, 1)
    assert (found.num_differing, found.p_attainable) == (0, 1)
    assert math.isnan(found.cohens_dz)
    assert math.isnan(found.rank_biserial)


def test_one_case():
    found = compare([0.5], [0.6])
    assert found.difference == pytest.approx(0.1)
    assert (found.num_cases, found.p_wilcoxon, found.p_permutation) == (1, 1, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.cohens_dz)


def test_undefined_scores_are_left_out_and_counted():
    found = compare([NAN, 0.2, 0.3, NAN, 0.5], [0.1, NAN, 0.4, NAN, 0.7])
    assert (found.num_cases, found.undefined_a, found.undefined_b) == (2, 1, 1)
    assert found.undefined_both == 1
    assert (found.mean_a, found.mean_b) == (pytest.approx(0.4), pytest.approx(0.55))
    none = compare([NAN], [0.1])
    assert none.num_cases == 0
    assert all(map(math.isnan, (none.difference, none.p_wilcoxon, none.p_permutation, none.low)))
    assert math.isnan(none.p_attainable)


def test_rounding_makes_no_differences():
    """0.8 - 0.7 and 0.3 - 0.2 differ in the last digit; 0.1 + 0.2 is not quite 0.3."""
    assert compare([0.7, 0.2], [0.8, 0.3]).wilcoxon_method == "exact with ties"
    assert compare([0.1 + 0.2], [0.3]).num_differing == 0


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_of_cases_means_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, two = (asdict(compare(*np.array(cases).T)) for cases in (pairs, shuffled))
    assert one == pytest.approx(two, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_exchanging_a_and_b_turns_signs_only(pairs):
    a, b = np.array(pairs).T
    one, two = compare(a, b), compare(b, a)
    for name in ("p_wilcoxon", "p_permutation", "p_attainable", "num_cases", "interval_method"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), nan_ok=True)
    for name in ("difference", "cohens_dz", "rank_biserial"):
        assert getattr(one, name) == pytest.approx(-getattr(two, name), nan_ok=True, abs=1e-9)
    assert (one.num_higher, one.undefined_a) == (two.num_lower, two.undefined_b)
    if one.num_cases and abs(one.difference) > 1e-9:
        assert (one.low, one.high) == pytest.approx((-two.high, -two.low), nan_ok=True)
        assert math.isnan(one.low) or one.low <= one.high
    if one.num_cases:
        assert one.p_attainable <= one.p_permutation <= 1


def test_compare_rejects_what_is_not_paired():
    with pytest.raises(ValueError, match="same cases"):
        compare([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="infinite"):
        compare([0.1], [math.inf])
    with pytest.raises(ValueError, match="alpha"):
        compare([0.1], [0.2], alpha=1)
    with pytest.raises(ValueError, match="resamples"):
        compare([0.1], [0.2], resamples=1)
