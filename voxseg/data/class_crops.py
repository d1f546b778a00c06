"""Crops of photographs for training and testing a classifier.

Source: the augmentation of the authors' code for Shah, Ghosh, Davis and Goldstein, 2018,
arXiv:1804.10343 (random resized crops of Szegedy and others, arXiv:1409.4842; jitter of brightness,
contrast and saturation; lighting of Krizhevsky, Sutskever and Hinton, NIPS 2012).

A crop is drawn from its own seed alone, as patches are, so that any number of processes, and a run
that was stopped and resumed, see the same ones. Photographs are not drawn but dealt: each comes
once before any comes again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from voxseg.data.normalise import Normalisation, colours_of, of_colours
from voxseg.data.patches import Batch, one_thread
from voxseg.data.prepare import Prepared
from voxseg.data.warp import resized
from voxseg.errors import UsageError

_TRIES = 10  # crops that must fit before the largest in the middle is taken
_GREY = (0.299, 0.587, 0.114)
# Principal components of ImageNet's colours in 0 to 1, and their deviations.
_COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
_CENTRE = 0.875  # of the shorter side: 224 of 256 pixels


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How photographs are cut and varied."""

    pixels: tuple[int, int]
    """Height and width of a crop as the network sees it."""
    normalise: Normalisation
    """As the photographs were prepared: colours are varied before it."""
    area: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the photograph's area, drawn evenly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest crop, width by height, drawn evenly on a logarithmic scale."""
    flips: bool = True
    """Mirror half of the crops left to right."""
    jitter: tuple[float, float, float] = (0.4, 0.4, 0.4)
    """Largest relative change of brightness, contrast and saturation; 0 for none."""
    lighting: float = 0.1
    """Deviation of the factors with which ImageNet's main colours are added; 0 for none."""

    @property
    def varies_colours(self) -> bool:
        """Whether crops have other colours than their photographs."""
        return any(self.jitter) or self.lighting > 0


class CropSampler:
    """Cut a batch of random crops.

    Args:
        cases: prepared photographs with their classes.
        settings: how they are cut and varied.
        seed: of the whole run.
        share: which samples of a batch are drawn here: ``share[0]`` and each ``share[1]``-th after
            it. The samples do not depend on who draws them.

    Raises:
        UsageError: colours are to be varied that were normalised in a way that depends on the
            photograph.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        settings: CropSettings,
        *,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if settings.varies_colours and settings.normalise not in ("imagenet", "unit"):
            raise UsageError(
                f"colours cannot be varied with data.normalise={settings.normalise}; choose "
                "imagenet or unit, or set augment.jitter and augment.lighting to 0"
            )
        self._cases = cases
        self._settings = settings
        self._seed = seed
        self._share = share

    def batch(self, step: int, size: int) -> Batch:
        """Cut the batch of global ``step``: the same for the same step, whatever came before.

        Returns:
            The crops of this process's share: image (B, 3, H, W), label (B,) int64.
        """
        with one_thread():
            samples = [self._sample(step, number, size) for number in self._numbers(size)]
        images, labels = zip(*samples, strict=True)
        return Batch(torch.stack(images), torch.tensor(labels), None, 0)

    def names(self, step: int, size: int) -> str:
        """Say which photographs the batch of ``step`` is cut from, for messages."""
        drawn = {self._dealt(step * size + number) for number in self._numbers(size)}
        return ", ".join(self._cases[index].case_id for index in sorted(drawn))

    def _numbers(self, size: int) -> range:
        first, stride = self._share
        return range(first, size, stride)

    def _dealt(self, place: int) -> int:
        """Which photograph comes at a place of the sequence of all crops of the run."""
        number = len(self._cases)
        return int(_order(self._seed, place // number, number)[place % number])

    def _sample(self, step: int, number: int, size: int) -> tuple[Tensor, int]:
        case = self._cases[self._dealt(step * size + number)]
        if case.category is None:
            raise ValueError(f"{case.case_id} has no class; crops are for classification")
        rng = np.random.default_rng([self._seed, step, number])
        image = random_crop(torch.from_numpy(case.image[..., 0]), self._settings, rng)
        return image, case.category


def random_crop(image: Tensor, settings: CropSettings, rng: np.random.Generator) -> Tensor:
    """Cut a random part of a photograph, resize it, mirror it and vary its colours.

    Args:
        image: (3, H, W), normalised as ``settings`` say.
        settings: how.
        rng: of the sample.

    Returns:
        (3, *settings.pixels) float32.
    """
    top, left, height, width = draw_box((image.shape[1], image.shape[2]), settings, rng)
    cut = resized(image[:, top : top + height, left : left + width], settings.pixels)
    if settings.flips and rng.random() < 0.5:
        cut = cut.flip(2)
    if not settings.varies_colours:
        return cut.contiguous()
    colours = jittered(colours_of(cut, settings.normalise), settings.jitter, rng)
    if settings.lighting:
        colours = lit(colours, rng.normal(0, settings.lighting, 3))
    return of_colours(colours, settings.normalise).contiguous()


def draw_box(
    size: tuple[int, int], settings: CropSettings, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop that lies inside a photograph of ``size``.

    Where ten draws do not fit, it is the largest part in the middle that is neither too narrow nor
    too wide.
    """
    low, high = (math.log(ratio) for ratio in settings.ratio)
    for _ in range(_TRIES):
        area = size[0] * size[1] * rng.uniform(*settings.area)
        ratio = math.exp(rng.uniform(low, high))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= size[0] and 0 < width <= size[1]:
            top = int(rng.integers(size[0] - height + 1))
            return top, int(rng.integers(size[1] - width + 1)), height, width
    height = min(size[0], max(1, round(size[1] / settings.ratio[0])))
    width = min(size[1], max(1, round(size[0] * settings.ratio[1])))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def jittered(
    colours: Tensor, strength: tuple[float, float, float], rng: np.random.Generator
) -> Tensor:
    """Vary brightness, contrast and saturation, in an order that is drawn as well.

    Each is drawn evenly from 1 - strength to 1 + strength: a factor of the distance from black,
    from the mean grey of the picture, and from the grey of each pixel. Nothing is clipped.

    Args:
        colours: (3, H, W), 0 to 1.
        strength: of the three.
        rng: of the sample.
    """
    factors = [float(rng.uniform(1 - one, 1 + one)) for one in strength]
    for which in rng.permutation(3):
        colours = _FROM[which](colours).lerp(colours, factors[which])
    return colours


def _grey(colours: Tensor) -> Tensor:
    weights = colours.new_tensor(_GREY).view(3, 1, 1)
    return (colours * weights).sum(0, keepdim=True)


_FROM: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.zeros_like,
    lambda colours: _grey(colours).mean().expand_as(colours),
    lambda colours: _grey(colours).expand_as(colours),
)
"""What brightness, contrast and saturation are a distance from."""


def lit(colours: Tensor, factors: np.ndarray) -> Tensor:
    """Add ImageNet's principal colours, each by its deviation and a factor, to all pixels.

    Args:
        colours: (3, H, W), 0 to 1.
        factors: (3,) of the components, largest first.
    """
    shift = np.asarray(_COMPONENTS) @ (np.asarray(_DEVIATIONS) * factors)
    return colours + torch.from_numpy(shift).to(colours.dtype).view(3, 1, 1)


def centre_crop(image: Tensor, pixels: tuple[int, int]) -> Tensor:
    """Cut the middle of a photograph for testing.

    It is resized so that ``pixels`` are 7/8 of it along the axis that has least to spare: to 256
    pixels for a crop of 224, as is common.

    Args:
        image: (3, H, W).
        pixels: height and width of the crop.

    Returns:
        (3, *pixels).
    """
    size = image.shape[1:]
    factor = max(want / (_CENTRE * have) for want, have in zip(pixels, size, strict=True))
    larger = [max(want, round(have * factor)) for want, have in zip(pixels, size, strict=True)]
    image = resized(image, (larger[0], larger[1]))
    top, left = ((have - want) // 2 for want, have in zip(pixels, larger, strict=True))
    return image[:, top : top + pixels[0], left : left + pixels[1]].contiguous()


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, number: int) -> np.ndarray:
    """The order in which photographs are dealt on one turn."""
    return np.random.default_rng([seed, 0xDEA1, turn]).permutation(number)
