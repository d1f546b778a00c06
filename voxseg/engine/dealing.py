"""How a data set is dealt into folds: at random, by group, by stratum, one by one, or by a file.

The result is an artefact, ``split.json``, with a hash that names it in every manifest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.case_lists import CASE_COLUMNS, read_table
from voxseg.data.check import CheckReport
from voxseg.data.splits import (
    Fold,
    check_split,
    grouped_kfold,
    kfold,
    read_split,
    strata_by_volume,
    stratified_kfold,
    write_split,
)
from voxseg.errors import DataError, UsageError

VOLUME = "volume"
"""What ``Dealing.strata`` says to stratify by the volume of all foreground classes."""


@dataclass(frozen=True, kw_only=True)
class Dealing:
    """Which folds are wanted. At most one of the four ways beside a plain shuffle."""

    folds: int = 3
    leave_one_out: bool = False
    """As many folds as cases."""
    groups: Path | None = None
    """CSV with the columns case and group: a group stays whole."""
    strata: str = ""
    """CSV with the columns case and stratum, each fold gets its share of each; or "volume"."""
    split: Path | None = None
    """A split file, voxseg's or nnU-Net's ``splits_final.json``."""

    def __post_init__(self) -> None:
        ways = {
            "--leave-one-out": self.leave_one_out,
            "--groups": self.groups is not None,
            "--strata": bool(self.strata),
            "--split": self.split is not None,
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} exclude each other; choose one")


def deal(
    dealing: Dealing, case_ids: Sequence[str], report: CheckReport, seed: int
) -> tuple[Fold, ...]:
    """Make the folds.

    Args:
        dealing: which.
        case_ids: all cases.
        report: of the data set, for volumes.
        seed: of the shuffle.

    Raises:
        UsageError: the folds cannot be made of these cases.
        DataError: a file is missing, does not name every case, or holds out nothing.
    """
    if dealing.split is not None:
        return _read(dealing.split, case_ids)
    if dealing.leave_one_out:
        return kfold(case_ids, len(case_ids), seed)
    if dealing.groups is not None:
        groups = _column(dealing.groups, ("group", "patient", "site", "scanner"), case_ids)
        return grouped_kfold(groups, dealing.folds, seed)
    if dealing.strata == VOLUME:
        strata = strata_by_volume(_volumes(report), dealing.folds)
        return stratified_kfold(strata, dealing.folds, seed)
    if dealing.strata:
        strata = _column(Path(dealing.strata), ("stratum", "site", "class"), case_ids)
        return stratified_kfold(strata, dealing.folds, seed)
    return kfold(case_ids, dealing.folds, seed)


def _read(path: Path, case_ids: Sequence[str]) -> tuple[Fold, ...]:
    parts = read_split(path)
    check_split(parts, case_ids, path)
    empty = [number for number, part in enumerate(parts) if not part.val]
    if empty:
        raise DataError(
            f"fold {empty[0]} of {path} holds out no case, so it has nothing to score; add cases "
            'to its "val"'
        )
    return parts


def _volumes(report: CheckReport) -> dict[str, float]:
    """Millilitres of all label values but 0, by case."""
    return {
        case.case_id: sum(n for value, n in case.label_voxels.items() if value)
        * math.prod(case.spacing)
        / 1000
        for case in report.cases
    }


def _column(path: Path, names: Sequence[str], case_ids: Sequence[str]) -> dict[str, str]:
    """Read what a table says of every case; the column is the first of ``names`` that it has."""
    header, rows = read_table(path)
    case = next((header[name] for name in CASE_COLUMNS if name in header), None)
    value = next((header[name] for name in names if name in header), None)
    if case is None or value is None:
        raise DataError(
            f"{path} needs a header with the columns case,{names[0]} and a row for each case"
        )
    found: dict[str, str] = {}
    for row in rows:
        name, content = (row[case] or "").strip(), (row[value] or "").strip()
        if found.setdefault(name, content) != content:
            raise DataError(f"{path} says two things of the case {name}; keep one row of each")
    missing = [name for name in case_ids if not found.get(name)]
    if missing:
        raise DataError(
            f"{path} says nothing of {len(missing)} of {len(case_ids)} cases, the first "
            f"{missing[0]}; add a row for each"
        )
    return {name: found[name] for name in case_ids}


def write_dealt(
    data: Path, labels: Path | None, output: Path, dealing: Dealing, seed: int, overwrite: bool
) -> tuple[Fold, ...]:
    """Deal the cases of a data set and write the split file.

    Raises:
        UsageError: the file exists and ``overwrite`` is not set.
        DataError: the data set is not fit for training.
    """
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another -o, or replace it with --overwrite")
    from voxseg.engine.train import examine  # torch

    dataset, report = examine(data, labels)
    report.raise_for_errors()
    parts = deal(dealing, tuple(case.case_id for case in dataset.cases), report, seed)
    write_split(output, parts)
    return parts
