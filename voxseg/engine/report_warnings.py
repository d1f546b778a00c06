"""What a report says first: what failed, what is missing, and which cases to look at.

Every sentence names the cases it is about. Remarks on headers are those of ``voxseg check``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.check import Finding, check_headers
from voxseg.data.check_header import StoredHeader, read_header
from voxseg.data.check_set import FEWEST_FOR_OUTLIERS, usual_values
from voxseg.data.hashes import file_hash
from voxseg.data.reading import is_dicom
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.photo_report import class_warnings
from voxseg.engine.report_sources import CaseFiles
from voxseg.engine.report_tables import foreground
from voxseg.engine.task_scores import TaskEvaluation
from voxseg.errors import DataError
from voxseg.export.report_parts import ReportTable
from voxseg.metrics.summary import in_cases

TINY_VOXELS = 100
"""A true structure of fewer voxels is tiny: a voxel more or less moves its Dice by a percent."""
_OUTLIER_DEVIATIONS = 3.5  # robust standard deviations below the median
_SMALLEST_DEVIATION = 0.01  # of Dice or IoU; a set that varies less counts as varying by that much
_MOST_NAMED = 5
_XFORMS = ("unknown", "scanner", "aligned", "talairach", "mni", "template")


@dataclass(frozen=True)
class Headers:
    """What the files' headers say."""

    table: ReportTable
    warnings: tuple[str, ...]
    voxel_ml: Mapping[str, float]
    """Case -> volume of a voxel; only where a header can be read."""


def not_scored(evaluation: Evaluation | TaskEvaluation) -> list[str]:
    """Say which cases failed, and which lack their prediction or their truth."""
    found = [f"{case} failed: {error}" for case, error in evaluation.failures.items()]
    for names, what in (
        (evaluation.without_prediction, "without a prediction, not scored"),
        (evaluation.without_truth, "without a truth, not scored"),
    ):
        if names:
            short = [Path(name).name for name in names]
            found.append(f"{in_cases(len(names))} {what}: {listed(short)}")
    return found


def score_warnings(evaluation: Evaluation, voxel_ml: Mapping[str, float]) -> list[str]:
    """Say what was not scored, and which scores are not to be taken at face value."""
    found = not_scored(evaluation)
    if evaluation.is_images:  # a photograph need not show every class
        found += class_warnings(evaluation)
    else:
        for label in foreground(evaluation):
            found += _class_warnings(evaluation, label, voxel_ml)
    found += outliers(evaluation.case_means(), evaluation.headline_name)
    return found


def outliers(means: Mapping[str, float], what: str) -> list[str]:
    """Name cases whose mean lies far below the others'; nothing with fewer than five."""
    known = {case: value for case, value in means.items() if not math.isnan(value)}
    if len(known) < FEWEST_FOR_OUTLIERS:
        return []
    values = np.array(list(known.values()))
    middle = float(np.median(values))
    deviation = max(1.4826 * float(np.median(np.abs(values - middle))), _SMALLEST_DEVIATION)
    return [
        f"{case} has a {what} of {value:.3f}, far below the others (median "
        f"{middle:.3f}): look at its picture"
        for case, value in sorted(known.items(), key=lambda item: item[1])
        if (middle - value) / deviation > _OUTLIER_DEVIATIONS
    ]


def volume_outliers(volumes: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Say of each case whose volume of a class is far from the others' what is odd.

    Args:
        volumes: Class name -> case -> volume in ml.

    Returns:
        Case -> one clause for each such class; empty with too few cases to tell.
    """
    words: dict[str, list[str]] = {}
    for name, by_case in volumes.items():
        if len(by_case) < FEWEST_FOR_OUTLIERS:
            continue
        values = np.array(list(by_case.values()))
        is_usual = usual_values(values)
        span = f"{values[is_usual].min():.4g} to {values[is_usual].max():.4g}"
        for case, value, fits in zip(by_case, values, is_usual, strict=True):
            if not fits:
                words.setdefault(case, []).append(f"{value:.4g} ml of {name} (others: {span})")
    return {case: " and ".join(clauses) for case, clauses in words.items()}


def read_headers(files: Mapping[str, CaseFiles]) -> Headers:
    """Read the headers of all cases; of a case without images that of its truth or its mask."""
    rows: list[list[str]] = []
    voxel_ml: dict[str, float] = {}
    cases = []
    for case_id, known in files.items():
        one = known.told
        # The table is about headers of NIfTI; of DICOM it shows that of the mask.
        is_nifti = not one.images or not is_dicom(one.images)
        paths = [path for path in one.images if path.is_file() and is_nifti]
        masks = [path for path in (one.truth, one.prediction) if path and path.is_file()]
        shown = paths or masks[:1]
        for path in shown:
            try:
                header = read_header(path)
            except DataError as error:
                rows.append([case_id, path.name, *("cannot be read",), *("",) * 6])
                if path not in paths:  # of images, the check below says so
                    rows[-1][2] = str(error)
            else:
                rows.append([case_id, *_header_row(header)])
                voxel_ml.setdefault(case_id, _voxel_ml(header))
        truth = one.truth if one.truth and one.truth.is_file() else None
        if paths:
            cases.append(Case(case_id, tuple(paths), truth))
    columns = ("case", "file", "voxels", "mm", "axes", "unit", "qform", "sform", "type")
    note = (
        "As stored. Axes: RAS means that they run to the subject's right, front and top. The "
        "geometry is the sform's if its code is above 0, else the qform's, else voxel sizes alone."
    )
    table = ReportTable("", columns, rows, note, num_texts=2)
    report = check_headers(Dataset("", tuple(cases), {}))
    return Headers(table, tuple(_grouped(report.findings)), voxel_ml)


def missing_files(files: Mapping[str, CaseFiles], *, with_truth: bool) -> list[str]:
    """Say which pictures cannot be drawn as they should."""
    found = []
    for what, paths in (
        ("image", {case: one.images[:1] for case, one in files.items()}),
        ("prediction", {case: (one.prediction,) for case, one in files.items()}),
        ("truth", {case: (one.truth,) for case, one in files.items()}),
    ):
        if what == "truth" and not with_truth:
            continue
        lost = [case for case, names in paths.items() if not any(p and p.is_file() for p in names)]
        if lost:
            first = next((p for p in paths[lost[0]] if p), None)
            where = f"; {first} is not there" if first else ""
            found.append(f"pictures without the {what}, which was not found: {listed(lost)}{where}")
    return found


def changed_files(case_id: str, files: CaseFiles) -> list[str]:
    """Name files of a case that are not to the byte what they were when the run was made."""
    found = []
    for role, path in files.roles.items():
        wanted = files.hashes.get(role)
        if wanted and path and path.is_file() and file_hash(path) != wanted:
            found.append(
                f"the {role} of {case_id}, {path.name}, has changed since the run: its picture may "
                "not fit its scores"
            )
    return found


def listed(names: Sequence[str]) -> str:
    """Name up to five."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _class_warnings(
    evaluation: Evaluation, label: int, voxel_ml: Mapping[str, float]
) -> Iterable[str]:
    """Say where a class is missing or tiny."""
    name = evaluation.class_names[label]
    scores = {case: classes[label] for case, classes in evaluation.scores.items()}
    absent = [case for case, one in scores.items() if one.truth_ml == one.prediction_ml == 0]
    missed = [c for c, one in scores.items() if one.truth_ml > 0 and one.prediction_ml == 0]
    extra = [c for c, one in scores.items() if one.truth_ml == 0 and one.prediction_ml > 0]
    tiny = [
        case
        for case, one in scores.items()
        if case in voxel_ml and 0 < one.truth_ml < (TINY_VOXELS - 0.5) * voxel_ml[case]
    ]
    if absent:
        yield f"{name} is in neither mask of {in_cases(len(absent))}: {listed(absent)}"
    if missed:
        yield f"{name} is not predicted at all in {in_cases(len(missed))}: {listed(missed)}"
    if extra:
        yield f"{name} is predicted but not true in {in_cases(len(extra))}: {listed(extra)}"
    if tiny:
        yield (
            f"{name} has fewer than {TINY_VOXELS} true voxels in {in_cases(len(tiny))}, so its "
            f"scores jump with single voxels: {listed(tiny)}"
        )


def _grouped(findings: Sequence[Finding]) -> Iterable[str]:
    """Say each kind of remark once, errors first, with the number of files that it is true of."""
    order = ("error", "warning", "note")
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda one: order.index(one.severity)):
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    for group in kinds.values():
        first = group[0]
        text = str(first).replace(str(first.path), first.path.name) if first.path else str(first)
        cases = list(dict.fromkeys(one.case_id for one in group if one.case_id))
        more = f" ({len(group)} times, in {listed(cases)})" if len(group) > 1 else ""
        yield f"header: {text}{more}"


def _header_row(header: StoredHeader) -> list[str]:
    lengths = np.linalg.norm(header.affine[:3, :3], axis=0) * header.unit_mm
    dtype = header.get_data_dtype().name
    if header.scaling:
        dtype += " x{:g} {:+g}".format(*header.scaling)
    return [
        header.path.name,
        " x ".join(map(str, header.shape)),
        " x ".join(f"{length:.4g}" for length in lengths),
        header.orientation,
        header.get_xyzt_units()[0],
        _code(int(header.fields["qform_code"])),
        _code(int(header.fields["sform_code"])),
        dtype,
    ]


def _code(code: int) -> str:
    return f"{code} {_XFORMS[code]}" if 0 <= code < len(_XFORMS) else str(code)


def _voxel_ml(header: StoredHeader) -> float:
    return float(abs(np.linalg.det(header.affine[:3, :3])) * header.unit_mm**3 / 1000)
