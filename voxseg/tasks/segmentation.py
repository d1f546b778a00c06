"""Segmentation: every voxel gets one of N classes.

The loss is Dice + cross-entropy, or either alone, summed over the main and the auxiliary outputs of
deep supervision; the score is Dice or IoU per class. Voxels whose label is
``IGNORED`` count nowhere.

Dice is Milletari, Navab and Ahmadi, *V-Net*, 2016, arXiv:1606.04797, with a plain denominator as in
MONAI's ``DiceLoss(batch=True)``, which it equals; its sums over the batch are open here, so that
processes that share a batch can add them up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from voxseg.data.grid import IGNORED
from voxseg.tasks.deep_supervision import DeepSupervision

LossKind = Literal["dice_ce", "ce", "dice"]

_SMOOTH = 1e-5  # keeps the Dice of an absent class finite


@dataclass(frozen=True)
class DiceCounts:
    """Voxel counts per class, (num_classes,) each, from which Dice and IoU come; they add up."""

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

    @property
    def iou(self) -> Tensor:
        """Intersection over union per class, NaN where a class is in neither."""
        union = (self.predicted + self.true - self.both).double()
        return torch.where(union > 0, self.both.double() / union.clamp_min(1), torch.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over all classes that are present, background included; 0 when none is."""
        value = self.iou.nanmean()
        return 0.0 if value.isnan() else float(value)


class SegmentationLoss(DeepSupervision):
    """Dice, cross-entropy or their sum, with deep supervision.

    Args:
        num_classes: N, background included.
        kind: "dice_ce", "ce" or "dice". Dice leaves out background and treats the batch as one
            volume, so that a class that is absent from one small patch does not dominate.
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
        weight: (N,) of each class in cross-entropy, whose mean is then a weighted one, as torch's;
            None weighs all alike.
    """

    def __init__(
        self,
        num_classes: int,
        kind: LossKind = "dice_ce",
        add: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(add)
        if weight is not None and weight.shape != (num_classes,):
            raise ValueError(f"weight must be ({num_classes},), got {tuple(weight.shape)}")
        self._kind = kind
        self._num_classes = num_classes
        self._weight = torch.ones(num_classes) if weight is None else weight.float()

    def one(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of logits (B, N, *R); label (B, 1, *S) int64 class indices, or ``IGNORED``.

        Where R is coarser than S, a voxel is compared with the share of each class in those of
        its voxels that count.
        """
        logits = logits.float()
        truth = None
        if self._kind != "ce" or logits.shape[2:] != label.shape[2:]:
            truth = self._shares(label, logits.shape[2:])
        # Sums over this process's voxels; divided by those of all, they are its part of a mean.
        entropy, mass = self._cross_entropy(logits, label, truth)
        sums = [torch.stack([mass, torch.ones_like(mass)])]
        if self._kind != "ce" and truth is not None:
            sums += self._overlap(logits, truth)
        totals = self._add(torch.cat(sums))
        (all_mass, processes), overlap = totals[:2], totals[2:]
        loss = logits.new_zeros(())
        if self._kind != "dice":
            loss = loss + entropy / torch.where(all_mass > 0, all_mass, 1)
        if self._kind != "ce":
            both, mass = overlap.chunk(2)
            first = 0 if self._num_classes == 1 else 1  # background does not count
            dice = (2 * both[first:] + _SMOOTH) / (mass[first:] + _SMOOTH)
            loss = loss + (1 - dice).mean() / processes
        return loss

    def _shares(self, label: Tensor, size: torch.Size) -> Tensor:
        """Share of each class in the voxels of a grid (B, N, *size); they add up to what counts."""
        classes = torch.arange(self._num_classes, device=label.device)
        shares = (label == classes.view(-1, *[1] * (label.ndim - 2))).float()
        return shares if size == label.shape[2:] else average_pool(shares, size)

    def _cross_entropy(
        self, logits: Tensor, label: Tensor, truth: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum of weighted cross-entropies, and of the weights, over the voxels that count."""
        if self._weight.device != logits.device:
            self._weight = self._weight.to(logits.device)  # once: a GPU would wait for it
        weight = self._weight
        if logits.shape[2:] != label.shape[2:]:
            assert truth is not None
            weighted = weight.view(-1, *[1] * (logits.ndim - 2)) * truth
            return -(weighted * logits.log_softmax(1)).sum(), weighted.sum()
        target = label[:, 0]
        is_counted = _is_counted(target, self._num_classes)
        index = IGNORED if self._num_classes <= IGNORED else -100
        entropy = nn.functional.cross_entropy(
            logits, target, weight, ignore_index=index, reduction="sum"
        )
        return entropy, (weight[target.where(is_counted, 0)] * is_counted).sum()

    @staticmethod
    def _overlap(logits: Tensor, truth: Tensor) -> list[Tensor]:
        """Per class (N,) the sum of probability times truth, and that of both."""
        axes = [axis for axis in range(logits.ndim) if axis != 1]
        scores = logits.softmax(1) * truth.sum(1, keepdim=True)
        return [(scores * truth).sum(axes), scores.sum(axes) + truth.sum(axes)]


def average_pool(volume: Tensor, size: torch.Size) -> Tensor:
    """Average (B, C, *S) over the cells of a coarser grid."""
    if len(size) == 2:
        return nn.functional.adaptive_avg_pool2d(volume, (size[0], size[1]))
    return nn.functional.adaptive_avg_pool3d(volume, (size[0], size[1], size[2]))


def count_dice(predicted: Tensor, label: Tensor, num_classes: int) -> DiceCounts:
    """Count agreement of two class-index maps of one shape where the label counts."""
    predicted, label = predicted.reshape(-1), label.reshape(-1)
    is_counted = _is_counted(label, num_classes)
    predicted, label = predicted[is_counted].long(), label[is_counted].long()
    both = torch.bincount(label[predicted == label], minlength=num_classes)
    return DiceCounts(
        both,
        torch.bincount(predicted, minlength=num_classes),
        torch.bincount(label, minlength=num_classes),
    )


def _is_counted(label: Tensor, num_classes: int) -> Tensor:
    """Mark the voxels that are not ignored; with more classes than ``IGNORED`` none is."""
    if num_classes > IGNORED:
        return torch.ones_like(label, dtype=torch.bool)
    return label != IGNORED
