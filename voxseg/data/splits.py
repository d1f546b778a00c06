"""Training and validation cases: folds, a holdout, and the file that keeps them.

A split depends on the case ids and the seed, not on the order in which files were found. The file
is JSON of the form ``voxseg.split/1``; a file without the form's name or without the hash is read,
and so is nnU-Net's ``splits_final.json`` (the list of folds alone).
"""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.case_lists import parse_json
from voxseg.documents import refuse_newer, write_document
from voxseg.errors import DataError, UsageError
from voxseg.schemas import SPLIT


@dataclass(frozen=True)
class Fold:
    """Ids of the cases to train on and of those to validate or predict."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def kfold(case_ids: Sequence[str], folds: int, seed: int) -> tuple[Fold, ...]:
    """Deal the cases into folds whose sizes differ by at most one.

    Args:
        case_ids: Each once, in any order.
        folds: From 2 to the number of cases (leave one out).
        seed: Of the shuffle.

    Returns:
        One fold for each part; every case is in exactly one ``val``. Ids sorted.

    Raises:
        UsageError: Too few or too many folds.
    """
    ids = _unique(case_ids)
    if not 2 <= folds <= len(ids):
        raise UsageError(
            f"{folds} folds of {len(ids)} cases are not possible; choose from 2 to {len(ids)} folds"
            if len(ids) > 1
            else f"{len(ids)} case cannot be divided into folds; give at least two"
        )
    shuffled = _shuffled(ids, seed)
    return tuple(_fold(ids, shuffled[index::folds]) for index in range(folds))


def grouped_kfold(groups: Mapping[str, str], folds: int, seed: int) -> tuple[Fold, ...]:
    """Deal whole groups into folds: cases of one patient or scanner are never on both sides.

    Large groups are dealt first, each to the fold with fewest cases, so that folds are about as
    large as each other.

    Args:
        groups: Case id -> group.
        folds: From 2 to the number of groups.
        seed: Of the shuffle between groups of one size.

    Raises:
        UsageError: There are fewer groups than folds.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(groups):
        members.setdefault(groups[case], []).append(case)
    if not 2 <= folds <= len(members):
        raise UsageError(
            f"{folds} folds of {len(members)} groups are not possible; a group stays whole, so "
            f"choose from 2 to {len(members)} folds"
            if len(members) > 1
            else "all cases belong to one group, which cannot be divided; check the groups' file"
        )
    order = sorted(_shuffled(sorted(members), seed), key=lambda name: -len(members[name]))
    parts: list[list[str]] = [[] for _ in range(folds)]
    for name in order:
        min(parts, key=len).extend(members[name])
    ids = sorted(groups)
    return tuple(_fold(ids, part) for part in parts)


def stratified_kfold(strata: Mapping[str, str], folds: int, seed: int) -> tuple[Fold, ...]:
    """Give every fold its share of each stratum: of each site, or of small and large lesions.

    Args:
        strata: Case id -> stratum.
        folds: From 2 to the number of cases.
        seed: Of the shuffle within strata.

    Returns:
        Folds whose sizes, and whose cases of any stratum, differ by at most one.
    """
    ids = _unique(tuple(strata))
    kfold(ids, folds, seed)  # refuses what cannot be dealt
    dealt = []
    for name in sorted(set(strata.values())):
        dealt += _shuffled([case for case in ids if strata[case] == name], seed)
    # One stratum after the other goes round the folds, and the next goes on where it stopped.
    return tuple(_fold(ids, dealt[index::folds]) for index in range(folds))


def strata_by_volume(volumes: Mapping[str, float], folds: int) -> dict[str, str]:
    """Make strata of as many cases as there are folds, by rising volume."""
    order = sorted(volumes, key=lambda case: (volumes[case], case))
    width = len(str(len(order) // folds))
    return {case: f"{rank // folds:0{width}}" for rank, case in enumerate(order)}


def holdout(case_ids: Sequence[str], fraction: float, seed: int) -> Fold:
    """Set a fraction of the cases apart, at least one, and leave at least one to train on.

    Raises:
        UsageError: The fraction is not between 0 and 1.
        DataError: There are fewer than two cases.
    """
    ids = _unique(case_ids)
    if not 0 < fraction < 1:
        raise UsageError(f"the validation fraction must be between 0 and 1, got {fraction:g}")
    if len(ids) < 2:
        raise DataError(
            f"{len(ids)} case cannot be divided into training and validation; give at least two"
        )
    count = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    return _fold(ids, _shuffled(ids, seed)[:count])


def split_hash(folds: Sequence[Fold]) -> str:
    """Return the SHA-256 of the folds in hexadecimal; the order within a fold does not count."""
    return hashlib.sha256(json.dumps(_plain(folds)).encode()).hexdigest()


def write_split(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds and their hash; the file is complete or not there.

    Raises:
        VoxsegError: It cannot be written.
    """
    write_document(path, SPLIT, {"folds": _plain(folds), "hash": split_hash(folds)})


def read_split(path: Path) -> tuple[Fold, ...]:
    """Read folds and check them against their hash, if they have one.

    Raises:
        DataError: The file holds no folds, a fold trains on what it validates, the folds were
            changed after the hash was written, or a newer version wrote it.
    """
    content = parse_json(path)
    refuse_newer(content, SPLIT, path)
    entries = content.get("folds") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f'{path} holds no folds; it needs {{"folds": [{{"train": [], "val": []}}]}}'
        )
    folds = tuple(_read_fold(path, index, entry) for index, entry in enumerate(entries))
    written = content.get("hash") if isinstance(content, dict) else None
    if written is not None and written != split_hash(folds):
        raise DataError(
            f'the folds in {path} were changed after it was written; remove its "hash" if that was '
            "meant"
        )
    return folds


def check_split(folds: Sequence[Fold], case_ids: Sequence[str], path: Path) -> None:
    """Check that folds fit a data set.

    Args:
        folds: As read.
        case_ids: Cases that exist.
        path: File of the folds, for the message.

    Raises:
        DataError: A fold names a case that does not exist, or two folds validate the same case.
    """
    known = set(case_ids)
    for fold in folds:
        missing = sorted((set(fold.train) | set(fold.val)) - known)
        if missing:
            close = difflib.get_close_matches(missing[0], sorted(known), n=1)
            hint = f"did you mean {close[0]}?" if close else "check that it belongs to this data"
            raise DataError(
                f"{path} names the case {missing[0]}, which is not among the {len(known)} cases "
                f"found; {hint}"
            )
    counts = Counter(case for fold in folds for case in fold.val)
    twice = [case for case, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{path} validates the case {twice[0]} in {counts[twice[0]]} folds; a case may be out "
            "of fold only once"
        )


def _read_fold(path: Path, index: int, entry: Any) -> Fold:
    parts = [entry.get(key) if isinstance(entry, dict) else None for key in ("train", "val")]
    for part in parts:
        if not isinstance(part, list) or not all(isinstance(case, str) for case in part):
            raise DataError(f'fold {index} of {path} needs the lists "train" and "val" of case ids')
    train, val = (tuple(part) for part in parts if part is not None)
    if not train:
        raise DataError(f'fold {index} of {path} has an empty "train"; add cases')
    both = sorted(set(train) & set(val))
    if both:
        raise DataError(
            f"fold {index} of {path} trains on {both[0]} and validates it too; remove it from one"
        )
    return Fold(train, val)


def _unique(case_ids: Sequence[str]) -> list[str]:
    ids = sorted(case_ids)
    if len(set(ids)) < len(ids):
        raise ValueError("case_ids must be unique")
    return ids


def _shuffled(ids: list[str], seed: int) -> list[str]:
    order = np.random.default_rng(seed).permutation(len(ids))
    return [ids[index] for index in order]


def _fold(ids: list[str], val: list[str]) -> Fold:
    chosen = set(val)
    return Fold(tuple(case for case in ids if case not in chosen), tuple(sorted(val)))


def _plain(folds: Sequence[Fold]) -> list[dict[str, list[str]]]:
    return [{"train": sorted(fold.train), "val": sorted(fold.val)} for fold in folds]
