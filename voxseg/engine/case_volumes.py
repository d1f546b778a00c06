"""The volumes of one case: of its mask, of each member, and soft ones, with what they make."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voxseg.data.reading import read_label
from voxseg.engine.outcomes import Measured, Volumes
from voxseg.engine.volume_intervals import ByClass, HeldOut, uncertainty_of
from voxseg.engine.volume_measures import Measure, measures_of
from voxseg.errors import VoxsegError
from voxseg.export.labels import LabelTable
from voxseg.metrics.uncertainty import Members


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """What was measured in one case."""

    volumes: tuple[Volumes, ...] = ()
    measures: tuple[Measured, ...] = ()


@dataclass(frozen=True, eq=False)
class Volumetry:
    """What is measured in every case of a prediction.

    Args:
        table: Names of the classes, and what they are.
        values: All class values of the networks, background first.
        held_out: Cases whose errors tell how far volumes may be off.
    """

    table: LabelTable = field(default_factory=lambda: LabelTable(labels=()))
    values: tuple[int, ...] = ()
    held_out: HeldOut | None = None

    def measure(
        self,
        label: np.ndarray,
        spacing: Sequence[float],
        members: Sequence[ByClass] = (),
        soft_ml: Mapping[int, float] | None = None,
    ) -> CaseVolumes:
        """Measure a mask.

        Args:
            label: (X, Y, Z) in class values.
            spacing: Of its voxels, in mm.
            members: Volumes in ml of each member, see ``member_volumes``.
            soft_ml: Soft volumes in ml of some classes.
        """
        voxel = math.prod(spacing) / 1000
        classes = self.values[1:]
        ml = {k: float(np.count_nonzero(label == k) * voxel) for k in classes}
        volumes = []
        for value in classes:
            name = self.table.names.get(value, f"class {value}")
            found = uncertainty_of(
                Measure("class", name, (value,)), ml[value], self.held_out, members
            )
            own = [one[value] for one in members] if len(members) > 1 else []
            low, high = (min(own), max(own)) if own else (None, None)
            soft = (soft_ml or {}).get(value)
            volumes.append(Volumes(value, name, ml[value], low, high, found, soft))
        measures = tuple(self._measured(one, ml, members) for one in measures_of(self.table))
        return CaseVolumes(tuple(volumes), measures)

    def kept(self, mask: Path) -> CaseVolumes:
        """Measure a mask that is kept as it was; one that cannot be read has no volumes."""
        try:
            volume = read_label(mask)
        except VoxsegError:
            return CaseVolumes()  # a report, which draws it, says why
        return self.measure(volume.array, volume.spacing)

    def _measured(self, measure: Measure, ml: ByClass, members: Sequence[ByClass]) -> Measured:
        value = measure.value(ml)
        return Measured(
            measure.kind,
            measure.name,
            measure.unit,
            measure.labels,
            None if math.isnan(value) else value,
            uncertainty_of(measure, value, self.held_out, members),
        )


def member_volumes(
    members: Members, values: Sequence[int], spacing: Sequence[float]
) -> tuple[dict[int, float], ...]:
    """Give the volumes in ml of each member, on the grid that it was run on."""
    voxel = math.prod(spacing) / 1000
    return tuple({k: n * voxel for k, n in zip(values, own, strict=True)} for own in members.voxels)
