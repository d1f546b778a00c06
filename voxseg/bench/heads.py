"""Simulated heads as training sees them, made in memory: no file, no template, nothing to read."""

import numpy as np

from voxseg.bench.slic import simulated_volume
from voxseg.data.grid import Grid
from voxseg.data.normalise import OUTSIDE
from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Prepared
from voxseg.data.superpixels import SupervoxelSettings, compute_supervoxels

Shape = tuple[int, int, int]

SPACING_MM = (0.9375, 1.5, 0.9375)
"""IBSR's, right, anterior, superior as it is stored."""
NUM_CLASSES = 4

_EDGES = (0.3, 0.6)  # of a simulated volume in [0, 1], between its three tissues


def prepared_head(shape: Shape, seed: int, supervoxels: SupervoxelSettings | None) -> Prepared:
    """Make a head that fills its box: an ellipsoid of three tissues, with noise.

    Args:
        shape: of the volume; it is cut to its foreground, as prepared cases are.
        seed: of all random numbers.
        supervoxels: how to divide it; None for not at all.
    """
    values = simulated_volume(shape, seed)
    axes = np.ix_(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape))
    inside = np.asarray(sum(axis**2 for axis in axes) <= 1)
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
