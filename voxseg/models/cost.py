"""What one forward pass of a network costs: bytes that live at once, and operations.

Source: operations are counted as in Table 5 of Jafari and Rother, 2020, arXiv:2006.07742, two for
a multiplication and an addition; the rest is voxseg's own.

Networks run on the meta device, with shapes and without numbers, so that the largest image costs
a second and no memory.
"""

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from voxseg.layers.depth_first import LiveBytes


def live_bytes(
    network: nn.Module,
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    superpixels: int = 0,
) -> int:
    """Return the most bytes of tensors that live at once while ``network`` answers one image.

    Image, superpixels (int32) and answer are included. Not included: parameters and buffers, what
    a convolution or another kernel takes for itself while it runs, and what the allocator keeps.

    Args:
        network: on any device; left as it is.
        shape: (B, C, *S) of the image.
        dtype: of image, parameters and activations.
        superpixels: K, for the designs that need superpixels; they get one at least.
    """
    plan = without_numbers(network, dtype)
    with torch.no_grad(), LiveBytes("meta") as memory:
        plan(*_inputs(plan, shape, dtype, superpixels))
    peak: int = memory.peak
    return peak


def count_flops(network: nn.Module, shape: Sequence[int], *, superpixels: int = 0) -> int:
    """Return the operations of ``network``'s convolutions and matrix products on one image.

    A multiplication and its addition are two. Normalisation, activations, pooling and resizing,
    which are a few a value, are not counted. The arguments are those of ``live_bytes``.
    """
    plan = without_numbers(network, torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plan(*_inputs(plan, shape, torch.float32, superpixels))
    return int(counter.get_total_flops())


def flops_a_superpixel(network: nn.Module, channels: int, dims: int) -> int:
    """Return the operations that each superpixel after the first adds, as ``count_flops`` does.

    Args:
        network: of images with 2 or 3 axes (``dims``) and so many ``channels``; left as it is.
        channels: of the image.
        dims: D.
    """
    if not getattr(network, "needs_superpixels", False):
        return 0
    shape = (1, channels, *(32,) * dims)  # they cost the same in an image of any size
    one, two = (count_flops(network, shape, superpixels=count) for count in (1, 2))
    return two - one


def without_numbers(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy ``network`` to the meta device, in eval mode, without copying its numbers first."""
    without: dict[int, Tensor] = {}
    for value in chain(network.parameters(), network.buffers()):
        empty = torch.empty_like(value, device="meta")
        is_parameter = isinstance(value, nn.Parameter)
        without[id(value)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(network, without).to(dtype).eval()


def _inputs(
    network: nn.Module, shape: Sequence[int], dtype: torch.dtype, count: int
) -> tuple[Tensor] | tuple[Tensor, Tensor, int]:
    image = torch.empty(*shape, dtype=dtype, device="meta")
    if not getattr(network, "needs_superpixels", False):
        return (image,)
    labels = torch.empty(shape[0], *shape[2:], dtype=torch.int32, device="meta")
    return image, labels, max(count, 1)
