"""Resize and turn patches: one map of places for all arrays of a patch.

A patch is cut larger or smaller than it will be and is brought to its size once, so that nothing is
interpolated twice. Centres of voxels keep their place relative to the outer faces, as in
``resample``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from voxseg.data.resample import resample_label

SMOOTH = ("image", "coordinates")
"""What is interpolated; of the others the nearest voxel is taken."""
Sample = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Warp:
    """How a patch is cut and brought to its size."""

    cut: tuple[int, ...]
    """Voxels to cut along each axis."""
    seen: tuple[int, ...]
    """Voxels that fill the patch, about the centre of the cut."""
    factor: float = 1.0
    """Of the size of what is seen."""
    turns: bool = False
    """Whether it is turned and stretched as well."""


def resize(sample: Sample, size: tuple[int, ...]) -> Sample:
    """Bring all arrays (C, *S) to (C, *size), linearly or to the nearest voxel."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    out = {}
    for key, value in sample.items():
        if key in SMOOTH:
            out[key] = functional.interpolate(value[None], size, mode=mode, align_corners=False)[0]
        else:
            out[key] = torch.from_numpy(resample_label(value.numpy(), (len(value), *size)))
    return out


def resized(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (C, P, Q) bilinearly, smoothed first where it shrinks."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return functional.interpolate(
        image[None], list(size), mode="bilinear", align_corners=False, antialias=True
    )[0]


def turn(
    sample: Sample, size: tuple[int, ...], matrix: np.ndarray, outside: Mapping[str, float]
) -> Sample:
    """Bring all arrays (C, *S) to (C, *size) through an affine map about their centres.

    Args:
        sample: whole numbers in it must be below 2**24.
        size: of the result.
        matrix: (D, D) from a place relative to the result's centre, in voxels, to one in ``S``.
        outside: what lies beyond ``S``, by name; where it has none, the border goes on.
    """
    theta = matrix * np.asarray(size) / np.asarray(sample["image"].shape[1:])[:, None]
    theta = np.pad(theta[::-1, ::-1], ((0, 0), (0, 1)))  # torch names axes from the last one
    grid = functional.affine_grid(
        torch.from_numpy(theta).float()[None], [1, 1, *size], align_corners=False
    )
    out = {}
    for key, value in sample.items():
        fill = outside.get(key)
        shift = 0.0 if fill is None else fill
        warped = functional.grid_sample(
            value[None].float() - shift,
            grid,
            mode="bilinear" if key in SMOOTH else "nearest",
            padding_mode="border" if fill is None else "zeros",
            align_corners=False,
        )
        out[key] = (warped[0] + shift).to(value.dtype)
    return out


def rotation(angles: Sequence[float]) -> np.ndarray:
    """Rotation matrix of the plane (one angle) or of space (one about each axis), in radians."""
    planes = [(0, 1)] if len(angles) == 1 else [(1, 2), (0, 2), (0, 1)]
    matrix = np.eye(2 if len(angles) == 1 else 3)
    for (first, second), angle in zip(planes, angles, strict=True):
        step = np.eye(len(matrix))
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    return matrix
