"""Superpixel pooling: reduce a dense feature map to one vector per superpixel, and undo it.

Source: Schuurmans, Berman, Blaschko, *Efficient semantic image segmentation with superpixel
pooling*, 2018, arXiv:1806.02705, Equations 1-3.
Twins: ``reference/superpixel_pool.py`` (SciPy, the definition of correct),
``cpu/superpixel_pool.py`` (Numba), ``cuda/superpixel_pool.py`` (launches the kernels of the folder
``cuda``); ``portable.py`` runs on any other device.
Departures: where the paper is silent, ties go to the lowest linear index, and a superpixel without
a voxel is 0 and has no gradient.

Registered with ``torch.library`` as ``voxseg::superpixel_*``, so that they can be compiled and
exported; gradients of any order exist.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from voxseg.ops import portable
from voxseg.ops.cpu import superpixel_pool as cpu
from voxseg.ops.cuda import superpixel_pool as cuda
from voxseg.ops.portable import empty_like_features, index_dtype
from voxseg.ops.superpixel_plan import (
    SuperpixelPlan,
    check_integer,
    check_labels,
    narrow,
    superpixel_plan,
)

__all__ = ["SuperpixelPlan", "superpixel_plan", "superpixel_pool", "superpixel_unpool"]

Reduce = Literal["max", "mean"]


def superpixel_pool(
    features: Tensor, superpixels: Tensor | SuperpixelPlan, count: int, reduce: Reduce = "max"
) -> Tensor:
    """Reduce ``features`` over every superpixel.

    Args:
        features: (B, C, *S) float64, float32, float16 or bfloat16 with 1, 2 or 3 spatial axes, in
            any memory layout; channels first or last are read without a copy.
        superpixels: (B, *S) integer. A voxel whose label is negative or at least ``count`` belongs
            to no superpixel and is ignored. Not differentiable. Or a plan of such labels, from
            ``superpixel_plan``.
        count: K, the same for the whole batch.
        reduce: "max" takes the largest value per channel. Among equal values the voxel with the
            lowest linear index wins and gets the whole gradient; NaN counts as the largest, so it
            propagates. "mean" averages, adding in float64 on the CPU; on CUDA float32 features
            are added in float32 within tiles of 2048 voxels and in float64 across them.

    Returns:
        (B, C, K) in the dtype of ``features``. A superpixel without a voxel is 0 and passes no
        gradient. Deterministic: the same bits on every run, for any number of threads.

    Raises:
        TypeError: if features are not floating point or superpixels not integer.
        ValueError: if shapes or devices do not match, or ``count`` or ``reduce`` is out of range.
    """
    if isinstance(superpixels, SuperpixelPlan):
        superpixels = _planned(superpixels, count)
    _check_features(features, superpixels, count)
    superpixels = narrow(superpixels)
    if reduce == "max":
        maxima: Tensor = torch.ops.voxseg.superpixel_max(features, superpixels, count)[0]
        return maxima
    if reduce == "mean":
        means: Tensor = torch.ops.voxseg.superpixel_mean(features, superpixels, count)[0]
        return means
    raise ValueError(f'reduce must be "max" or "mean", got {reduce!r}')


def superpixel_unpool(
    values: Tensor,
    superpixels: Tensor | SuperpixelPlan,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Give every voxel the value of its superpixel.

    Args:
        values: (B, C, K) floating point.
        superpixels: (B, *S) integer with 1, 2 or 3 spatial axes; a voxel whose label is negative
            or at least K gets 0. Not differentiable. Or a plan of such labels, from
            ``superpixel_plan``.
        memory_format: ``torch.channels_last`` or ``torch.channels_last_3d`` lay out the result
            with channels last.

    Returns:
        (B, C, *S) in the dtype of ``values``. Its gradient adds up what the voxels of each
        superpixel received, as means do. Deterministic.

    Raises:
        TypeError: if values are not floating point or superpixels not integer.
        ValueError: if shapes or devices do not match.
    """
    if values.ndim != 3:
        raise ValueError(f"values must be (B, C, K), got {tuple(values.shape)}")
    if isinstance(superpixels, SuperpixelPlan):
        superpixels = _planned(superpixels, values.shape[2])
    _check_types("values", values, superpixels)
    if superpixels.ndim not in (2, 3, 4) or superpixels.shape[0] != values.shape[0]:
        raise ValueError(
            f"superpixels must be (B, *S) with B = {values.shape[0]} and 1 to 3 spatial axes, "
            f"got {tuple(superpixels.shape)}"
        )
    channels_last = memory_format != torch.contiguous_format
    unpooled: Tensor = torch.ops.voxseg.superpixel_unpool(
        values, narrow(superpixels), channels_last
    )
    return unpooled


def _planned(plan: SuperpixelPlan, count: int) -> Tensor:
    if plan.count != count:
        raise ValueError(f"the plan is of {plan.count} superpixels, but {count} were asked for")
    return plan.superpixels


def _check_features(features: Tensor, superpixels: Tensor, count: int) -> None:
    if features.ndim not in (3, 4, 5):
        raise ValueError(
            f"features must be (B, C, *S) with 1 to 3 spatial axes, got {tuple(features.shape)}"
        )
    _check_types("features", features, superpixels)
    expected = features.shape[:1] + features.shape[2:]
    if superpixels.shape != expected:
        raise ValueError(
            f"superpixels must be (B, *S) = {tuple(expected)} to match features "
            f"{tuple(features.shape)}, got {tuple(superpixels.shape)}"
        )
    check_labels(superpixels, count)


def _check_types(name: str, tensor: Tensor, superpixels: Tensor) -> None:
    if not tensor.is_floating_point() or tensor.element_size() == 1:
        raise TypeError(
            f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}: "
            f"convert with .float()"
        )
    check_integer(superpixels)
    if tensor.device != superpixels.device:
        raise ValueError(
            f"{name} and superpixels must be on one device, got {tensor.device} and "
            f"{superpixels.device}"
        )


def _has_channels_last(features: Tensor) -> bool:
    """Whether (B, C, *S) lies in memory with channels last, and not also with channels first."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = formats.get(features.ndim)
    return (
        layout is not None
        and features.is_contiguous(memory_format=layout)
        and not features.is_contiguous()
    )


def _fake_max(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    shape = (*features.shape[:2], count)
    index = index_dtype(math.prod(features.shape[2:]))
    return features.new_empty(shape), features.new_empty(shape, dtype=index)


def _fake_max_backward(
    grad: Tensor, argmax: Tensor, size: list[int], channels_last: bool
) -> Tensor:
    return empty_like_features(grad, size, channels_last)


def _fake_sum(features: Tensor, superpixels: Tensor, count: int) -> Tensor:
    return features.new_empty((*features.shape[:2], count))


def _fake_mean(features: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    sizes = features.new_empty((features.shape[0], count), dtype=torch.int64)
    return _fake_sum(features, superpixels, count), sizes


def _fake_unpool(values: Tensor, superpixels: Tensor, channels_last: bool) -> Tensor:
    size = [*values.shape[:2], *superpixels.shape[1:]]
    return empty_like_features(values, size, channels_last)


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, argmax = inputs[0], output[1]
    ctx.mark_non_differentiable(argmax)
    ctx.save_for_backward(argmax)
    ctx.size, ctx.channels_last = list(features.shape), _has_channels_last(features)


def _max_gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
    (argmax,) = ctx.saved_tensors
    grad = torch.ops.voxseg.superpixel_max_backward(grad, argmax, ctx.size, ctx.channels_last)
    return grad, None, None


def _save_max_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _max_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (argmax,) = ctx.saved_tensors
    flat = grad.flatten(2)
    if flat.shape[2] == 0:
        return flat.new_zeros(argmax.shape), None, None, None
    taken = flat.gather(2, argmax.to(torch.int64).clamp_min(0))
    return taken.where(argmax >= 0, 0), None, None, None


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[1], output[1])
    ctx.channels_last = _has_channels_last(inputs[0])


def _mean_gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
    superpixels, sizes = ctx.saved_tensors
    shares = grad / sizes.clamp_min(1)[:, None].to(_float_type(grad.dtype))
    shares = shares.to(grad.dtype)
    grad = torch.ops.voxseg.superpixel_unpool(shares, superpixels, ctx.channels_last)
    return grad, None, None


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.channels_last = _has_channels_last(inputs[0])


def _sum_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (superpixels,) = ctx.saved_tensors
    grad = torch.ops.voxseg.superpixel_unpool(grad, superpixels, ctx.channels_last)
    return grad, None, None


def _save_unpool(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.count = inputs[0].shape[2]


def _unpool_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (superpixels,) = ctx.saved_tensors
    grad = torch.ops.voxseg.superpixel_sum(grad, superpixels, ctx.count)
    return grad, None, None


def _float_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _register(
    name: str,
    schema: str,
    fake: Callable[..., object],
    gradient: Callable[..., object],
    save: Callable[..., None],
) -> None:
    """Make ``voxseg::name`` known to torch: a twin on the CPU and CUDA, plain torch elsewhere."""
    op = f"voxseg::{name}"

    torch.library.define(op, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(op, "cpu", getattr(cpu, name))
    torch.library.impl(op, "cuda", getattr(cuda, name))
    torch.library.impl(op, "default", getattr(portable, name))
    torch.library.register_fake(op, fake)
    torch.library.register_autograd(op, gradient, setup_context=save)


_POOL = "(Tensor features, Tensor superpixels, SymInt count)"
_register("superpixel_max", f"{_POOL} -> (Tensor, Tensor)", _fake_max, _max_gradient, _save_max)
_register(
    "superpixel_max_backward",
    "(Tensor grad, Tensor argmax, SymInt[] size, bool channels_last) -> Tensor",
    _fake_max_backward,
    _max_backward_gradient,
    _save_max_backward,
)
_register("superpixel_sum", f"{_POOL} -> Tensor", _fake_sum, _sum_gradient, _save_sum)
_register("superpixel_mean", f"{_POOL} -> (Tensor, Tensor)", _fake_mean, _mean_gradient, _save_mean)
_register(
    "superpixel_unpool",
    "(Tensor values, Tensor superpixels, bool channels_last) -> Tensor",
    _fake_unpool,
    _unpool_gradient,
    _save_unpool,
)
