"""Simulated heads of IBSR's size, as training sees them and as files: no template is read."""

from pathlib import Path

import numpy as np

from voxseg.bench.slic import simulated_volume
from voxseg.data.grid import Grid
from voxseg.data.normalise import OUTSIDE
from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Prepared
from voxseg.data.superpixels import SupervoxelSettings, compute_supervoxels
from voxseg.export.nifti import plain_geometry, write_mask

Shape = tuple[int, int, int]

SPACING_MM = (0.9375, 1.5, 0.9375)
"""IBSR's, right, anterior, superior as it is stored."""
NUM_CLASSES = 4

_EDGES = (0.3, 0.6)  # of a simulated volume in [0, 1], between its three tissues
_BRAIN = (0.58, 0.92, 0.56)  # extent along each axis of a file: a seventh of the volume, as IBSR's
_BRIGHTEST = 200


def prepared_head(shape: Shape, seed: int, supervoxels: SupervoxelSettings | None) -> Prepared:
    """Make a head that fills its box: an ellipsoid of three tissues, with noise.

    Args:
        shape: of the volume; it is cut to its foreground, as prepared cases are.
        seed: of all random numbers.
        supervoxels: how to divide it; None for not at all.
    """
    values, inside = _head(shape, seed, (1.0, 1.0, 1.0))
    label = np.where(inside, 1 + np.digitize(values, _EDGES), 0).astype(np.uint8)
    brain = values[inside]
    image = (values - brain.mean()) / brain.std()
    image = np.where(inside, image, OUTSIDE).astype(np.float32)[None]
    regions = None
    if supervoxels is not None:
        regions = compute_supervoxels(image, SPACING_MM, supervoxels, mask=inside)
    box = tuple((0, n) for n in shape)
    return Prepared(
        case_id=f"head{seed}",
        image=image,
        label=label,
        superpixels=regions,
        mask_box=box,
        spacing=SPACING_MM,
        grid=Grid(shape, Orientation((0, 1, 2), (False, False, False)), shape, box),
    )


def write_head(path: Path, shape: Shape, seed: int) -> Path:
    """Write a head with nothing around it, as IBSR's are stored, and return the file.

    Args:
        path: the file, NIfTI.
        shape: in voxels of IBSR's size.
        seed: of all random numbers.
    """
    values, inside = _head(shape, seed, _BRAIN)
    image = np.where(inside, (_BRIGHTEST * values).clip(1), 0).astype(np.int16)
    affine = np.diag([*SPACING_MM, 1.0])
    return write_mask(path, image, plain_geometry(affine, shape))


def _head(
    shape: Shape, seed: int, extent: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Make values in about [0, 1], and where an ellipsoid is; an extent of 1 fills its axis."""
    axes = np.ix_(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape))
    squares = ((axis / size) ** 2 for axis, size in zip(axes, extent, strict=True))
    return simulated_volume(shape, seed), np.asarray(sum(squares) <= 1)
