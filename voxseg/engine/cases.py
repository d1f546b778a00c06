"""Prepared cases of a data set: in memory, or mapped from files past a budget or for workers.

Photographs are prepared when they are needed (``lazy_cases``).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from voxseg.data.layouts import Case
from voxseg.data.mapped import map_array
from voxseg.data.prepare import Prepared
from voxseg.engine.config import Config
from voxseg.engine.free_memory import free_gb
from voxseg.engine.lazy_cases import Kept, LazyCases, num_bytes, prepare
from voxseg.engine.ranks import ALONE, Ranks
from voxseg.engine.workers import Workers
from voxseg.errors import DataError

_SHARE_OF_FREE_MEMORY = 0.4


def prepare_cases(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    notify: Callable[[str], None],
    *,
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> Sequence[Prepared]:
    """Prepare all cases, in order; of photographs, only look at each.

    Every case is tried, so that one error names all the files that are wrong.

    Args:
        cases: their files.
        config: what decides the arrays.
        folder: for arrays that are mapped from files: all of them with workers or several ranks,
            so that processes share one copy, else those past a budget of memory.
        notify: told which case is at hand, and of workers that died.
        workers: processes; 0 prepares here.
        ranks: the processes that train together; each prepares a share and gets all.
    """
    budget = _SHARE_OF_FREE_MEMORY * free_gb(torch.device("cpu")) * 1e9
    if cases[0].is_image:
        notify(f"checking {len(cases)} photographs")
        # Each process and each of its workers keeps some for itself.
        photographs = LazyCases(cases, config, Kept(budget / ranks.size / (1 + workers)))
        problems = ranks.together(photographs.check)
        if problems:
            raise ranks.agreed(DataError("\n".join(problems)))
        return photographs
    shared = workers > 0 or ranks.size > 1
    share = cases[ranks.rank :: ranks.size]
    make = _Prepare(tuple(share), config, folder if shared else None)
    answers: list[Prepared | str] = []
    keys = range(len(share))
    with Workers(make, keys, workers, describe=make.describe, folder=folder, say=notify) as made:
        for number, case in enumerate(share):
            notify(f"preparing {case.case_id} ({number * ranks.size + 1} of {len(cases)})")
            answer = next(made)
            if isinstance(answer, Prepared) and not shared:
                budget -= num_bytes(answer)
                answer = answer if budget > 0 else _in_files(answer, folder)
            answers.append(answer)
    shares = ranks.gather(answers)
    found = [shares[n % ranks.size][n // ranks.size] for n in range(len(cases))]
    problems = [one for one in found if isinstance(one, str)]
    if problems:
        raise ranks.agreed(DataError("\n".join(problems)))
    return [one for one in found if isinstance(one, Prepared)]


def forget_prepared(folder: Path) -> None:
    """Remove the files of a finished run's prepared cases."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Prepare:
    """Prepare a case by its number, here or in a worker."""

    cases: tuple[Case, ...]
    config: Config
    folder: Path | None
    """For the arrays; None keeps them in memory."""

    def __call__(self, number: int) -> Prepared | str:
        """Give the prepared case, or the sentence that says what is wrong with its files."""
        try:
            case = prepare(self.cases[number], self.config)
        except DataError as error:
            return str(error)
        return case if self.folder is None else _in_files(case, self.folder)

    def describe(self, number: int) -> str:
        case = self.cases[number]
        files = [*case.images, *([case.label] if case.label else [])]
        return f"preparing {case.case_id} ({', '.join(map(str, files))})"


def _in_files(case: Prepared, folder: Path) -> Prepared:
    def mapped(name: str, array: np.ndarray) -> np.ndarray:
        return map_array(array, folder / f"{case.case_id}-{name}.raw")

    label, superpixels = case.label, case.superpixels
    return replace(
        case,
        image=mapped("image", case.image),
        label=None if label is None else mapped("label", label),
        superpixels=None if superpixels is None else mapped("superpixels", superpixels),
    )
