"""Scores of cases as runs keep them: read, named apart, and checked for being comparable.

A run is a cross-validation's folder, a folder that ``voxseg evaluate`` wrote, or one of their
files: ``metrics.csv``, or ``metrics.json`` with the same rows.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxseg.data.case_lists import parse_json
from voxseg.data.splits import read_split
from voxseg.documents import refuse_newer
from voxseg.errors import DataError, UsageError
from voxseg.metrics.summary import IMAGE_METRICS, METRICS, PIXEL_METRICS
from voxseg.schemas import METRICS as FORM

BACKGROUND = 0
_FILES = ("metrics.csv", "metrics.json")
_KEYS = ("case", "class", "label")
_MOST_NAMED = 5
_TRUTH_TOLERANCE = 1e-6  # of a true volume; CSV keeps all digits

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
Folds = frozenset[tuple[frozenset[str], frozenset[str]]]


@dataclass(frozen=True)
class RunScores:
    """What one run says about its cases."""

    name: str
    """Folder's or file's name, with as many folders before it as tell the runs apart."""
    path: Path
    """File that the scores come from."""
    scores: Scores
    """Case -> class value -> metric -> score, NaN where undefined; no background of volumes."""
    class_names: Mapping[int, str]
    metrics: tuple[str, ...]
    folds: Folds | None
    """Training and held-out cases of every fold, in no order; None for a run without a split."""
    tolerance_mm: float | None
    """Of surface Dice; None where the run does not say."""
    is_images: bool = False
    """Whether the cases are photographs, of which class 0 is one like the others."""
    pooled_iou: float | None = None
    """Mean IoU over all pixels of photographs; None where the run does not say."""

    totals: Mapping[str, float] = field(default_factory=dict)
    """Scores of the whole set, of other tasks than segmentation."""

    @property
    def headline(self) -> str:
        """The column by which runs are compared."""
        known = "iou" if self.is_images else "dice"
        return known if known in self.metrics or not self.metrics else self.metrics[0]

    @property
    def labels(self) -> tuple[int, ...]:
        """Classes that are compared; every case has them all."""
        return tuple(next(iter(self.scores.values())))


@dataclass(frozen=True)
class Common:
    """What all runs have, and what is to be said about the rest."""

    cases: tuple[str, ...]
    labels: tuple[int, ...]
    warnings: tuple[str, ...]


def read_runs(paths: Sequence[Path]) -> tuple[RunScores, ...]:
    """Read two or more runs.

    Raises:
        UsageError: There are fewer than two, or one is named twice.
        DataError: A run holds no scores of cases, or they are damaged.
    """
    if len(paths) < 2:
        raise UsageError(f"a comparison needs two runs or more, got {len(paths)}; name another")
    files = [_find(Path(path)) for path in paths]
    resolved = [file.resolve() for file in files]
    for index, file in enumerate(resolved):
        if file in resolved[:index]:
            raise UsageError(f"{paths[index]} is named twice; a run is not compared with itself")
    return tuple(
        _read(file, name) for file, name in zip(files, _names(resolved), strict=True)
    )  # fmt: skip


def read_run(path: Path) -> RunScores:
    """Read one run; it raises what ``read_runs`` does."""
    file = _find(path)
    return _read(file, _names([file.resolve()])[0])


def find_common(runs: Sequence[RunScores], metric: str, *, allow_missing: bool) -> Common:
    """Find the cases and classes that all runs scored, and check that they can be compared.

    Args:
        runs: Two or more.
        metric: Column to compare.
        allow_missing: Leave out what a run lacks, with a warning, instead of refusing.

    Raises:
        UsageError: A run has no column ``metric``.
        DataError: Cases or classes differ and may not, nothing is common, or surface Dice was
            measured with different tolerances.
    """
    if len({run.is_images for run in runs}) > 1:
        volumes, images = (next(r for r in runs if r.is_images == kind) for kind in (False, True))
        raise DataError(
            f"{images.path} scores photographs but {volumes.path} volumes; compare runs of one kind"
        )
    for run in runs:
        if metric not in run.metrics:
            raise UsageError(
                f"{run.path} has no column {metric}; --metric can be {', '.join(run.metrics)}"
            )
    tolerances = {run.tolerance_mm for run in runs if run.tolerance_mm is not None}
    if metric == "surface_dice" and len(tolerances) > 1:
        listed = " and ".join(f"{value:g} mm" for value in sorted(tolerances))
        raise DataError(
            f"surface Dice was measured with tolerances of {listed}; score the runs again with "
            "one --tolerance-mm"
        )
    warnings: list[str] = []
    cases = _common(runs, "case", allow_missing, warnings)
    labels = _common(runs, "class", allow_missing, warnings)
    if any(run.folds != runs[0].folds for run in runs):
        warnings.append(_other_splits(runs))
    warnings += _other_names(runs, labels) + _other_truths(runs, cases, labels)
    return Common(cases, labels, tuple(warnings))


def _find(path: Path) -> Path:
    """Return the file with the scores of a run."""
    if path.is_file():
        if path.suffix.lower() not in {".csv", ".json"}:
            raise DataError(f"{path} is no table of scores; name a run folder, or its metrics.csv")
        return path
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}; check the name")
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    if (path / "fold-0").is_dir() or any(path.glob("seed-*/fold-0")):
        raise DataError(
            f"{path} is a cross-validation that has not finished; finish it with voxseg crossval "
            "--resume"
        )
    raise DataError(
        f"{path} holds no metrics.csv; name the folder of a cross-validation, or one that voxseg "
        "evaluate -o wrote"
    )


def _names(files: Sequence[Path]) -> list[str]:
    """Name runs by the shortest ends of their paths that differ."""
    parts = [(file.parent if file.name in _FILES else file.with_suffix("")).parts for file in files]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]  # metrics.csv and metrics.json of one folder


def _read(file: Path, name: str) -> RunScores:
    is_json = file.suffix.lower() == ".json"
    rows = _json_rows(file) if is_json else _csv_rows(file)
    header = list(rows[0]) if rows else []
    lacking = [key for key in ("case", "label") if any(key not in row for row in rows or [{}])]
    if lacking:
        raise DataError(
            f'{file} holds no scores of cases: it has no "{lacking[0]}"; the metrics.csv of a '
            "cross-validation or of voxseg evaluate -o has a row for each case and class (a "
            "training run's has not: score its predictions with voxseg evaluate first)"
        )
    metrics = tuple(key for key in header if key not in _KEYS)
    is_images = set(PIXEL_METRICS) <= set(metrics)
    if is_images:  # JSON has the columns of volumes, too, all undefined
        metrics = tuple(key for key in metrics if key in IMAGE_METRICS or key not in METRICS)
    scores: dict[str, dict[int, dict[str, float]]] = {}
    names: dict[int, str] = {}
    for number, row in enumerate(rows, 1 if is_json else 2):
        where = f"{'row' if is_json else 'line'} {number} of {file}"
        case, label = str(row["case"]), _integer(row["label"], where)
        if label in scores.setdefault(case, {}):
            raise DataError(f"{where} scores the case {case} twice for class {label}; keep one")
        scores[case][label] = {key: _number(row.get(key), key, where) for key in metrics}
        names.setdefault(label, str(row.get("class") or f"class {label}"))
    # A file that stands alone may have neighbours that are not about it.
    folder = file.parent if file.name in _FILES else None
    facts = _facts(folder)
    return RunScores(
        name, file, _even(scores, file, is_images), names, metrics, _folds(folder),
        _float(facts.get("tolerance_mm")), is_images,
        _float((facts.get("pooled") or {}).get("mean_iou")), _totals(facts),
    )  # fmt: skip


def _csv_rows(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); write it again") from None
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():  # too many fields, or too few
            raise DataError(
                f"line {number} of {file} does not have as many fields as the header; the file "
                "may have been cut: write it again"
            )
    return rows


def _json_rows(file: Path) -> list[dict[str, Any]]:
    content = parse_json(file)
    refuse_newer(content, FORM, file)
    rows = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f'{file} holds no scores of cases: it has no list "cases"; name the metrics.json of a '
            "cross-validation, or one that voxseg evaluate -o wrote"
        )
    return rows


def _integer(value: object, where: str) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise DataError(f"{where} has the label {value!r}, which is no whole number") from None


def _number(value: object, key: str, where: str) -> float:
    """Read a score; an empty field is undefined."""
    if value is None or value == "":
        return math.nan
    try:
        number = float(str(value))
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise DataError(
            f"{where} has the {key} {value!r}, which is no number; leave it empty where undefined"
        )
    return number


def _even(
    scores: Mapping[str, Mapping[int, Mapping[str, float]]], file: Path, is_images: bool
) -> Scores:
    """Check that every case has the same classes, and leave the background of volumes out."""
    left_out = set() if is_images else {BACKGROUND}
    labels = sorted({label for classes in scores.values() for label in classes} - left_out)
    if not labels:
        raise DataError(f"{file} scores no foreground class, so there is nothing to compare")
    for case, classes in scores.items():
        lacking = [label for label in labels if label not in classes]
        if lacking:
            raise DataError(
                f"{file} has no row of class {lacking[0]} for the case {case}; add it, with empty "
                "scores if the case has no such class"
            )
    return {case: {label: classes[label] for label in labels} for case, classes in scores.items()}


def _folds(folder: Path | None) -> Folds | None:
    if folder is None or not (folder / "split.json").is_file():
        return None
    folds = read_split(folder / "split.json")
    return frozenset((frozenset(fold.train), frozenset(fold.val)) for fold in folds)


def _facts(folder: Path | None) -> Mapping[str, Any]:
    """What the run's metrics.json says beside the scores of cases; empty where there is none."""
    file = folder / "metrics.json" if folder else None
    if file is None or not file.is_file():
        return {}
    try:
        content = parse_json(file)
    except DataError:
        return {}  # the scores themselves are in metrics.csv
    refuse_newer(content, FORM, file)
    return content if isinstance(content, dict) else {}


def _totals(facts: Mapping[str, Any]) -> dict[str, float]:
    """Scores of the whole set, where there are any."""
    found = facts.get("totals")
    known = {name: _float(value) for name, value in found.items()} if found else {}
    return {name: value for name, value in known.items() if value is not None}


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _common(
    runs: Sequence[RunScores], what: str, allow_missing: bool, warnings: list[str]
) -> tuple[Any, ...]:
    """Cases or classes that all runs have, in the order of the first."""
    have = [list(run.scores) if what == "case" else list(run.labels) for run in runs]
    everything = list(dict.fromkeys(item for items in have for item in items))
    common = [item for item in everything if all(item in items for items in have)]
    if not common:
        raise DataError(
            f"{' and '.join(run.name for run in runs)} have no {what} in common; compare runs on "
            "the same data"
        )
    dropped = [item for item in everything if item not in common]
    if dropped and not allow_missing:
        index, lost = next(
            (index, [item for item in everything if item not in items])
            for index, items in enumerate(have)
            if len(items) < len(everything)
        )
        raise DataError(
            f"{runs[index].path} has no scores of {_listed(lost, what)}, which another run has; "
            "add them, or compare what all have with --allow-missing"
        )
    if dropped:
        warnings.append(
            f"{_listed(dropped, what)} left out, because a run has no scores of "
            f"{'it' if len(dropped) == 1 else 'them'}; {len(common)} compared"
        )
    return tuple(common)


def _other_splits(runs: Sequence[RunScores]) -> str:
    unknown = [run.name for run in runs if run.folds is None]
    if unknown:
        return (
            f"{_listed(unknown, 'run')} without a split.json: whether its cases were trained on "
            "alike is not known"
        )
    other = next(run for run in runs if run.folds != runs[0].folds)
    return (
        f"{runs[0].name} and {other.name} were split differently: a case was predicted after "
        "training on other cases, so a difference may come from the split; repeat one with --split"
    )


def _other_names(runs: Sequence[RunScores], labels: Iterable[int]) -> list[str]:
    for label in labels:
        names = dict.fromkeys(run.class_names[label] for run in runs)
        real = [name for name in names if name != f"class {label}"]
        if len(real) > 1:
            return [f"class {label} is called {' and '.join(real)}; check that it is one class"]
    return []


def _other_truths(
    runs: Sequence[RunScores], cases: Sequence[str], labels: Sequence[int]
) -> list[str]:
    """Say which cases were scored against truths of other sizes."""
    is_images = runs[0].is_images
    key = "truth_pixels" if is_images else "truth_ml"
    if any(key not in run.metrics for run in runs):
        return []
    first = runs[0].scores
    other = [
        case
        for case in cases
        if any(
            _differ(run.scores[case][label][key], first[case][label][key])
            for run in runs[1:]
            for label in labels
        )
    ]
    if not other:
        return []
    sizes = "numbers of true pixels" if is_images else "true volumes"
    return [
        f"the {sizes} of {_listed(other, 'case')} differ between the runs, so they were "
        "scored against different truths; score all against one"
    ]


def _differ(volume: float, other: float) -> bool:
    if math.isnan(volume) or math.isnan(other):
        return False
    return not math.isclose(volume, other, rel_tol=_TRUTH_TOLERANCE)


def _listed(items: Sequence[object], what: str) -> str:
    """Name up to five things: "2 cases (a, b)"."""
    shown = ", ".join(map(str, items[:_MOST_NAMED])) + (", ..." if len(items) > _MOST_NAMED else "")
    plural = {"class": "classes"}.get(what, f"{what}s")
    return f"{len(items)} {what if len(items) == 1 else plural} ({shown})"
