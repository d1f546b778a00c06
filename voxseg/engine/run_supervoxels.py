"""Supervoxels as a trained network pools them: of the prepared image, on the source's grid."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxseg.data.layouts import Case
from voxseg.data.prepare import PrepareSettings, prepare_case
from voxseg.data.resample import resample_label
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.config import build


@dataclass(frozen=True)
class RunDivision:
    """How a run prepares and divides volumes."""

    data: PrepareSettings
    supervoxels: SupervoxelSettings
    values: tuple[int, ...]
    """Of its classes, which nothing here depends on."""

    def divide(self, case: Case) -> np.ndarray:
        """Divide a case as prediction does.

        Returns:
            (X, Y, Z) int32 on the source's grid, -1 where there is none: outside the foreground.
            Where the run resamples, each voxel has the nearest one's.

        Raises:
            DataError: the files are not what they must be.
        """
        unlabelled = replace(case, label=None)
        prepared = prepare_case(unlabelled, self.data, self.values, self.supervoxels)
        grid = prepared.grid
        assert prepared.superpixels is not None
        whole = np.full(grid.working_shape, -1, np.int32)
        whole[tuple(slice(a, b) for a, b in grid.box)] = prepared.superpixels
        turned = [grid.source_shape[axis] for axis in grid.orientation.axes]
        back = grid.orientation.from_ras(resample_label(whole, turned))
        return np.ascontiguousarray(back)


def read_division(run: Path) -> RunDivision:
    """Read how a run folder, checkpoint or cross-validation divides volumes.

    Raises:
        DataError: it is none of them.
    """
    config = build(load_checkpoint(member_checkpoints(run)[0])["config"])
    return RunDivision(config.data, config.supervoxels, config.labels.values)
