"""Pictures and figures of boundaries and surface normals, for report pages."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from voxseg.data.boundaries import read_boundaries
from voxseg.data.normals import read_normals
from voxseg.data.reading import read_channels
from voxseg.engine.boundary_files import read_boundary_map
from voxseg.engine.normals_files import numbers_beside
from voxseg.engine.report_sources import CaseFiles
from voxseg.errors import DataError
from voxseg.export.boundary_picture import draw_boundaries
from voxseg.export.normal_picture import AngleCurve, draw_angles, draw_normals
from voxseg.export.precision_recall import PrecisionRecallCurve, draw_precision_recall
from voxseg.metrics.boundary_counts import find_boundary_errors
from voxseg.metrics.normals import Angles, angle_map

_SMALL = 240


def boundary_figure(
    detail: Mapping[str, Any], totals: Mapping[str, float], name: str = "this run"
) -> bytes:
    """Draw precision over recall, from what ``BoundaryScorer`` found."""
    curve = PrecisionRecallCurve(
        name,
        detail["recall"],
        detail["precision"],
        totals["ods"],
        totals["ois"],
        totals["average_precision"],
    )
    return draw_precision_recall([curve])


def angle_figure(detail: Mapping[str, Any], name: str = "this run") -> bytes:
    """Draw how many pixels have which angle, from ``NormalsScorer.detail``."""
    angles = Angles.from_json(detail)
    return draw_angles([AngleCurve(name, angles.histogram.tolist())])


def boundary_picture(
    files: CaseFiles, totals: Mapping[str, float] | None = None
) -> tuple[bytes, str]:
    """Draw a case's photograph, boundaries and errors: a PNG and what is to be said of it.

    Args:
        files: of the case.
        totals: of the set, whose best threshold tells errors; None draws none.

    Raises:
        DataError: A file cannot be read.
    """
    photograph = _photograph(files)
    found = None if files.prediction is None else read_boundary_map(files.prediction)
    drawn = None if files.truth is None else read_boundaries(files.truth)
    sizes = {one.shape[-2:] for one in (found, drawn) if one is not None}
    sizes |= set() if photograph is None else {photograph.shape[:2]}
    _check_sizes(sizes, files)
    errors = None
    caption = ""
    if totals is not None and found is not None and drawn is not None:
        threshold = totals["ods_threshold"]
        seen = find_boundary_errors(found, drawn, threshold)
        errors = (seen.right, seen.wrong, seen.missed)
        caption = f"Errors at the set's best threshold, {threshold:.2f}."
    truth = None if drawn is None else (drawn != 0).mean(axis=0)
    return draw_boundaries(photograph, found, truth, errors), caption


def normals_picture(
    files: CaseFiles, totals: Mapping[str, float] | None = None
) -> tuple[bytes, str]:
    """Draw a case's photograph, normals and angles: a PNG and what is to be said of it.

    Args:
        files: of the case.
        totals: of the set; a case needs none.

    Raises:
        DataError: A file cannot be read.
    """
    photograph = _photograph(files)
    normals = {}
    if files.prediction is not None:
        normals["prediction"] = read_normals(numbers_beside(files.prediction)).array[..., 0]
    if files.truth is not None:
        normals["truth"] = read_normals(files.truth).array[..., 0]
    sizes = {one.shape[1:] for one in normals.values()}
    sizes |= set() if photograph is None else {photograph.shape[:2]}
    _check_sizes(sizes, files)
    angles = angle_map(normals["prediction"], normals["truth"]) if len(normals) == 2 else None
    return draw_normals(photograph, normals, angles), ""


def small_photograph(files: CaseFiles) -> bytes:
    """Draw a photograph alone, its longer side ``_SMALL`` pixels, as a PNG.

    Raises:
        DataError: It cannot be read.
    """
    photograph = _photograph(files)
    if photograph is None:
        raise DataError("there is no photograph")
    picture = Image.fromarray(photograph)
    factor = _SMALL / max(picture.size)
    width, height = (max(1, round(n * factor)) for n in picture.size)
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()


def _photograph(files: CaseFiles) -> np.ndarray | None:
    if not files.images:
        return None
    return read_channels(files.images).array[..., 0].transpose(1, 2, 0).astype(np.uint8)


def _check_sizes(sizes: set[tuple[int, ...]], files: CaseFiles) -> None:
    if len(sizes) != 1:
        raise DataError(f"{files.prediction} has another size than its photograph or its truth")
