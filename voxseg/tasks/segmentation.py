"""Segmentation: every voxel gets one of N classes.

The loss is Dice + cross-entropy, or either alone (MONAI's), summed over the main and the auxiliary
outputs of deep supervision; the score is Dice per class.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

LossKind = Literal["dice_ce", "ce", "dice"]


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
    """

    def __init__(self, num_classes: int, kind: LossKind = "dice_ce") -> None:
        super().__init__()
        self._kind = kind
        self._dice = DiceLoss(include_background=num_classes == 1, batch=True)
        self._num_classes = num_classes

    def forward(
        self, logits: Tensor, auxiliary: list[Tensor], label: Tensor, auxiliary_weight: float
    ) -> Tensor:
        """Mean loss of the batch.

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
        loss = logits.new_zeros(())
        if "ce" in self._kind:
            loss = loss + nn.functional.cross_entropy(logits, target)
        if "dice" in self._kind:
            loss = loss + self._dice(logits.softmax(1), truth)
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
