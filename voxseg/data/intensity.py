"""Random changes of a patch's intensities, MONAI's; apart, for MONAI takes seconds to load."""

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)

from voxseg.data.augment_settings import AugmentSettings

_BLUR = (0.25, 0.8)  # voxels: range of the Gaussian's standard deviation along each axis


class _CoilField(RandBiasField):
    """Multiply the signal by a smooth field.

    Normalisation moves the image off zero, so the darkest voxel of the patch stands for no signal.
    """

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:  # type: ignore[override]
        dark = img.amin(tuple(range(1, img.ndim)), keepdim=True)
        return torch.as_tensor(super().__call__(img - dark, randomize=randomize)) + dark


def intensity_transforms(settings: AugmentSettings, *, has_field: bool) -> Compose | None:
    """Build what ``settings`` ask for, None for nothing; ``has_field``: with a coil's field."""
    probability = settings.intensity_probability
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
