"""Cases of a report that a reader can open in a viewer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.export.labels import class_colours, plain_table
from voxseg.export.report import Report
from voxseg.export.report_parts import ReportCase
from voxseg.export.viewer_scene import MOST_LABELS, ViewerScene

MOST_VIEWERS = 20
"""Cases that one page has room for."""


def with_viewers(report: Report, cases: Sequence[str]) -> Report:
    """Give some of a report's cases a viewer; they share the room that a page has for volumes."""
    if not cases:
        return report
    # map holds no case while the next one is read
    made = map(partial(_with_viewer, chosen=frozenset(cases), names=report.class_names),
               report.cases)  # fmt: skip
    return replace(report, cases=made, num_viewers=len(cases))


def _with_viewer(case: ReportCase, chosen: frozenset[str], names: Mapping[int, str]) -> ReportCase:
    scene = case_scene(case, names) if case.case_id in chosen else None
    return replace(case, viewer=scene)


def case_scene(case: ReportCase, names: Mapping[int, str]) -> ViewerScene | None:
    """Put together what a viewer shows of a case.

    Args:
        case: Its arrays and affine.
        names: Class value -> name; others are called after their value.

    Returns:
        None where there is nothing to show, or the masks hold what a viewer cannot tell apart.
    """
    arrays = case.arrays
    if not arrays or case.affine is None:
        return None
    masks: dict[str, NDArray[Any]] = {
        name: arrays[name] for name in ("prediction", "truth") if name in arrays
    }
    values = {int(value) for mask in masks.values() for value in np.unique(mask)} - {0}
    known = {value for value in names if value > 0}
    if any(value < 0 for value in values) or len(values | known) > MOST_LABELS:
        return None
    named = {value: names.get(value, f"label {value}") for value in values | known}
    return ViewerScene(
        case.case_id,
        case.affine,
        arrays.get("image"),
        masks,
        plain_table(named, class_colours(names)),
        superpixels=arrays.get("superpixels"),
        uncertainty=arrays.get("uncertainty"),
        has_errors=case.errors and len(masks) > 1,
    )
