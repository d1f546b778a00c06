"""Volumes in words and digits, the same on the screen and on pages."""

from collections.abc import Iterable, Mapping
from typing import Any

from voxseg.engine.outcomes import UNKNOWN, IntervalKind, Uncertainty, Unit

_SHORT_BELOW = 10.0  # where one decimal would be too coarse for a hippocampus


def shown(value: float | None, unit: Unit = "ml", like: float | None = None) -> str:
    """Write a figure with as many decimals as it can bear; a dash where it is not defined.

    Args:
        value: The figure.
        unit: Its unit.
        like: Another figure whose decimals it gets, as an interval those of its value.
    """
    if value is None:
        return "-"
    digits = 2 if unit == "ml" and abs(value if like is None else like) < _SHORT_BELOW else 1
    return f"{value:.{digits}f}"


def with_interval(value: float | None, found: Uncertainty, unit: Unit = "ml") -> str:
    """Write a figure and, in brackets, its interval."""
    text = shown(value, unit)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{shown(found.low, unit, value)}, {shown(found.high, unit, value)}]"


def interval_sentences(found: Iterable[Uncertainty]) -> tuple[str, ...]:
    """Say what stands in brackets, a sentence for each kind of interval that occurs."""
    several = list(found)
    bounds = sorted({(one.level or 0, one.held_out_cases) for one in several
                     if one.interval == "conformal"})  # fmt: skip
    sentences = [
        f"In brackets: where the true value is expected, with {percent(level)} confidence by "
        f"the errors of {cases} held-out cases of the cross-validation (split conformal "
        "interval), for images and subjects like those."
        for level, cases in bounds
    ]
    if bounds:
        sentences.append("An interval that lies to one side of its value tells of a bias.")
    counts = sorted({one.members for one in several if one.interval == "members"})
    sentences += [
        f"{'Of others, in' if bounds else 'In'} brackets: the range of {count or 'several'} "
        "members (folds, "
        "flips) before post-processing, which says how far they agree and not how far they are "
        "off."
        for count in counts
    ]
    if not bounds and not counts and several:
        sentences.append(
            "No interval: predict with the folder of a cross-validation, or with --tta."
        )
    return tuple(sentences)


def interval_words(found: Uncertainty) -> str:
    """Name an interval in a cell of a table; a dash where there is none."""
    if found.interval == "conformal":
        return f"{percent(found.level or 0)}, {found.held_out_cases} held-out cases"
    return f"range of {found.members or 'several'} members" if found.interval else "-"


def bias_sentence(found: Iterable[tuple[str, Uncertainty]]) -> str:
    """Say how far held-out cases were measured too large or too small; "" where nobody knows.

    Args:
        found: Names of figures, each once or for each case, and what is known of them.
    """
    by_name = {name: one.bias_percent for name, one in found if one.bias_percent is not None}
    if not by_name:
        return ""
    listed = ", ".join(f"{name} {bias:+.1f} %" for name, bias in by_name.items())
    return (
        "Bias: predicted against true volume in the held-out cases, median, not corrected for: "
        f"{listed}."
    )


def percent(level: float) -> str:
    """Write a share in whole percent, never more than it is."""
    return f"{int(100 * level + 1e-9)} %"


def uncertainty_from_json(row: Mapping[str, Any]) -> Uncertainty:
    """Read what ``predict.json`` says of a class or a figure; fields it lacks are unknown.

    Earlier versions wrote the range of members alone, as ``low_ml`` and ``high_ml``.
    """
    found = row.get("uncertainty")
    if not isinstance(found, Mapping):
        low, high = row.get("low_ml"), row.get("high_ml")
        return UNKNOWN if low is None or high is None else Uncertainty("members", low, high)
    kind: IntervalKind = found.get("interval", "")
    return Uncertainty(
        kind,
        found.get("low"),
        found.get("high"),
        found.get("level"),
        int(found.get("held_out_cases", 0)),
        int(found.get("members", 0)),
        found.get("bias_percent"),
    )
