"""Soft maps of the brain's tissues: how likely each voxel is which, under the names of FSL FAST.

Source: FSL's FAST (Zhang, Brady and Smith, *Segmentation of brain MR images through a hidden Markov
random field model and the expectation-maximization algorithm*, 2001, IEEE TMI 20(1)), which writes
``_pve_0``, ``_pve_1`` and ``_pve_2`` for a T1-weighted image: fluid, grey and white matter. FAST's
maps are partial volumes; these are the probabilities of the network's classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxseg.data.grid import Grid
from voxseg.data.names import case_name
from voxseg.data.resample import Scores
from voxseg.data.volume import Volume
from voxseg.errors import UsageError
from voxseg.export.label_files import table_names
from voxseg.export.labels import LabelTable, Tissue
from voxseg.export.masks import map_name, write_map

_ORDER: tuple[Tissue, ...] = ("csf", "grey_matter", "white_matter")


def tissue_classes(table: LabelTable) -> dict[int, tuple[int, ...]]:
    """Give the classes of each of FAST's numbers that has any.

    Raises:
        UsageError: The table says of no class that it is a tissue.
    """
    found = {
        number: tuple(label.value for label in table if label.tissue == tissue)
        for number, tissue in enumerate(_ORDER)
    }
    found = {number: values for number, values in found.items() if values}
    if not found:
        known = ", ".join(name for name in table_names() if "tissues" in name)
        raise UsageError(
            "--save-tissues writes a map of each tissue, and the label table "
            f"{table.name or 'of this network'} says of no class that it is one; choose another "
            f"with --label-table ({known}, or a file with tissue = "
            f'"{" / ".join(_ORDER)}")'
        )
    return found


def write_tissues(
    target: Path,
    table: LabelTable,
    values: Sequence[int],
    shares: Scores,
    grid: Grid,
    source: Volume,
) -> dict[int, float]:
    """Write CASE_pve_0, CASE_pve_1 and CASE_pve_2 beside a mask, float32 on the source's grid.

    Args:
        target: The mask.
        table: Says which class is which tissue; of several in one tissue the sum is written.
        values: All class values, in the order of ``shares``.
        shares: (N, *S) class probabilities on the prepared grid.
        grid: Leads from there to the source's.
        source: Its geometry.

    Returns:
        The soft volume in ml of each of these classes: its probabilities, summed as in the map.

    Raises:
        VoxsegError: A file cannot be written.
    """
    voxel = math.prod(source.spacing) / 1000
    soft = {}
    for number, classes in tissue_classes(table).items():
        total: np.ndarray | None = None
        for value in classes:
            # Outside the crop lies background, which is certain.
            one = grid.restore_map(shares[values.index(value)], 0.0)
            soft[value] = float(one.sum(dtype=np.float64)) * voxel
            total = one if total is None else np.add(total, one, out=total)
        assert total is not None
        name = map_name(f"{case_name(target)}_pve_{number}", source)
        write_map(target.with_name(name), total, source)
    return soft
