"""Augmentation of training patches by MONAI's transforms, reproducible sample by sample.

The random state is set from the sample's own seed before each call, so a patch depends on (seed,
epoch, step) alone: not on processes, nor on what a resumed run drew before.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffined,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)

from voxseg.data.normalise import OUTSIDE

_SMOOTH = (0.25, 0.8)  # voxels: range of the Gaussian's standard deviation along each axis


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """How strongly training patches are varied; 0 switches a transform off."""

    flip_axes: tuple[int, ...] = (0,)
    """Spatial axes mirrored with probability 1/2; 0 is left-right, for volumes are RAS+ here."""
    affine_probability: float = 0.3
    """Share of patches that are rotated and scaled."""
    rotate_degrees: float = 10.0
    """Largest rotation about each axis."""
    scale: float = 0.1
    """Largest relative change of size."""
    resize: tuple[float, ...] = ()
    """Smallest and largest factor of size, drawn anew for every patch; empty for none."""
    intensity_probability: float = 0.3
    """Share of patches, for each of brightness, contrast, gamma, smoothing."""
    contrast: float = 0.15
    """Largest relative change of intensity scale, and of offset in standard deviations."""
    gamma: float = 0.3
    """Gamma runs over [1 - gamma, 1 + gamma]."""
    bias_field: float = 0.1
    """Largest coefficient of the logarithm of a smooth field that multiplies the signal."""
    noise: float = 0.1
    """Largest standard deviation of added Gaussian noise, in standard deviations of the image."""

    def __post_init__(self) -> None:
        for name in ("affine_probability", "intensity_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"augment.{name} must be in [0, 1], got {value}")
        for name in ("rotate_degrees", "scale", "contrast", "gamma", "bias_field", "noise"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"augment.{name} must not be negative, got {value}")
        if self.resize and not (len(self.resize) == 2 and 0 < self.resize[0] <= self.resize[1]):
            raise ValueError(f"augment.resize must be two factors, rising, got {self.resize}")
        if self.gamma >= 1 or self.scale >= 1:
            raise ValueError("augment.gamma and augment.scale must be under 1")

    @property
    def margin(self) -> float:
        """How much larger than the patch a cut must be so that an affine sees no border."""
        return 1 + self.scale + float(np.sin(np.deg2rad(self.rotate_degrees)))


class Augment:
    """Vary one patch: flips, affine, intensity, bias field, noise.

    A call takes and gives the same dict of arrays: ``image`` (C, *S) float32, ``coordinates``
    (D, *S) float32 or absent, ``label`` (1, *S), ``superpixels`` (1, *S) or absent. A patch that
    an affine will turn is cut larger, and its centre is kept.
    """

    def __init__(self, settings: AugmentSettings, patch_voxels: tuple[int, ...]) -> None:
        self._settings = settings
        self._patch = patch_voxels

    def cut_voxels(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Decide whether this patch will be turned and scaled, and how large to cut it for that."""
        if rng.random() >= self._settings.affine_probability:
            return self._patch
        # One more, so that a cut to be turned is larger than the patch whatever the settings.
        return tuple(int(np.ceil(n * self._settings.margin)) + 1 for n in self._patch)

    def __call__(self, sample: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
        """Vary ``sample``; the same ``seed`` gives the same bits."""
        rng = np.random.default_rng(seed)
        sample = self._affine(sample, rng)
        sample = self._flip(sample, rng)
        intensity = self._intensity
        if intensity is not None:
            intensity.set_random_state(int(rng.integers(2**31)))
            before = sample["image"]
            image = torch.as_tensor(intensity(before)).as_subclass(torch.Tensor).float()
            # Where there is no subject there is nothing to brighten.
            sample["image"] = torch.where(before == OUTSIDE, before, image)
        return sample

    @functools.cached_property
    def _intensity(self) -> Compose | None:
        return _intensity_transforms(self._settings)

    def _affine(
        self, sample: dict[str, torch.Tensor], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        settings = self._settings
        if tuple(sample["image"].shape[1:]) == self._patch:
            return sample
        angle = np.deg2rad(settings.rotate_degrees)
        dimensions = len(self._patch)
        smooth = ("image", "coordinates")
        warp = RandAffined(
            keys=list(sample),
            spatial_size=self._patch,
            prob=1.0,
            rotate_range=[angle] * (3 if dimensions == 3 else 1),
            scale_range=[settings.scale] * dimensions,
            mode=["bilinear" if key in smooth else "nearest" for key in sample],
            padding_mode="border",
        )
        warp.set_random_state(int(rng.integers(2**31)))
        kinds = {key: value.dtype for key, value in sample.items()}
        # Labels and superpixel numbers below 2**24 are exact in float32, which grid_sample needs.
        warped = warp({key: value.float() for key, value in sample.items()})
        tensors = {key: torch.as_tensor(warped[key]) for key in sample}
        return {key: t.as_subclass(torch.Tensor).to(kinds[key]) for key, t in tensors.items()}

    def _flip(
        self, sample: dict[str, torch.Tensor], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        for axis in self._settings.flip_axes:
            if axis >= len(self._patch) or rng.random() < 0.5:
                continue
            sample = {key: value.flip(axis + 1) for key, value in sample.items()}
            if "coordinates" in sample:
                # A mirrored head lies at mirrored positions: the content moves, and so does its
                # coordinate along the mirrored axis.
                sign = torch.ones(len(self._patch))
                sign[axis] = -1
                sample["coordinates"] *= sign.view(-1, *[1] * len(self._patch))
        return sample


class _CoilField(RandBiasField):
    """Multiply the signal by a smooth field.

    Normalisation moves the image off zero, so the darkest voxel of the patch stands for no signal.
    """

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:  # type: ignore[override]
        dark = img.amin(tuple(range(1, img.ndim)), keepdim=True)
        return torch.as_tensor(super().__call__(img - dark, randomize=randomize)) + dark


def _intensity_transforms(settings: AugmentSettings) -> Compose | None:
    probability = settings.intensity_probability
    if not probability:
        return None
    steps = []
    if settings.contrast:
        steps += [
            RandScaleIntensity(factors=settings.contrast, prob=probability),
            RandShiftIntensity(offsets=settings.contrast, prob=probability),
        ]
    if settings.gamma:
        low, high = 1 - settings.gamma, 1 + settings.gamma
        steps.append(RandAdjustContrast(prob=probability, gamma=(low, high)))
    if settings.bias_field:
        steps.append(
            _CoilField(
                degree=2,
                coeff_range=(-settings.bias_field, settings.bias_field),
                prob=probability,
            )
        )
    if settings.noise:
        steps += [
            RandGaussianSmooth(_SMOOTH, _SMOOTH, _SMOOTH, prob=probability / 2),
            RandGaussianNoise(std=settings.noise, prob=probability),
        ]
    if not steps:
        return None
    return Compose(steps)
