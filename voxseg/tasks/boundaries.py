"""Boundaries: every pixel gets the probability that one runs through it.

The loss is the class-balanced cross-entropy of Xie and Tu, *Holistically-nested edge detection*
(HED), ICCV 2015, arXiv:1504.06375, equation 2: with P pixels of an image on boundaries and N off
them, the logarithms of the former weigh N / (P + N) and those of the latter P / (P + N), so that
both count alike however rare boundaries are. Bansal and others, *PixelNet*, 2016,
arXiv:1609.06694, section 4.3, balance so over each batch. Pixels with the label ``IGNORED`` count
nowhere.

An image without a boundary, or with nothing else, has weights of 0: it adds nothing to the loss and
passes no gradient, as in HED. In a batch that is balanced as a whole it counts.

Departures: HED sums over the pixels; here the weighted sum is divided by the sum of the weights, so
that the learning rate does not depend on the size of images, and the loss of a network that says
1/2 everywhere is log 2. A coarser output of deep supervision is resized linearly to the label's
grid, as HED does by deconvolution.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from voxseg.data.grid import IGNORED
from voxseg.tasks.deep_supervision import DeepSupervision

Balance = Literal["image", "batch"]
"""Over which pixels boundaries and the rest are made to count alike."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class BoundaryLoss(DeepSupervision):
    """Class-balanced cross-entropy of one output a pixel, with deep supervision.

    Args:
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
        balance: "image" as HED, "batch" as PixelNet.
    """

    def __init__(
        self,
        add: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        balance: Balance = "image",
    ) -> None:
        super().__init__(add)
        self._balance = balance

    def check(self, logits: Tensor, label: Tensor) -> None:
        """Refuse other shapes than (B, 1, *S) of both."""
        if logits.shape != label.shape or logits.shape[1] != 1:
            raise ValueError(
                f"logits {tuple(logits.shape)} and label {tuple(label.shape)} must both be "
                "(B, 1, *S)"
            )

    def one(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of logits (B, 1, *R), resized where R is coarser than the label's grid.

        Label (B, 1, *S) or (B, 1, P), integer: 1 boundary, 0 none, or ``IGNORED``.
        """
        logits = _on_grid(logits.float(), label.shape[2:])
        is_boundary, is_counted = label == 1, label != IGNORED
        positive = (is_boundary & is_counted).flatten(1).sum(1).to(logits.dtype)
        negative = (~is_boundary & is_counted).flatten(1).sum(1).to(logits.dtype)
        sums = [_mass(positive, negative).sum(), positive.sum(), negative.sum()]
        mass, *totals = self._add(torch.stack(sums))
        if self._balance == "batch":
            positive, negative = (total.expand(len(label)) for total in totals)
            mass = _mass(*totals)
        whole = (positive + negative).clamp_min(1)
        shape = (-1, *[1] * (label.ndim - 1))
        weight = torch.where(
            is_boundary, (negative / whole).view(shape), (positive / whole).view(shape)
        )
        entropy = functional.binary_cross_entropy_with_logits(
            logits, is_boundary.to(logits.dtype), weight * is_counted, reduction="sum"
        )
        return entropy / torch.where(mass > 0, mass, 1)


def _mass(positive: Tensor, negative: Tensor) -> Tensor:
    """Sum of the weights of P pixels on boundaries and N others: 2 P N / (P + N)."""
    return 2 * positive * negative / (positive + negative).clamp_min(1)


def _on_grid(logits: Tensor, size: torch.Size) -> Tensor:
    """Resize logits (B, 1, *S) linearly."""
    if logits.shape[2:] == size:
        return logits
    return functional.interpolate(logits, list(size), mode=_LINEAR[len(size)])
