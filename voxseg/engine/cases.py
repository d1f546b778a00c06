"""Prepared cases of a data set, in memory or, past a budget, memory-mapped from the run folder."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from voxseg.data.layouts import Case
from voxseg.data.prepare import Prepared, prepare_case
from voxseg.engine.config import Config
from voxseg.engine.free_memory import free_gb
from voxseg.errors import DataError

_SHARE_OF_FREE_MEMORY = 0.4


def prepare_cases(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    notify: Callable[[str], None],
) -> list[Prepared]:
    """Prepare all cases; those past the memory budget are memory-mapped from ``folder``.

    Every case is tried, so that one error names all the files that are wrong.
    """
    budget = _SHARE_OF_FREE_MEMORY * free_gb(torch.device("cpu")) * 1e9
    supervoxels = config.supervoxels if config.model.design != "V0" else None
    prepared: list[Prepared] = []
    problems: list[str] = []
    for number, case in enumerate(cases, 1):
        notify(f"preparing {case.case_id} ({number} of {len(cases)})")
        try:
            one = prepare_case(case, config.data, config.labels.values, supervoxels)
        except DataError as error:
            problems.append(str(error))
            continue
        budget -= _bytes(one)
        prepared.append(one if budget > 0 else _on_disk(one, folder))
    if problems:
        raise DataError("\n".join(problems))
    return prepared


def forget_prepared(folder: Path) -> None:
    """Remove the memory-mapped copies of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)


def _bytes(case: Prepared) -> int:
    arrays = (case.image, case.label, case.superpixels)
    return sum(a.nbytes for a in arrays if a is not None)


def _on_disk(case: Prepared, folder: Path) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)

    def mapped(name: str, array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        path = folder / f"{case.case_id}-{name}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]  # numpy types it Any

    image = mapped("image", case.image)
    assert image is not None
    return replace(
        case,
        image=image,
        label=mapped("label", case.label),
        superpixels=mapped("superpixels", case.superpixels),
    )
