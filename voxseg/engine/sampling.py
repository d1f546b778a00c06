"""What training steps are made of, by task: patches, or crops of whole photographs."""

from collections.abc import Sequence
from typing import Protocol

from voxseg.data.class_crops import CropSampler, CropSettings
from voxseg.data.patches import Batch, PatchSampler, PatchSettings
from voxseg.data.prepare import Prepared
from voxseg.data.transforms import Augment
from voxseg.engine.classify import crop_pixels
from voxseg.engine.config import Config
from voxseg.errors import UsageError

_AREA = (0.08, 1.0)


class Sampler(Protocol):
    """Makes the batch of a step, the same whatever came before."""

    def batch(self, step: int, size: int) -> Batch:
        """Make the batch of global ``step``, of ``size`` samples in all processes."""

    def names(self, step: int, size: int) -> str:
        """Say which cases it is cut from, for messages."""


def patch_size(patch: tuple[int, ...], dims: int, cases: Sequence[Prepared]) -> tuple[int, ...]:
    """Fit ``train.patch_voxels`` to ``dims`` axes.

    One number stands for all axes; 0 is the largest extent among ``cases``.

    Raises:
        UsageError: there are numbers for other axes, or a 0 where volumes are not seen whole.
    """
    if len(patch) == 1:
        patch = patch * dims
    if len(patch) != dims:
        raise UsageError(
            f"train.patch_voxels has {len(patch)} numbers, but the images have {dims} axes"
        )
    if all(patch):
        return patch
    if cases[0].is_image or dims != len(cases[0].shape):
        raise UsageError(
            "train.patch_voxels has a 0, for whole volumes, but the network sees slices or "
            "photographs; give the size of a patch"
        )
    extents = [max(axis) for axis in zip(*(case.shape for case in cases), strict=True)]
    return tuple(size or extent for size, extent in zip(patch, extents, strict=True))


def build_sampler(
    config: Config, cases: Sequence[Prepared], patch: tuple[int, ...], share: tuple[int, int]
) -> Sampler:
    """Make what cuts the batches of a training.

    Args:
        config: task, patches, augmentation, seed.
        cases: prepared, with labels or classes.
        patch: size of a patch.
        share: see ``PatchSampler``.

    Raises:
        UsageError: settings do not go together.
    """
    settings = config.augment
    if config.task.kind == "classification":
        least, largest = settings.crop_area or _AREA
        brightness, contrast, saturation = settings.jitter or (0.0, 0.0, 0.0)
        crops = CropSettings(
            pixels=crop_pixels(patch),
            normalise=config.data.normalise,
            area=(least, largest),
            flips=1 in settings.flip_axes,
            jitter=(brightness, contrast, saturation),
            lighting=settings.lighting,
        )
        return CropSampler(cases, crops, seed=config.train.seed, share=share)
    return PatchSampler(
        cases,
        len(config.labels.values),
        PatchSettings(
            voxels=patch,
            class_share=config.train.class_share,
            coordinates=config.data.coordinates,
            places=config.model.needs_places,
            slice_axes=config.data.slice_axes,
            neighbours=config.data.neighbours,
        ),
        Augment(settings, patch, is_image=cases[0].is_image),
        seed=config.train.seed,
        share=share,
    )
