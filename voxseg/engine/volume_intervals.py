"""How far the volumes of a prediction may be off, by what is known of its networks.

A cross-validation has predicted each of its cases by a network that had not seen it, and keeps
these volumes beside the true ones. Their errors bound those of a new case (``metrics.volumes``).
Two things differ from the theory, which so is an approximation here: a new case is predicted by
the mean of all folds, and with --tta of their flips, not by one network; and it must be like those
cases, which nobody but the user can know.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from voxseg.engine.outcomes import UNKNOWN, Uncertainty
from voxseg.engine.postprocess_files import NESTED_SCORES
from voxseg.engine.report_sources import read_manifest
from voxseg.engine.run_scores import RunScores, read_run
from voxseg.engine.volume_measures import Measure
from voxseg.metrics.volumes import bias_percent, conformal_interval

ByClass = Mapping[int, float]


@dataclass(frozen=True)
class HeldOut:
    """Volumes of the cases of a cross-validation, in ml, as predicted when held out, and true."""

    predicted: tuple[ByClass, ...]
    true: tuple[ByClass, ...]
    labels: frozenset[int]
    """Classes that were scored."""


def held_out_volumes(
    checkpoint: Path, postprocess: Path | bool, *, is_used: bool
) -> HeldOut | None:
    """Read what the cross-validation that predicts says of its held-out cases.

    Args:
        checkpoint: What predicts.
        postprocess: As for ``PredictRequest``.
        is_used: Whether that does anything; volumes are then taken after it, as each fold got it
            from the others.

    Returns:
        None where ``checkpoint`` is no finished cross-validation of volumes, or has no volumes
        with this post-processing.

    Raises:
        DataError: Its scores are damaged.
    """
    manifest = read_manifest(checkpoint / "manifest.json")
    if manifest.get("kind") != "crossval" or not manifest.get("finished"):
        return None
    if not is_used:
        paths = [checkpoint / "metrics.csv"]
    elif postprocess is True:
        own = checkpoint / NESTED_SCORES
        paths = [own] if own.is_file() else sorted(checkpoint.glob(f"seed-*/{NESTED_SCORES}"))
    else:
        return None
    runs = [read_run(path) for path in paths if path.is_file()]
    if not runs or any({"truth_ml", "prediction_ml"} - set(run.metrics) for run in runs):
        return None
    cases = list(runs[0].scores)
    labels = frozenset.intersection(*(frozenset(run.labels) for run in runs))
    return HeldOut(
        tuple(_by_class(runs, case, labels, "prediction_ml") for case in cases),
        tuple(_by_class(runs, case, labels, "truth_ml") for case in cases),
        labels,
    )


def uncertainty_of(
    measure: Measure, value: float, held_out: HeldOut | None, members: Sequence[ByClass]
) -> Uncertainty:
    """Tell how far one figure of a case may be off.

    Args:
        measure: Which.
        value: It.
        held_out: Cases to judge by, if there are any.
        members: Volumes in ml that each member gives, without post-processing.
    """
    needed = {*measure.labels, *measure.others}
    interval, bias = None, math.nan
    if held_out is not None and needed <= held_out.labels:
        before, after = ([measure.value(ml) for ml in several] for several in
                         (held_out.predicted, held_out.true))  # fmt: skip
        interval = conformal_interval(value, before, after, measure.bounds)
        bias = math.nan if measure.is_signed else bias_percent(before, after)
    known_bias = None if math.isnan(bias) else bias
    if interval is not None:
        return Uncertainty(
            "conformal", interval.low, interval.high, interval.level, interval.num_cases,
            bias_percent=known_bias,
        )  # fmt: skip
    cases = len(held_out.true) if held_out is not None and known_bias is not None else 0
    several = [one for one in map(measure.value, members) if not math.isnan(one)]
    if len(several) < 2:
        return Uncertainty(held_out_cases=cases, bias_percent=known_bias) if cases else UNKNOWN
    return Uncertainty("members", min(several), max(several), None, cases, len(several), known_bias)


def _by_class(
    runs: Sequence[RunScores], case: str, labels: Iterable[int], column: str
) -> dict[int, float]:
    """Volumes of a case; of several seeds their mean."""
    return {k: fmean(run.scores[case][k][column] for run in runs) for k in labels}
