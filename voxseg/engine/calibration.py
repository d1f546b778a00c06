"""Calibration of a cross-validation: counted fold by fold, added up, written and drawn.

Every case is counted with the probabilities of the network that did not see it, on the prepared
grid, where they were made. A fold keeps its counts beside its scores; ``calibration.json`` of the
cross-validation is their sum, so nothing is predicted again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.case_lists import parse_json
from voxseg.data.prepare import IGNORED, Prepared, check_label_values
from voxseg.data.volume import Volume
from voxseg.documents import refuse_newer, write_document
from voxseg.engine.label_config import LabelConfig
from voxseg.errors import DataError
from voxseg.export.reliability import ReliabilityCurve, draw_reliability
from voxseg.export.report_parts import ReportFigure, ReportSection, ReportTable
from voxseg.files import replacing
from voxseg.metrics.calibration import (
    MARGIN_MM,
    NUM_BINS,
    Calibration,
    Regions,
    Reliability,
    calibrate,
    reliability_from_json,
    reliability_to_json,
)
from voxseg.metrics.summary import in_cases, or_none
from voxseg.schemas import CALIBRATION as FORM

CALIBRATION = "calibration.json"
"""In the folder of a fold and of a cross-validation."""
PICTURE = "calibration.png"
_REGIONS = {"near": "near the foreground", "everywhere": "whole crop"}


@dataclass(frozen=True)
class StoredCalibration:
    """Counts of several cases; those of folds can be added."""

    labels: tuple[int, ...]
    """Class values, background first."""
    names: tuple[str, ...]
    regions: Regions
    case_ece: Mapping[str, float]
    """Of each case, of the winning class near its foreground; NaN where it has none."""

    def __add__(self, other: "StoredCalibration") -> "StoredCalibration":
        """Put the cases of both together."""
        if self.labels != other.labels:
            raise ValueError(f"classes {self.labels} do not add to {other.labels}")
        regions = self.regions + other.regions
        cases = {**self.case_ece, **other.case_ece}
        return StoredCalibration(self.labels, self.names, regions, cases)

    @property
    def mean_case_ece(self) -> float:
        """Mean over the cases that have one; NaN without."""
        found = [value for value in self.case_ece.values() if not math.isnan(value)]
        return math.fsum(found) / len(found) if found else math.nan


def calibrate_case(
    case: Prepared, truth: Volume, probabilities: np.ndarray, labels: LabelConfig
) -> StoredCalibration:
    """Count one case.

    Args:
        case: as it was predicted.
        truth: its label map on the source's grid, in the values of the label files.
        probabilities: (num_classes, *S) on the prepared grid.
        labels: values and names of the classes.

    Raises:
        DataError: the truth holds a value that is neither among the classes nor ignored.
    """
    check_label_values(truth, labels.values, labels.ignore)
    classes = case.grid.prepare_label(truth.array, labels.values, labels.ignore)
    ignored = IGNORED if labels.ignore else None
    regions = calibrate(probabilities, classes, case.spacing, ignored=ignored)
    ece = regions.near.top.ece
    return StoredCalibration(labels.values, labels.names, regions, {case.case_id: ece})


def write_calibration(path: Path, stored: StoredCalibration) -> None:
    """Write counts, and what follows from them, as JSON."""
    content = {
        "bins": NUM_BINS,
        "margin_mm": MARGIN_MM,
        "labels": list(stored.labels),
        "names": list(stored.names),
        "cases": {case: or_none(value) for case, value in stored.case_ece.items()},
        "mean_case_ece": or_none(stored.mean_case_ece),
        "regions": {name: _region(getattr(stored.regions, name)) for name in _REGIONS},
    }
    write_document(path, FORM, content)


def read_calibration(path: Path) -> StoredCalibration:
    """Read what ``write_calibration`` wrote.

    Raises:
        DataError: the file is missing, damaged, or counted with other bins.
    """
    content = parse_json(path)
    refuse_newer(content, FORM, path)
    try:
        marks = (content["schema"], content["bins"], content["margin_mm"])
        if marks != (FORM, NUM_BINS, MARGIN_MM):
            raise ValueError(f"schema, bins and margin are {marks}")
        labels = tuple(int(value) for value in content["labels"])
        regions = {}
        for name in _REGIONS:
            stored = content["regions"][name]
            classes = tuple(reliability_from_json(one) for one in stored["classes"])
            if len(classes) != len(labels):
                raise ValueError(f"{len(classes)} classes of {len(labels)} are counted")
            regions[name] = Calibration(reliability_from_json(stored["top"]), classes)
        return StoredCalibration(
            labels,
            tuple(str(name) for name in content["names"]),
            Regions(**regions),
            {
                str(case): math.nan if value is None else float(value)
                for case, value in content["cases"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path} is not calibration that this version wrote ({reason}); delete it, and the "
            "scores.json beside it if it is a fold's, and go on with voxseg crossval --resume"
        ) from None


def merge_folds(run: Path, num_folds: int) -> StoredCalibration | None:
    """Add up the folds of a cross-validation and write the sum and its picture.

    Returns:
        The sum, or None where a fold has no counts, as those of an earlier version: then nothing
        is written, for a part of the cases would look like all.

    Raises:
        DataError: counts of a fold are damaged.
    """
    paths = [run / f"fold-{number}" / CALIBRATION for number in range(num_folds)]
    if not all(path.is_file() for path in paths):
        return None
    total = read_calibration(paths[0])
    for path in paths[1:]:
        one = read_calibration(path)
        if one.labels != total.labels:
            raise DataError(
                f"{path} counts other classes than {paths[0]}; delete the scores.json of both "
                "folds to count again"
            )
        total = total + one
    write_calibration(run / CALIBRATION, total)
    with replacing(run / PICTURE) as temporary:
        temporary.write_bytes(draw(total))
    return total


def draw(stored: StoredCalibration) -> bytes:
    """Draw the reliability diagram near the foreground as a PNG."""
    near = stored.regions.near
    names = zip(stored.names, near.classes, strict=True)
    return draw_reliability(
        _curve("winning class", near.top),
        [_curve(name, one) for name, one in names],
        title=f"Calibration near the foreground, {in_cases(len(stored.case_ece))} out of fold",
    )


def sentence(stored: StoredCalibration) -> str:
    """Say in one line how far probabilities can be believed."""
    near, whole = stored.regions.near.top, stored.regions.everywhere.top
    return (
        f"calibration near the foreground: ECE {_number(near.ece)}, {_lean(near)} (whole crop: "
        f"ECE {_number(whole.ece)})"
    )


def report_section(stored: StoredCalibration) -> ReportSection:
    """Give what a report says about calibration."""
    near = stored.regions.near
    sentences = (
        "Calibration asks whether probabilities mean what they say: of all voxels that were given "
        "0.8, 80 of 100 should be right. ECE is the mean distance from that, MCE the distance in "
        "the worst bin, which a few voxels may decide; the Brier score is the mean squared error, "
        "0 at best.",
        f"Counted near the foreground (where truth or prediction is foreground, and within "
        f"{MARGIN_MM:g} mm of that), the winning class's probability is {_lean(near.top)}. Most "
        "of the whole crop is easy background, which makes its numbers look better.",
        f"Over {in_cases(len(stored.case_ece))}, each by a network that had not seen it. "
        "Voxels of all cases are counted together, so large cases weigh more; the mean of the "
        f"cases' own ECE is {_number(stored.mean_case_ece)}.",
    )
    alt = "Reliability diagram: accuracy against confidence, and voxels in each bin"
    figure = ReportFigure(draw(stored), alt)
    return ReportSection("Calibration", sentences, (figure,), (_table(stored),))


def _table(stored: StoredCalibration) -> ReportTable:
    rows = []
    for name, title in _REGIONS.items():
        region: Calibration = getattr(stored.regions, name)
        rows.append(_row(title, "winning class", region.top, region.brier))
        for label, one in zip(stored.names, region.classes, strict=True):
            rows.append(_row(title, label, one, one.brier))
    columns = ("region", "class", "voxels", "ECE", "MCE", "confidence - accuracy", "Brier")
    note = "Brier of the winning class's row: summed over all classes, 0 to 2."
    return ReportTable("Calibration by region and class", columns, rows, note)


def _row(region: str, name: str, one: Reliability, brier: float) -> Sequence[str]:
    lean = "-" if math.isnan(one.overconfidence) else f"{one.overconfidence:+.4f}"
    voxels = f"{one.num_voxels:,}"
    return (region, name, voxels, _number(one.ece), _number(one.mce), lean, _number(brier))


def _region(region: Calibration) -> dict[str, Any]:
    return {
        "brier": or_none(region.brier),
        "classwise_ece": or_none(region.classwise_ece),
        "top": reliability_to_json(region.top),
        "classes": [reliability_to_json(one) for one in region.classes],
    }


def _curve(name: str, one: Reliability) -> ReliabilityCurve:
    return ReliabilityCurve(name, one.voxels, one.mean_confidence, one.accuracy, one.ece)


def _lean(one: Reliability) -> str:
    """Say which way the errors go, where they go one way."""
    lean = one.overconfidence
    if math.isnan(lean):
        return "not defined (no voxel)"
    if abs(lean) < 0.5 * one.ece or abs(lean) < 0.0005:
        return f"neither too high nor too low throughout ({lean:+.4f} on average)"
    return f"too {'high' if lean > 0 else 'low'} by {abs(lean):.4f} on average"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
