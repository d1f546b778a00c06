"""How strongly training patches are varied."""

from dataclasses import dataclass

import numpy as np


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
