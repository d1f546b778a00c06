"""What SLIC does with an image on a GPU before its rounds: the launches of ``cuda/slic_image.cu``.

Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, *SLIC superpixels compared to
state-of-the-art superpixel methods*, TPAMI 34(11), 2012; see ``voxseg/ops/slic.py``.
Twin: ``make_plan`` of ``voxseg/ops/slic_plan.py``, whose numbers these are. The host waits for the
GPU once, a second time for a mask's sample, and once more when there is smoothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxseg.ops import nvrtc
from voxseg.ops.slic_plan import (
    Box,
    SlicNumbers,
    SlicSettings,
    check_shapes,
    checked_range,
    make_numbers,
    with_three_axes,
)

THREADS = 256

_OP = "slic_image"
_SMALL = {torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16}
_SMALL |= {torch.float16, torch.bfloat16, torch.float32}
"""Types whose values float32 holds."""
_SMALLEST_SIGMA = 1e-15
"""Standard deviations up to here, in voxels, do nothing; SciPy's limit."""
_MOST_VOXELS = 2**31 - THREADS
"""So that the number of every thread is below 2**31."""
_TRUNCATE = 4.0
"""Standard deviations at which the Gaussian is cut off; SciPy's default."""


def scaled_image(
    image: Tensor, mask: Tensor | None, settings: SlicSettings
) -> tuple[Tensor, SlicNumbers]:
    """Check an image against its settings, work out a run's numbers, and smooth and scale.

    Args:
        image: (*S) or (C, *S), any real dtype.
        mask: (*S) boolean or None, on the same device.
        settings: what was asked for.

    Returns:
        (C, Z, Y, X) float32, at most 1, infinity off the mask; and the numbers. Where these count
        no voxel, the tensor holds nothing of use.
    """
    spatial = len(settings.spacing)
    if image.is_complex():
        raise TypeError(f"image must hold real numbers, got dtype {image.dtype}")
    check_shapes(image.shape, None if mask is None else mask.shape, spatial)
    inside = None
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean, got dtype {mask.dtype}; write mask > 0")
        inside = with_three_axes(mask.contiguous(), spatial)[0]
    dtype = torch.float32 if image.dtype in _SMALL else torch.float64
    channels = with_three_axes(image.to(dtype).contiguous(), spatial)
    if channels[0].numel() > _MOST_VOXELS:
        raise ValueError(
            f"slic on a GPU takes images of up to {_MOST_VOXELS} voxels, got {tuple(image.shape)}"
        )

    extremes, box, num_voxels = _measure(channels, inside)
    ranges = [(0.0, 0.0)] * len(channels)
    if num_voxels:
        ranges = [checked_range(low, high) for low, high in extremes]
        if any(settings.sigma_voxels):
            channels, ranges = _smoothed(channels, inside, ranges, settings.sigma_voxels)

    def sample(steps: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        assert inside is not None
        region = inside[tuple(slice(*limits) for limits in box)]
        return np.nonzero(region[:: steps[0], :: steps[1], :: steps[2]].cpu().numpy())

    numbers = make_numbers(ranges, box, num_voxels, settings, sample if mask is not None else None)
    return _scaled(channels, inside, numbers.scaling), numbers


def _measure(channels: Tensor, inside: Tensor | None) -> tuple[list[tuple[float, float]], Box, int]:
    """Lowest and highest value of every channel, and the mask's bounding box and voxels."""
    axes = channels.shape[1:]
    if inside is None:
        low, high = _extremes(channels, None).tolist()
        box = tuple((0, n) for n in axes)
        return list(zip(low, high, strict=True)), box, channels[0].numel()
    planes, lines = inside.any(dim=2), inside.any(dim=0)
    hits = [planes.any(dim=1), planes.any(dim=0), lines.any(dim=0)]
    found = [_extremes(channels, inside).flatten(), inside.sum().view(1), *hits]
    # One transfer for everything.
    numbers = torch.cat([tensor.double() for tensor in found]).cpu().numpy()
    low, high = numbers[: 2 * len(channels)].reshape(2, -1).tolist()
    parts = np.split(numbers[2 * len(channels) + 1 :], np.cumsum(axes)[:-1])
    filled = [np.flatnonzero(part) for part in parts]
    box = tuple((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, 0) for hit in filled)
    return list(zip(low, high, strict=True)), box, int(numbers[2 * len(channels)])


def _extremes(channels: Tensor, inside: Tensor | None) -> Tensor:
    """(2, C) lowest and highest value of each channel; NaN if there is one."""
    if inside is None:
        return torch.stack(torch.aminmax(channels.flatten(1), dim=1))
    infinity = torch.full((), torch.inf, dtype=channels.dtype, device=channels.device)
    return torch.stack(
        [
            torch.where(inside, channels, infinity).flatten(1).amin(dim=1),
            torch.where(inside, channels, -infinity).flatten(1).amax(dim=1),
        ]
    )


def _smoothed(
    channels: Tensor,
    inside: Tensor | None,
    ranges: list[tuple[float, float]],
    sigma: Sequence[float],
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Smooth every channel, within the mask; also give the lowest value and range of each."""
    result = torch.empty_like(channels, dtype=torch.float32)
    kernels = [_half_gaussian(s).to(channels.device) for s in sigma]
    if inside is not None:
        weight = _filtered(inside.float(), kernels, zero=True)
    for out, channel, (low, _) in zip(result, channels, ranges, strict=True):
        values = (channel - low).float()
        if inside is None:
            out.copy_(_filtered(values, kernels, zero=False))
        else:
            values = _filtered(values.masked_fill(~inside, 0), kernels, zero=True)
            torch.div(values, weight, out=out)
    low, high = _extremes(result, inside).tolist()
    smooth = [checked_range(a, b) for a, b in zip(low, high, strict=True)]
    # Rounding must not be taken for the contrast of a constant channel.
    return result, [
        new if old[1] > 0 else (0.0, 0.0) for new, old in zip(smooth, ranges, strict=True)
    ]


def _half_gaussian(sigma: float) -> Tensor:
    """The weights of a Gaussian from its centre outwards, float64; none for no smoothing."""
    if sigma <= _SMALLEST_SIGMA:
        return torch.empty(0, dtype=torch.float64)
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    return torch.from_numpy((weights / weights.sum())[radius:].copy())


def _filtered(image: Tensor, kernels: Sequence[Tensor], *, zero: bool) -> Tensor:
    """Filter (Z, Y, X) along each axis; beyond it is the nearest voxel, or nothing."""
    run = nvrtc.kernels(_OP, image.device)
    for axis, weights in enumerate(kernels):
        if not weights.numel():
            continue
        out = torch.empty_like(image)
        shape: list[nvrtc.Argument] = [image.shape[axis], image.stride(axis), zero, image.numel()]
        arguments = [image, out, weights, weights.numel() - 1, *shape]
        run("slic_smooth", (-(-image.numel() // THREADS),), THREADS, arguments)
        image = out
    return image


def _scaled(channels: Tensor, inside: Tensor | None, scaling: NDArray[np.float64]) -> Tensor:
    """(C, Z, Y, X) float32: ``(value - offset) * factor``, infinity off the mask."""
    run = nvrtc.kernels(_OP, channels.device)
    kernel = "slic_scale_float" if channels.dtype == torch.float32 else "slic_scale_double"
    result = torch.empty_like(channels, dtype=torch.float32)
    for channel, out, (low, factor) in zip(channels, result, scaling.tolist(), strict=True):
        arguments: list[nvrtc.Argument] = [channel, inside, out, low, factor, out.numel()]
        run(kernel, (-(-out.numel() // THREADS),), THREADS, arguments)
    return result
