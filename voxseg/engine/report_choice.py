"""Which cases a page draws, and what is to be said of their files."""

from collections.abc import Mapping, Sequence

from voxseg.engine import report_warnings as remarks
from voxseg.engine.report_sources import CaseFiles

WORST = 6
"""Cases that are drawn beside the median and the best one."""
MOST_PREDICTED = 12
"""Predictions that are drawn; there is no worst among them."""
_FEW = WORST + 4  # up to here, all are drawn


def choose(ranked: Sequence[str], pictures: int | None) -> tuple[str, ...]:
    """Choose which of the cases, worst first, are drawn; in that order."""
    if pictures == 0:
        return ()
    worst = WORST if pictures is None else pictures
    if len(ranked) <= (_FEW if pictures is None else worst + 2):
        return tuple(ranked)
    places = {*range(worst), len(ranked) // 2, len(ranked) - 1}
    return tuple(ranked[place] for place in sorted(places))


def file_warnings(
    files: Mapping[str, CaseFiles], drawn: Sequence[str], *, with_truth: bool
) -> list[str]:
    """Say what is missing or has changed of the cases that are drawn."""
    chosen = {case: files[case] for case in drawn}
    changed = [text for case, one in chosen.items() for text in remarks.changed_files(case, one)]
    return remarks.missing_files(chosen, with_truth=with_truth) + changed
