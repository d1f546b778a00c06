"""Augmentation of training patches, reproducible sample by sample.

Intensities, and turned volumes, are MONAI's; slices, photographs and all that is resized go through
``warp``.

The random state is set from the sample's own seed before each call, so a patch depends on (seed,
epoch, step) alone: not on processes, nor on what a resumed run drew before.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from voxseg.data.augment_settings import AugmentSettings as AugmentSettings
from voxseg.data.grid import IGNORED
from voxseg.data.normal_warp import mirror_vectors, turn_vectors
from voxseg.data.normalise import OUTSIDE
from voxseg.data.warp import SMOOTH, Sample, Warp, resize, rotation, turn

if TYPE_CHECKING:
    from monai.transforms import Compose

NOTHING = {"image": 0.0, "label": float(IGNORED), "superpixels": -1.0, "normals": 0.0}
"""What lies beyond the border of a photograph."""


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
    def _intensity(self) -> "Compose | None":
        if not self._settings.intensity_probability:
            return None
        from voxseg.data.intensity import intensity_transforms  # MONAI, three seconds

        return intensity_transforms(self._settings, has_field=not self._is_image)

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
        from monai.transforms import RandAffined

        # Arrays of one kind go through together: the grid of points is most of the work.
        kinds: dict[str, list[str]] = {}
        for key in sample:
            kinds.setdefault("bilinear" if key in SMOOTH else "nearest", []).append(key)
        monai = RandAffined(
            keys=list(kinds),
            spatial_size=self._patch,
            prob=1.0,
            rotate_range=[angle] * dimensions,
            scale_range=[settings.scale] * dimensions,
            mode=list(kinds),
            padding_mode="border",
        )
        monai.set_random_state(int(rng.integers(2**31)))
        # Labels and superpixel numbers below 2**24 are exact in float32, which grid_sample needs.
        warped = monai(
            {kind: torch.cat([sample[key].float() for key in keys]) for kind, keys in kinds.items()}
        )
        parts: Sample = {}
        for kind, keys in kinds.items():
            joined = torch.as_tensor(warped[kind]).as_subclass(torch.Tensor)
            channels = torch.split(joined, [len(sample[key]) for key in keys])
            parts |= dict(zip(keys, channels, strict=True))
        return {key: parts[key].to(value.dtype) for key, value in sample.items()}

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
