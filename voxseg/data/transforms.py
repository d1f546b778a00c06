"""Augmentation of training patches, reproducible sample by sample.

Intensities, and turned volumes, are MONAI's; slices, photographs and all that is resized go through
``warp``.

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

from voxseg.data.grid import IGNORED
from voxseg.data.normal_warp import mirror_vectors, turn_vectors
from voxseg.data.normalise import OUTSIDE
from voxseg.data.warp import SMOOTH, Sample, Warp, resize, rotation, turn

NOTHING = {"image": 0.0, "label": float(IGNORED), "superpixels": -1.0, "normals": 0.0}
"""What lies beyond the border of a photograph."""
_BLUR = (0.25, 0.8)  # voxels: range of the Gaussian's standard deviation along each axis


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
    """Smallest and largest factor of size, drawn evenly for every patch; empty for none."""
    crop_area: tuple[float, ...] = ()
    """Of classification: least and largest share of a photograph that a crop has; empty: 0.08 to 1,
    as is common."""
    jitter: tuple[float, ...] = ()
    """Of classification: largest relative change of brightness, contrast and saturation."""
    lighting: float = 0.0
    """Of classification: deviation of the factors with which ImageNet's main colours are added."""
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
        names = ("rotate_degrees", "scale", "contrast", "gamma", "bias_field", "noise", "lighting")
        for name in names:
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"augment.{name} must not be negative, got {value}")
        area = self.crop_area
        if area and not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
            raise ValueError(f"augment.crop_area must be two shares, rising, got {area}")
        if self.jitter and not (len(self.jitter) == 3 and min(self.jitter) >= 0):
            raise ValueError(f"augment.jitter must be three, none negative, got {self.jitter}")
        if self.resize and not (len(self.resize) == 2 and 0 < self.resize[0] <= self.resize[1]):
            raise ValueError(f"augment.resize must be two factors, rising, got {self.resize}")
        if self.gamma >= 1 or self.scale >= 1:
            raise ValueError("augment.gamma and augment.scale must be under 1")

    @property
    def margin(self) -> float:
        """How much larger than the patch a cut must be so that an affine sees no border."""
        return 1 + self.scale + float(np.sin(np.deg2rad(self.rotate_degrees)))


class Augment:
    """Vary one patch: size, affine, flips, intensity, bias field, noise.

    A call takes and gives the same dict of arrays: ``image`` (C, *S) float32, ``coordinates``
    (D, *S) float32 or absent, ``label`` (1, *S), ``superpixels`` (1, *S) or absent, or in a label's
    place ``normals`` (3, *S) float32 of a photograph, whose vectors turn with the picture; and
    ``places`` (K, D + 1) of supervoxels or absent, which are no array: a turned or stretched head's
    supervoxels stay where they were in the head, as coordinates do. What an
    affine turns or a factor resizes is cut in another size, and its centre is kept.

    Args:
        settings: how strongly.
        patch_voxels: size of the result.
        is_image: of photographs: there is ``NOTHING`` beyond their borders, no field and no air.
    """

    def __init__(
        self, settings: AugmentSettings, patch_voxels: tuple[int, ...], *, is_image: bool = False
    ) -> None:
        self._settings = settings
        self._patch = patch_voxels
        self._is_image = is_image

    def draw(self, rng: np.random.Generator) -> Warp:
        """Decide how this patch will be resized and turned, and so how large to cut it."""
        settings = self._settings
        turns = bool(rng.random() < settings.affine_probability)
        low, high = settings.resize or (1.0, 1.0)
        factor = float(rng.uniform(low, high)) if settings.resize else 1.0
        seen = tuple(max(1, round(n / factor)) for n in self._patch)
        if not turns:
            return Warp(seen, seen, factor)
        extent = [n * settings.margin for n in self._patch]
        if not self._is_monais:
            # Turned, an axis reaches for what the others span as well.
            lean = float(np.sin(np.deg2rad(settings.rotate_degrees)))
            total = sum(self._patch)
            wide = (1 + settings.scale) / factor
            extent = [(n + lean * (total - n)) * wide for n in self._patch]
        # One more, so that a cut to be turned is larger than the patch whatever the settings.
        return Warp(tuple(int(np.ceil(n)) + 1 for n in extent), seen, factor, turns)

    def __call__(self, sample: Sample, warp: Warp, seed: int, axes: tuple[int, ...]) -> Sample:
        """Vary ``sample``; the same ``seed`` gives the same bits.

        Args:
            sample: of the size ``warp.cut``; not kept.
            warp: what ``draw`` gave.
            seed: of this patch.
            axes: of the volume that the patch's axes are.
        """
        rng = np.random.default_rng(seed)
        places = sample.pop("places", None)
        if warp.turns:
            sample = self._affine(sample, warp, rng)
        elif warp.cut != self._patch:
            sample = resize(sample, self._patch)
        sample = self._flip(sample, rng, axes, places)
        intensity = self._intensity
        if intensity is not None:
            intensity.set_random_state(int(rng.integers(2**31)))
            before = sample["image"]
            image = torch.as_tensor(intensity(before)).as_subclass(torch.Tensor).float()
            # Where there is no subject there is nothing to brighten.
            sample["image"] = (
                image if self._is_image else torch.where(before == OUTSIDE, before, image)
            )
        if places is not None:
            sample["places"] = places
        return sample

    @functools.cached_property
    def _intensity(self) -> Compose | None:
        return _intensity_transforms(self._settings, has_field=not self._is_image)

    @property
    def _is_monais(self) -> bool:
        return len(self._patch) == 3 and not self._settings.resize

    def _affine(self, sample: Sample, warp: Warp, rng: np.random.Generator) -> Sample:
        settings = self._settings
        angle = np.deg2rad(settings.rotate_degrees)
        dimensions = len(self._patch)
        if not self._is_monais:
            angles = rng.uniform(-angle, angle, 3 if dimensions == 3 else 1)
            stretch = 1 + rng.uniform(-settings.scale, settings.scale, dimensions)
            matrix = rotation(angles.tolist()) * (stretch / warp.factor)
            turned = turn(sample, self._patch, matrix, NOTHING if self._is_image else {})
            if "normals" in turned:
                turned["normals"] = turn_vectors(turned["normals"], matrix)
            return turned
        monai = RandAffined(
            keys=list(sample),
            spatial_size=self._patch,
            prob=1.0,
            rotate_range=[angle] * dimensions,
            scale_range=[settings.scale] * dimensions,
            mode=["bilinear" if key in SMOOTH else "nearest" for key in sample],
            padding_mode="border",
        )
        monai.set_random_state(int(rng.integers(2**31)))
        kinds = {key: value.dtype for key, value in sample.items()}
        # Labels and superpixel numbers below 2**24 are exact in float32, which grid_sample needs.
        warped = monai({key: value.float() for key, value in sample.items()})
        tensors = {key: torch.as_tensor(warped[key]) for key in sample}
        return {key: t.as_subclass(torch.Tensor).to(kinds[key]) for key, t in tensors.items()}

    def _flip(
        self,
        sample: Sample,
        rng: np.random.Generator,
        axes: tuple[int, ...],
        places: torch.Tensor | None,
    ) -> Sample:
        for axis in self._settings.flip_axes:
            if axis not in axes or rng.random() < 0.5:
                continue
            sample = {key: value.flip(axes.index(axis) + 1) for key, value in sample.items()}
            if places is not None:
                places[:, axis] *= -1
            if "coordinates" in sample:
                # A mirrored head lies at mirrored positions: the content moves, and so does its
                # coordinate along the mirrored axis.
                sample["coordinates"][axis] *= -1
            if "normals" in sample:
                sample["normals"] = mirror_vectors(sample["normals"], axes.index(axis))
        return sample


class _CoilField(RandBiasField):
    """Multiply the signal by a smooth field.

    Normalisation moves the image off zero, so the darkest voxel of the patch stands for no signal.
    """

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:  # type: ignore[override]
        dark = img.amin(tuple(range(1, img.ndim)), keepdim=True)
        return torch.as_tensor(super().__call__(img - dark, randomize=randomize)) + dark


def _intensity_transforms(settings: AugmentSettings, *, has_field: bool) -> Compose | None:
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
    if settings.bias_field and has_field:
        steps.append(
            _CoilField(
                degree=2,
                coeff_range=(-settings.bias_field, settings.bias_field),
                prob=probability,
            )
        )
    if settings.noise:
        steps += [
            RandGaussianSmooth(_BLUR, _BLUR, _BLUR, prob=probability / 2),
            RandGaussianNoise(std=settings.noise, prob=probability),
        ]
    if not steps:
        return None
    return Compose(steps)
