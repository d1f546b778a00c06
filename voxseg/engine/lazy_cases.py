"""Photographs that are prepared when they are asked for: a data set need not fit into memory.

Volumes are few, and preparing one takes long; a photograph takes a fraction of a second. Nothing is
written, but for superpixels, which are kept in the cache (``voxseg.cache``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.images import picture_volume
from voxseg.data.prepare import Prepared, check_settings, prepare_case, prepare_label
from voxseg.data.reading import read_geometry
from voxseg.data.targets import target_shape
from voxseg.data.volume import check_same_grid
from voxseg.engine.config import Config
from voxseg.errors import DataError


@dataclass
class Kept:
    """Prepared cases that are kept in memory, first come first served; not pickled."""

    budget: float
    """Bytes."""
    cases: dict[str, Prepared] = field(default_factory=dict)
    used: int = 0

    def get(self, case: Case, prepare: Callable[[Case], Prepared]) -> Prepared:
        """Return a case that is kept, or prepare it, and keep it if it fits."""
        found = self.cases.get(case.case_id)
        if found is None:
            found = prepare(case)
            size = num_bytes(found)
            if self.used + size <= self.budget:
                self.used += size
                self.cases[case.case_id] = found
        return found

    def __reduce__(self) -> tuple[type["Kept"], tuple[float]]:
        return Kept, (self.budget,)


class LazyCases(Sequence[Prepared]):
    """Photographs, prepared on access; a part of it shares what is kept, a pickled one is empty.

    Args:
        cases: their files.
        config: what decides the arrays.
        kept: what is in memory already.

    Raises:
        DataError: on access, if a file is not what it was when it was checked.
    """

    def __init__(self, cases: Sequence[Case], config: Config, kept: Kept) -> None:
        self._cases = tuple(cases)
        self._config = config
        self._kept = kept

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Prepared: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyCases": ...
    def __getitem__(self, index: int | slice) -> "Prepared | LazyCases":
        if isinstance(index, slice):
            return LazyCases(self._cases[index], self._config, self._kept)
        return self._kept.get(self._cases[index], self._prepare)

    def labels(self) -> Iterator[np.ndarray]:
        """Read the labels alone, as ``Prepared.label``; none of what has none."""
        config = self._config
        for case in self._cases:
            if case.label is not None:
                yield prepare_label(
                    case.label, config.data, config.labels.values, config.labels.ignore
                )

    def check(self) -> list[str]:
        """Say what is wrong with the files, as far as their headers tell.

        Raises:
            UsageError: the settings do not go with photographs.
        """
        problems = []
        config = self._config
        for case in self._cases:
            check_settings(case, config.data, len(config.labels.values), config.labels.ignore)
            try:
                image, _ = read_geometry(case.images)
                shape = target_shape(case)
                if case.label is not None and shape is not None:
                    flat = np.broadcast_to(np.int32(0), (*shape, 1))
                    check_same_grid(image, picture_volume(flat, case.label))
            except DataError as error:
                problems.append(str(error))
        return problems

    def _prepare(self, case: Case) -> Prepared:
        return prepare(case, self._config)


def labels_of(cases: Sequence[Prepared]) -> Iterator[np.ndarray]:
    """Go through the labels of all cases, without preparing photographs for that."""
    if isinstance(cases, LazyCases):
        yield from cases.labels()
        return
    for case in cases:
        if case.label is not None:
            yield case.label


def prepare(case: Case, config: Config) -> Prepared:
    """Prepare a case as a configuration says."""
    supervoxels = config.supervoxels if config.model.pools else None
    labels = config.labels
    prepared = prepare_case(
        case,
        config.data,
        labels.values,
        supervoxels,
        labels.ignore,
        config.task.consensus,
        config.task.disputed,
    )
    if not case.category:
        return prepared
    return replace(prepared, category=labels.names.index(case.category))


def num_bytes(case: Prepared) -> int:
    """Size of a case's arrays."""
    arrays = (case.image, case.label, case.superpixels, case.normals)
    return sum(a.nbytes for a in arrays if a is not None)
