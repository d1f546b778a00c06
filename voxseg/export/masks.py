"""Masks and maps in the kind of file that their source has: NIfTI, or a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.export import nifti
from voxseg.export.images import write_grey_tiff, write_label_png
from voxseg.export.labels import Colour


def mask_name(case_id: str, *, is_image: bool) -> str:
    """Name of a case's mask: CASE.nii.gz of a volume, CASE.png of a photograph."""
    return f"{case_id}.png" if is_image else f"{case_id}.nii.gz"


def mask_path(folder: Path, case_id: str) -> Path:
    """Where a case's mask lies, a volume's or a photograph's; a volume's where neither exists."""
    picture = folder / mask_name(case_id, is_image=True)
    return picture if picture.is_file() else folder / mask_name(case_id, is_image=False)


def map_name(stem: str, like: nifti.HasGeometry) -> str:
    """Name of a floating point map: STEM.nii.gz of a volume, STEM.tif of a photograph."""
    return f"{stem}.tif" if like.header is None else f"{stem}.nii.gz"


def write_mask(
    path: Path,
    label: np.ndarray[Any, Any],
    like: nifti.HasGeometry,
    colours: Mapping[int, Colour] | None = None,
) -> Path:
    """Write a label map (X, Y, Z) on the grid of ``like``; of a photograph, (H, W, 1), a PNG.

    Args:
        path: As for ``nifti.write_mask``, or a ``.png`` where ``like`` is a photograph.
        label: integer or boolean.
        like: Geometry of the source; its header is None for a photograph.
        colours: Of a PNG's palette, by value; NIfTI holds none.
    """
    if like.header is None:
        return write_label_png(path, label[..., 0], colours)
    return nifti.write_mask(path, label, like)


def write_map(path: Path, values: np.ndarray[Any, Any], like: nifti.HasGeometry) -> Path:
    """Write a floating point map (X, Y, Z) as NIfTI; of a photograph, (H, W, 1), a float TIFF."""
    if like.header is None:
        return write_grey_tiff(path, values[..., 0])
    return nifti.write_map(path, values, like)
