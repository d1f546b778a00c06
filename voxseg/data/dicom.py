"""Read a DICOM series as a volume: grey values in float32, and the affine of its slices.

Geometry: ``dicom_geometry.py``; the affine is made of the attributes of the slices, in RAS.
Axes: (columns, rows, slices), slices along row x column; no flip.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.dicom_headers import pydicom, read_header
from voxseg.data.dicom_series import stack_series
from voxseg.data.volume import Volume, made_volume
from voxseg.errors import DataError


@dataclass(frozen=True, eq=False)
class SeriesGrid:
    """Where the frames of a series lie."""

    frames: tuple[tuple[Path, int], ...]
    """File and number in it of each slice, in the order of the volume's third axis."""
    rescale: tuple[tuple[float, float], ...]
    """Slope and intercept of each slice."""
    affine: np.ndarray[Any, Any]
    """(4, 4) float64, voxel (column, row, slice) to mm in RAS, in full precision."""
    shape: tuple[int, int, int]
    """(columns, rows, slices)."""
    place: Path
    """The folder of the files, or the only file."""


def read_grid(paths: Sequence[Path]) -> SeriesGrid:
    """Find out where the slices of a series lie.

    Args:
        paths: All its files, in any order.

    Raises:
        DataError: They are no volume; ``dicom_geometry.stack`` says what is refused.
        VoxsegError: pydicom is missing.
    """
    headers = [read_header(path) for path in paths]
    known = [header for header in headers if header is not None]
    place = common_place(paths)
    if len(known) < len(headers) or len({header.series for header in known}) != 1:
        raise DataError(f"{place} holds files of several DICOM series; name one by its folder")
    found = stack_series(known, str(place))
    frames = [(header, one) for header in known for one in header.slices]
    ordered = [frames[index] for index in found.order]
    return SeriesGrid(
        frames=tuple((header.path, one.frame) for header, one in ordered),
        rescale=tuple((one.slope, one.intercept) for _, one in ordered),
        affine=found.affine,
        shape=found.shape,
        place=place,
    )


def read_series(paths: Sequence[Path]) -> Volume:
    """Read a series, float32 (1, X, Y, Z), rescaled slice by slice.

    Raises:
        DataError: As ``read_grid``; pixels are missing, damaged, or compressed in a way for which
            nothing is installed.
    """
    grid = read_grid(paths)
    array = np.empty((1, *grid.shape), np.float32)
    depth = {frame: number for number, frame in enumerate(grid.frames)}
    for path, frame, pixels in _pixels(paths):
        number = depth.pop((path, frame), None)
        layer = pixels.T.astype(np.float32)
        if number is None or layer.shape != grid.shape[:2]:
            raise DataError(f"{path} is damaged: its pixels do not fit its header; copy it again")
        slope, intercept = grid.rescale[number]
        if (slope, intercept) != (1, 0):
            layer = layer * slope + intercept
        array[0, :, :, number] = layer
    if depth:
        raise DataError(f"{grid.place} has fewer pixels than its headers say; copy it again")
    if not np.isfinite(array).all():
        raise DataError(f"{grid.place} has grey values that are not finite; export it again")
    return made_volume(array, grid.affine, grid.place)


def read_series_geometry(paths: Sequence[Path]) -> tuple[Volume, int]:
    """Read where a series lies from its headers alone: as ``volume.read_geometry``."""
    grid = read_grid(paths)
    files = Counter(path for path, _ in grid.frames)
    columns, rows, depth = grid.shape
    most_frames = max(files.values())  # of one file, unpacked at once
    num_bytes = columns * rows * (4 * depth + depth + 4 * most_frames)
    array = np.broadcast_to(np.float32(0), (1, *grid.shape))
    return made_volume(array, grid.affine, grid.place), num_bytes


def _pixels(paths: Sequence[Path]) -> Iterator[tuple[Path, int, np.ndarray[Any, Any]]]:
    """Go through all frames: file, number in it, stored values (rows, columns)."""
    dicom = pydicom()
    for path in paths:
        try:
            found = dicom.dcmread(path, force=True)
            _check_decoder(dicom, found, path)
            pixels = found.pixel_array
        except DataError:
            raise
        except Exception as error:  # decoders raise what they meet
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise DataError(
                f"the pixels of {path} cannot be read ({reason}); copy the file again"
            ) from error
        frames = pixels if pixels.ndim == 3 else pixels[None]
        yield from ((path, number, frame) for number, frame in enumerate(frames))


def _check_decoder(dicom: Any, found: Any, path: Path) -> None:
    """Name what is missing for a compressed file."""
    if "TransferSyntaxUID" not in found.file_meta:  # as of files without a preamble
        is_implicit, _ = found.original_encoding
        kinds = dicom.uid.ExplicitVRLittleEndian, dicom.uid.ImplicitVRLittleEndian
        found.file_meta.TransferSyntaxUID = kinds[bool(is_implicit)]
    syntax = found.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        decoder = dicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        raise DataError(
            f"{path} is compressed as {syntax.name}, which cannot be read; unpack it first"
        ) from None
    if not decoder.is_available:
        needs = "; or ".join(decoder.missing_dependencies) or "another decoder"
        raise DataError(
            f"{path} is compressed as {syntax.name}, which needs one more package ({needs}): "
            "install it, for example with pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg, or unpack the file"
        )


def common_place(paths: Sequence[Path]) -> Path:
    """Return the folder that all files lie in, or the only file."""
    if len(paths) == 1:
        return paths[0]
    shared = paths[0].parent
    while not all(path.is_relative_to(shared) for path in paths):
        shared = shared.parent
    return shared
