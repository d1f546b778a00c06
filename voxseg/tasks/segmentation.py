"""Segmentation: every voxel gets one of N classes.

The loss is Dice + cross-entropy, or either alone, summed over the main and the auxiliary outputs of
deep supervision; the score is Dice per class.

Dice is Milletari, Navab and Ahmadi, *V-Net*, 2016, arXiv:1606.04797, with a plain denominator as in
MONAI's ``DiceLoss(batch=True)``, which it equals; its sums over the batch are open here, so that
processes that share a batch can add them up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

LossKind = Literal["dice_ce", "ce", "dice"]

_SMOOTH = 1e-5  # keeps the Dice of an absent class finite


@dataclass(frozen=True)
class DiceCounts:
    """Voxel counts per class, (num_classes,) each, from which Dice is made; they add up."""

    both: Tensor
    predicted: Tensor
    true: Tensor

    def __add__(self, other: "DiceCounts") -> "DiceCounts":
        return DiceCounts(
            self.both + other.both, self.predicted + other.predicted, self.true + other.true
        )

    @property
    def dice(self) -> Tensor:
        """Dice per class, NaN where a class is in neither."""
        total = (self.predicted + self.true).double()
        return torch.where(total > 0, 2 * self.both.double() / total.clamp_min(1), torch.nan)

    @property
    def foreground_mean(self) -> float:
        """Mean over the classes after background that are present; 0 when none is."""
        value = self.dice[1:].nanmean()
        return 0.0 if value.isnan() else float(value)


class SegmentationLoss(nn.Module):
    """Dice, cross-entropy or their sum, with deep supervision.

    Args:
        num_classes: N, background included.
        kind: "dice_ce", "ce" or "dice". Dice leaves out background and treats the batch as one
            volume, so that a class that is absent from one small patch does not dominate.
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
    """

    def __init__(
        self,
        num_classes: int,
        kind: LossKind = "dice_ce",
        add: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        super().__init__()
        self._kind = kind
        self._num_classes = num_classes
        self._add = add

    def forward(
        self, logits: Tensor, auxiliary: list[Tensor], label: Tensor, auxiliary_weight: float
    ) -> Tensor:
        """Mean loss of the batch; of several processes, the part of this one.

        The parts add up to the loss of the whole batch, whatever the processes' shares, and so do
        their gradients.

        Args:
            logits: (B, N, *S), the main output.
            auxiliary: further outputs; a coarser one is compared with the share of each class
                in its voxels.
            label: (B, 1, *S) int64 class indices.
            auxiliary_weight: weight of each auxiliary output, halved for each halving of its
                grid; 0 skips them.
        """
        shares = nn.functional.one_hot(label[:, 0], self._num_classes).movedim(-1, 1).float()
        loss = self._one(logits, label, shares)
        if auxiliary_weight:
            for output in auxiliary:
                coarseness = output.shape[2] / label.shape[2]
                loss = loss + auxiliary_weight * coarseness * self._one(output, label, shares)
        return loss

    def _one(self, logits: Tensor, label: Tensor, shares: Tensor) -> Tensor:
        logits = logits.float()
        truth, target = shares, label[:, 0]
        if logits.shape[2:] != label.shape[2:]:
            truth = target = _average_pool(shares, logits.shape[2:])
        axes = [axis for axis in range(logits.ndim) if axis != 1]
        scores = logits.softmax(1)
        both, mass = (scores * truth).sum(axes), scores.sum(axes) + truth.sum(axes)
        voxels = logits.numel() // logits.shape[1]
        counts = logits.new_tensor([voxels, 1])
        sums = self._add(torch.cat([both, mass, counts]))
        both, mass, (all_voxels, processes) = torch.split(sums, [len(both), len(mass), 2])
        loss = logits.new_zeros(())
        if self._kind != "dice":
            # A mean over this process's voxels becomes its part of the mean over all.
            loss = loss + nn.functional.cross_entropy(logits, target) * (voxels / all_voxels)
        if self._kind != "ce":
            first = 0 if self._num_classes == 1 else 1  # background does not count
            dice = (2 * both[first:] + _SMOOTH) / (mass[first:] + _SMOOTH)
            loss = loss + (1 - dice).mean() / processes
        return loss


def _average_pool(volume: Tensor, size: torch.Size) -> Tensor:
    """Average (B, C, *S) over the cells of a coarser grid."""
    if len(size) == 2:
        return nn.functional.adaptive_avg_pool2d(volume, (size[0], size[1]))
    return nn.functional.adaptive_avg_pool3d(volume, (size[0], size[1], size[2]))


def count_dice(predicted: Tensor, label: Tensor, num_classes: int) -> DiceCounts:
    """Count agreement of two class-index maps of one shape."""
    predicted, label = predicted.reshape(-1).long(), label.reshape(-1).long()
    both = torch.bincount(label[predicted == label], minlength=num_classes)
    return DiceCounts(
        both,
        torch.bincount(predicted, minlength=num_classes),
        torch.bincount(label, minlength=num_classes),
    )
