"""Paired comparison of two sets of scores: tests, interval, effect size, and what n can show.

Sources: Wilcoxon 1945, doi:10.2307/3001968 (signed ranks); Fisher 1935, *The Design of
Experiments*, section 21 (sign flips); Efron 1987, doi:10.1080/01621459.1987.10478410 (BCa);
Holm 1979, *Scandinavian Journal of Statistics* 6(2) (step-down correction); Kerby 2014,
doi:10.2466/11.IT.3.1 (rank-biserial correlation).

Every result is the same for any order of the cases, and exchanging the two sets only turns signs.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_EXACT = 20
"""Cases up to which all 2**n sign patterns are counted."""
FEWEST_CASES = 6
"""With fewer, no two-sided test reaches 0.05: 2 / 2**5 is 0.0625."""

_MOST_RANKED = 50  # SciPy tabulates signed ranks without ties up to here
_DIGITS = 12  # of a score; 0.8 - 0.7 and 0.3 - 0.2 are one difference, not two
_SUM_TOLERANCE = 1e-9  # of the sum of magnitudes: two orders of one sum differ by less
_BLOCK = 2**22  # signs drawn at once

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairedComparison:
    """Scores B against scores A of the same cases; every difference is B - A."""

    num_cases: int
    """Cases with a score in both."""
    undefined_a: int
    """Cases with a score in B only, left out."""
    undefined_b: int
    """Cases with a score in A only, left out."""
    undefined_both: int
    mean_a: float
    """Over the cases with both scores; NaN without one, as all numbers below."""
    mean_b: float
    difference: float
    low: float
    """Lower end of the interval of the mean difference; NaN with one case."""
    high: float
    interval_method: str
    p_wilcoxon: float
    wilcoxon_method: str
    p_permutation: float
    permutation_method: str
    p_attainable: float
    """Smallest p the permutation test can give for these magnitudes, whatever their signs."""
    cohens_dz: float
    """Mean over standard deviation (n - 1) of the differences; NaN where that is 0."""
    rank_biserial: float
    """Share of signed ranks above zero minus the share below, in [-1, 1]; NaN if all are 0."""
    num_higher: int
    """Cases where B is higher than A."""
    num_lower: int

    @property
    def num_differing(self) -> int:
        """Cases whose two scores differ; only they say anything in a test."""
        return self.num_higher + self.num_lower


def compare_paired(
    a: Sequence[float] | Values,
    b: Sequence[float] | Values,
    *,
    alpha: float = 0.05,
    resamples: int = 9999,
    seed: int = 0,
) -> PairedComparison:
    """Compare two scores of the same cases.

    Args:
        a: (n,) scores of the baseline; NaN where undefined.
        b: (n,) scores of the same cases in the same order.
        alpha: in (0, 1); the interval covers 1 - alpha.
        resamples: of the bootstrap, and of the sign flips above ``MOST_EXACT`` cases.
        seed: of both.

    Raises:
        ValueError: shapes differ, a score is infinite, or ``alpha`` or ``resamples`` makes no
            sense.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"a {first.shape} and b {second.shape} must be (n,) of the same cases")
    if np.isinf(first).any() or np.isinf(second).any():
        raise ValueError("a score is infinite; make it NaN where it is undefined")
    if not 0 < alpha < 1 or resamples < 2:
        raise ValueError(f"need 0 < alpha < 1 and resamples >= 2, got {alpha:g} and {resamples}")
    lost_a, lost_b = np.isnan(first), np.isnan(second)
    kept = ~(lost_a | lost_b)
    differences = _differences(first[kept], second[kept])
    low, high, interval_method = bootstrap_interval(differences, alpha, resamples, seed)
    p_wilcoxon, wilcoxon_method = wilcoxon(differences)
    p_permutation, permutation_method = sign_flip(differences, resamples, seed)
    deviation = differences.std(ddof=1) if _varies(differences) else math.nan
    return PairedComparison(
        num_cases=int(kept.sum()),
        undefined_a=int((lost_a & ~lost_b).sum()),
        undefined_b=int((lost_b & ~lost_a).sum()),
        undefined_both=int((lost_a & lost_b).sum()),
        mean_a=_mean(first[kept]),
        mean_b=_mean(second[kept]),
        difference=_mean(differences),
        low=low,
        high=high,
        interval_method=interval_method,
        p_wilcoxon=p_wilcoxon,
        wilcoxon_method=wilcoxon_method,
        p_permutation=p_permutation,
        permutation_method=permutation_method,
        p_attainable=attainable_p(differences, resamples),
        cohens_dz=_mean(differences) / float(deviation),
        rank_biserial=rank_biserial(differences),
        num_higher=int((differences > 0).sum()),
        num_lower=int((differences < 0).sum()),
    )


def wilcoxon(differences: Values) -> tuple[float, str]:
    """Test by signed ranks whether differences lie around zero, two-sided.

    Zeros are left out, as Wilcoxon did. Exact without ties up to 50 differences and with ties up
    to ``MOST_EXACT``, where all signs of the mid-ranks are counted; else the normal approximation.

    Returns:
        p and how it was found; 1 if all differences are zero, NaN if there is none.
    """
    from scipy import stats

    if not differences.size:
        return math.nan, "no case"
    others = differences[differences != 0]
    if not others.size:
        return 1.0, "no case differs"
    is_tied = np.unique(np.abs(others)).size < others.size
    if is_tied and others.size <= MOST_EXACT:
        return _exact_sign_flip(_signed_ranks(others)), "exact with ties"
    is_exact = not is_tied and others.size <= _MOST_RANKED
    found = stats.wilcoxon(others, method="exact" if is_exact else "auto")
    return float(found.pvalue), "exact" if is_exact else "normal approximation"


def sign_flip(differences: Values, resamples: int = 9999, seed: int = 0) -> tuple[float, str]:
    """Test whether the mean difference is zero by turning the sign of every difference, two-sided.

    p is the share of sign patterns whose mean is at least as far from zero as the one seen. Up to
    ``MOST_EXACT`` differences all patterns are counted; above, ``resamples`` drawn with ``seed``,
    and the one seen is counted among them, so p is never 0.

    Returns:
        p and how it was found; NaN without a difference.
    """
    if not differences.size:
        return math.nan, "no case"
    if differences.size <= MOST_EXACT:
        return _exact_sign_flip(differences), "exact"
    # The distribution depends on magnitudes alone; sorted, it has no order of cases either.
    magnitudes = np.sort(np.abs(differences))
    total = magnitudes.sum()
    least = abs(math.fsum(differences)) - _SUM_TOLERANCE * total
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // magnitudes.size)
    count = 0
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), magnitudes.size)
        sums = 2 * (generator.integers(0, 2, shape, dtype=np.int8) @ magnitudes) - total
        count += int((np.abs(sums) >= least).sum())
    return (count + 1) / (resamples + 1), f"{resamples} random patterns"


def attainable_p(differences: Values, resamples: int = 9999) -> float:
    """Smallest p that ``sign_flip`` can give for these magnitudes: 2 / 2**(differences not zero).

    Random patterns cannot go below 1 / (resamples + 1) either. NaN without a difference.
    """
    if not differences.size:
        return math.nan
    smallest = min(1.0, 2.0 ** (1 - int(np.count_nonzero(differences))))
    if differences.size <= MOST_EXACT:
        return smallest
    return max(smallest, 1 / (resamples + 1))


def bootstrap_interval(
    differences: Values, alpha: float = 0.05, resamples: int = 9999, seed: int = 0
) -> tuple[float, float, str]:
    """Find the interval of the mean difference that covers 1 - alpha, by BCa bootstrap.

    Where BCa is degenerate (all differences equal, or all resampled means on one side) the
    percentile interval stands in, and the method says so. With few cases the interval is too
    narrow: of 1000 simulated normal samples, the 95% interval held the true mean in 86% with 6
    cases, 90% with 10, 92% with 20 and 94% with 40. The sign-flip test has no such flaw.

    Returns:
        Low end, high end and the method; NaN with fewer than two differences.
    """
    from scipy import stats

    if differences.size < 2:
        return math.nan, math.nan, "too few cases"
    if not _varies(differences):
        return float(differences[0]), float(differences[0]), "percentile (all differences equal)"
    # One order and one sign, so that neither changes which cases a resample draws.
    sign = -1.0 if math.fsum(differences) < 0 else 1.0
    ordered = np.sort(sign * differences)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (ordered,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _BLOCK // ordered.size),
            confidence_level=1 - alpha,
            method="BCa",
            random_state=np.random.default_rng(seed),
        )
    ends = sign * np.array(found.confidence_interval)
    method = "BCa"
    if not np.isfinite(ends).all():
        quantiles = np.quantile(found.bootstrap_distribution, [alpha / 2, 1 - alpha / 2])
        ends, method = sign * quantiles, "percentile (BCa is degenerate)"
    return float(ends.min()), float(ends.max()), method


def rank_biserial(differences: Values) -> float:
    """Matched-pairs rank-biserial correlation: (W+ - W-) / (W+ + W-), zeros left out."""
    ranks = _signed_ranks(differences[differences != 0])
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.size else math.nan


def holm(p_values: Sequence[float] | Values) -> Values:
    """Correct p values for their number by Holm's step-down method.

    Args:
        p_values: (m,) in [0, 1]; NaN is not a test: it stays NaN and is not counted.

    Returns:
        (m,) adjusted p values, at least as large as the raw ones and at most 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]  # NaN sorts last
    steps = (order.size - np.arange(order.size)) * values[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def fewest_cases(num_tests: int, alpha: float) -> int:
    """Cases with which ``num_tests`` sign-flip tests can all reach ``alpha`` after Holm."""
    return max(FEWEST_CASES, math.ceil(math.log2(2 * max(num_tests, 1) / alpha)))


def _differences(a: Values, b: Values) -> Values:
    """Return b - a without the rounding of the last digits, which would hide ties and zeros."""
    largest = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    if largest == 0:
        return np.zeros_like(a)
    step = largest * 10.0**-_DIGITS
    return np.asarray(np.round((b - a) / step) * step)


def _exact_sign_flip(differences: Values) -> float:
    """Share of all sign patterns whose sum is at least as far from zero as the one seen."""
    magnitudes = np.sort(np.abs(differences))
    # A pattern and its mirror are equally far out, so the first sign can stay.
    sums = magnitudes[:1]
    for magnitude in magnitudes[1:]:
        sums = np.concatenate([sums + magnitude, sums - magnitude])
    least = abs(math.fsum(differences)) - _SUM_TOLERANCE * magnitudes.sum()
    return float((np.abs(sums) >= least).mean())


def _signed_ranks(differences: Values) -> Values:
    """Ranks of the magnitudes, the mean rank where they are tied, with the signs."""
    from scipy import stats

    return np.asarray(np.sign(differences) * stats.rankdata(np.abs(differences)))


def _varies(values: Values) -> bool:
    return values.size > 1 and bool((values != values[0]).any())


def _mean(values: Values) -> float:
    return math.fsum(values) / values.size if values.size else math.nan
