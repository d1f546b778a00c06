"""Simulated brains: the MNI152 T1 template and its tissue maps, deformed and degraded at random.

Source: the ICBM 152 template (Fonov et al., NeuroImage 54(1), 2011) as nilearn ships it, so nothing
is downloaded; scaling and squaring of a smooth random velocity for the deformation (Arsigny et al.,
MICCAI 2006). Good for a demonstration and for tests, and no substitute for real subjects: every one
of them is the same average brain.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from voxseg.errors import VoxsegError

CLASS_NAMES = {0: "background", 1: "CSF", 2: "grey matter", 3: "white matter"}
"""Names of the label values."""

_TISSUES = 3  # CSF, grey matter, white matter, in the order of the labels
_FIELD_MM = 4.0  # grid of deformation and bias, both much smoother than this
_SQUARINGS = 6
# Relative to the template, whose CSF is brightened by averaging over subjects' different sulci.
_SHARPENING = np.array([0.55, 1.0, 1.0])
_IN_BRAIN = 0.5  # interpolated share of the brain mask from which on a voxel belongs to it

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """How far simulated subjects differ from the template."""

    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    """Voxel size along right, anterior, superior."""
    deformation_mm: float = 3.0
    """Root mean square of the smooth velocity along each axis."""
    smoothness_mm: float = 14.0
    """Standard deviation of the filter that makes the velocity smooth."""
    scale: float = 0.08
    """Largest relative change of size along each axis."""
    rotation_degrees: float = 6.0
    """Largest rotation about each axis."""
    contrast: float = 0.05
    """Standard deviation of each tissue's relative change of intensity."""
    bias: float = 0.08
    """Standard deviation of the logarithm of the bias field."""
    noise: float = 0.02
    """Standard deviation of the noise, relative to white matter."""

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be three positive sizes, got {self.spacing_mm}")


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """One simulated brain."""

    image: Array
    """(X, Y, Z), RAS+ order: T1-like intensities, 0 outside the brain."""
    label: NDArray[np.uint8]
    """(X, Y, Z): classes of ``CLASS_NAMES``."""
    affine: NDArray[np.float64]
    """(4, 4), voxel indices to mm of the template's space."""


@dataclass(frozen=True, eq=False)
class _Atlas:
    maps: Array
    """(1 + 1 + 3, X, Y, Z): T1, brain mask, share of each tissue."""
    affine: NDArray[np.float64]


def simulate_subject(
    generator: np.random.Generator, settings: SimulationSettings | None = None
) -> SimulatedSubject:
    """Simulate one subject.

    Args:
        generator: All that differs between subjects comes from it; equal states give equal
            subjects.
        settings: How far subjects differ.

    Raises:
        VoxsegError: nilearn, which ships the template, is not installed.
    """
    settings = settings or SimulationSettings()
    atlas = _atlas(settings.spacing_mm)
    # Voxels of the new grid at the atlas's corner, with the spacing asked for.
    extent = np.array(atlas.maps.shape[1:]) * np.abs(np.diag(atlas.affine)[:3])
    shape = tuple(int(n) for n in extent // settings.spacing_mm)
    affine = atlas.affine.copy()
    affine[:3, :3] = np.diag(settings.spacing_mm)
    points = _deformed_points(generator, shape, affine, settings)
    source = np.linalg.inv(atlas.affine)
    coordinates = np.tensordot(source[:3, :3], points, 1) + source[:3, 3].reshape(3, 1, 1, 1)
    warped = np.stack([map_coordinates(one, coordinates, order=1) for one in atlas.maps])
    inside = warped[1] > _IN_BRAIN
    label = np.where(inside, 1 + warped[2:].argmax(0), 0).astype(np.uint8)
    image = _appearance(generator, warped, settings)
    return SimulatedSubject(np.where(inside, image, np.float32(0)), label, affine)


def random_displacement(
    generator: np.random.Generator, shape: tuple[int, ...], size: float, smoothness: float
) -> NDArray[np.float64]:
    """Draw the displacement of a random diffeomorphism by scaling and squaring.

    Args:
        generator: Source of the velocity.
        shape: *S, the grid.
        size: Root mean square of the velocity along each axis, in voxels of the grid.
        smoothness: Standard deviation of its Gaussian filter, in voxels of the grid.

    Returns:
        (D, *S) in voxels: ``x + displacement(x)`` folds nowhere where the velocity is smooth
        enough, which ``smoothness`` of several times ``size`` gives.
    """
    velocity = [gaussian_filter(generator.standard_normal(shape), smoothness) for _ in shape]
    displacement = np.stack([size * v / np.sqrt(np.mean(v**2)) for v in velocity])
    displacement /= 2**_SQUARINGS
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(float)
    for _ in range(_SQUARINGS):
        moved = grid + displacement
        displacement = displacement + np.stack(
            [map_coordinates(one, moved, order=1, mode="nearest") for one in displacement]
        )
    return displacement


def _deformed_points(
    generator: np.random.Generator,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    settings: SimulationSettings,
) -> NDArray[np.float64]:
    """World position (3, *S), in mm of the atlas, that each voxel of a subject shows."""
    coarse = tuple(_coarse(n, s) for n, s in zip(shape, settings.spacing_mm, strict=True))
    displacement = random_displacement(
        generator,
        coarse,
        settings.deformation_mm / _FIELD_MM,
        settings.smoothness_mm / _FIELD_MM,
    )
    fine = np.stack([_enlarged(_FIELD_MM * one, shape) for one in displacement])
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    world = np.tensordot(affine[:3, :3], voxels, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    matrix = _random_linear(generator, settings)
    centre = world.reshape(3, -1).mean(1).reshape(3, 1, 1, 1)
    return np.asarray(np.tensordot(matrix, world + fine - centre, 1) + centre)


def _random_linear(
    generator: np.random.Generator, settings: SimulationSettings
) -> NDArray[np.float64]:
    """Draw a (3, 3) matrix of scales, then rotations about the three axes."""
    matrix = np.diag(1 + generator.uniform(-settings.scale, settings.scale, 3))
    for axis in range(3):
        angle = np.deg2rad(settings.rotation_degrees) * generator.uniform(-1, 1)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        matrix = rotation @ matrix
    return matrix


def _appearance(
    generator: np.random.Generator, warped: Array, settings: SimulationSettings
) -> Array:
    """Change the contrast of the tissues, then add a bias field and noise; white matter near 1."""
    shape = warped.shape[1:]
    shares = warped[2:] / np.maximum(warped[2:].sum(0), 1e-3)
    gains = 1 + settings.contrast * np.clip(generator.standard_normal(_TISSUES), -2, 2)
    gains *= _SHARPENING
    image = warped[0] * np.tensordot(gains, shares, 1)
    coarse = tuple(_coarse(n, s) for n, s in zip(shape, settings.spacing_mm, strict=True))
    field = gaussian_filter(generator.standard_normal(coarse), 40.0 / _FIELD_MM, mode="reflect")
    field *= settings.bias / field.std()
    image = image * np.exp(_enlarged(field - field.mean(), shape))
    image = image / np.average(image, weights=warped[4])
    # The magnitude of a complex signal, as scanners give it, so that noise stays above 0.
    real, imaginary = settings.noise * generator.standard_normal((2, *shape))
    return np.asarray(np.hypot(image + real, imaginary), dtype=np.float32)


def _coarse(size: int, spacing: float) -> int:
    """Points of the field's grid along an axis of ``size`` voxels."""
    return max(2, round(size * spacing / _FIELD_MM))


def _enlarged(field: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Interpolate a smooth field (*coarse) to ``shape``."""
    factors = [n / m for n, m in zip(shape, field.shape, strict=True)]
    large: NDArray[np.float64] = zoom(field, factors, order=1, grid_mode=True, mode="nearest")
    return large


@lru_cache(maxsize=2)
def _atlas(spacing_mm: tuple[float, float, float]) -> _Atlas:
    """Load the template at its 1 mm, smoothed for sampling at ``spacing_mm``."""
    try:
        from nilearn import datasets
    except ImportError:
        raise VoxsegError(
            "simulated subjects are made from the MNI152 template that nilearn ships, and nilearn "
            "is not installed; run: pip install 'voxseg[brain]'"
        ) from None
    template, grey, white, mask = (
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    brain = _voxels(mask)
    tissues = [_voxels(grey) * brain, _voxels(white) * brain]
    fluid = np.clip(brain - sum(tissues), 0, 1)
    maps = [_voxels(template), brain, fluid, *tissues]
    # A voxel of s mm averages over s mm; template voxels (1 mm) do some of that already.
    sigma = [0.4 * np.sqrt(max(0.0, s**2 - 1)) for s in spacing_mm]
    smooth = [gaussian_filter(one, sigma) for one in maps]
    return _Atlas(np.stack(smooth), np.asarray(template.affine, dtype=np.float64))


def _voxels(image: Any) -> Array:
    return np.asarray(image.get_fdata(dtype=np.float32))
