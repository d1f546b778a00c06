"""Prepared cases of a data set, in memory or, past a budget, memory-mapped from the run folder."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxseg.data.layouts import Case
from voxseg.data.prepare import Prepared, prepare_case
from voxseg.engine.config import Config
from voxseg.engine.inference import free_gb
from voxseg.engine.ranks import ALONE, Ranks
from voxseg.errors import DataError
from voxseg.files import replacing

_SHARE_OF_FREE_MEMORY = 0.4
_ARRAYS = ("image", "label", "superpixels")


def prepare_cases(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    notify: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> list[Prepared]:
    """Prepare all cases; those past the memory budget are memory-mapped from ``folder``.

    Every case is tried, so that one error names all the files that are wrong. Of several processes
    each prepares a share, and all read all cases from ``folder``: in memory they are there once.
    """
    if ranks.size > 1:
        return _prepare_together(cases, config, folder, notify, ranks)
    budget = _SHARE_OF_FREE_MEMORY * free_gb(torch.device("cpu")) * 1e9
    prepared: list[Prepared] = []
    problems: list[str] = []
    for number, case in enumerate(cases, 1):
        notify(f"preparing {case.case_id} ({number} of {len(cases)})")
        try:
            one = _prepare(case, config)
        except DataError as error:
            problems.append(str(error))
            continue
        budget -= _bytes(one)
        prepared.append(one if budget > 0 else _on_disk(one, folder))
    if problems:
        raise DataError("\n".join(problems))
    return prepared


def _prepare_together(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    notify: Callable[[str], None],
    ranks: Ranks,
) -> list[Prepared]:
    share: list[Prepared | str] = []
    for number, case in enumerate(cases[ranks.rank :: ranks.size]):
        notify(f"preparing {case.case_id} ({number * ranks.size + 1} of {len(cases)})")
        try:
            share.append(_without_arrays(_on_disk(_prepare(case, config), folder)))
        except DataError as error:
            share.append(str(error))
    shares = ranks.gather(share)
    found = [shares[n % ranks.size][n // ranks.size] for n in range(len(cases))]
    problems = [one for one in found if isinstance(one, str)]
    if problems:
        raise ranks.agreed(DataError("\n".join(problems)))
    return [_mapped(one, folder) for one in found if isinstance(one, Prepared)]


def _prepare(case: Case, config: Config) -> Prepared:
    supervoxels = config.supervoxels if config.model.design != "V0" else None
    return prepare_case(case, config.data, config.labels.values, supervoxels)


def forget_prepared(folder: Path) -> None:
    """Remove the memory-mapped copies of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)


def _bytes(case: Prepared) -> int:
    arrays = (case.image, case.label, case.superpixels)
    return sum(a.nbytes for a in arrays if a is not None)


def _on_disk(case: Prepared, folder: Path) -> Prepared:
    for name in _ARRAYS:
        array = getattr(case, name)
        if array is not None:
            path = _file(case, name, folder)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, array)
    return _mapped(case, folder)


def _mapped(case: Prepared, folder: Path) -> Prepared:
    """Take the arrays from ``folder``; what is changed in memory never reaches the files."""
    arrays = {
        name: np.load(_file(case, name, folder), mmap_mode="c")
        for name in _ARRAYS
        if getattr(case, name) is not None
    }
    return replace(case, **arrays)


def _without_arrays(case: Prepared) -> Prepared:
    """Keep of each array only that there is one: enough to tell another process of the case."""
    nothing = np.empty(0, np.uint8)
    kept: dict[str, Any] = {name: nothing for name in _ARRAYS if getattr(case, name) is not None}
    return replace(case, **kept)


def _file(case: Prepared, name: str, folder: Path) -> Path:
    return folder / f"{case.case_id}-{name}.npy"
