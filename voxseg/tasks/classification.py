"""Classification: every photograph gets one of N classes.

The loss is the cross-entropy, averaged over the photographs of the batch. The score is how often
the true class is the most probable one (top-1), and how often it is among the five most probable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxseg.metrics.classification import FEW


class ClassificationLoss(nn.Module):
    """Cross-entropy of whole photographs.

    Args:
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
    """

    def __init__(self, add: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        super().__init__()
        self._add = add

    def forward(
        self,
        logits: Tensor,
        auxiliary: list[Tensor],
        category: Tensor,
        auxiliary_weight: float,
    ) -> Tensor:
        """Mean loss of the batch; of several processes, the part of this one.

        The parts add up to the loss of the whole batch, whatever the processes' shares, and so do
        their gradients.

        Args:
            logits: (B, N).
            auxiliary: further logits; the weight of each is ``auxiliary_weight``.
            category: (B,) int64.
            auxiliary_weight: 0 skips them.
        """
        count = self._add(torch.tensor(float(len(category)), device=logits.device))
        loss = _entropy(logits, category)
        if auxiliary_weight:
            for output in auxiliary:
                loss = loss + auxiliary_weight * _entropy(output, category)
        return loss / count


def _entropy(logits: Tensor, category: Tensor) -> Tensor:
    if logits.ndim != 2 or category.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (B, N) and classes (B,), got {tuple(logits.shape)} and "
            f"{tuple(category.shape)}"
        )
    return nn.functional.cross_entropy(logits.float(), category, reduction="sum")


@dataclass(frozen=True)
class TopCounts:
    """How many photographs had their class where; counts of several batches add up."""

    first: int = 0
    """It was the most probable."""
    few: int = 0
    """It was among the five most probable."""
    total: int = 0

    def __add__(self, other: "TopCounts") -> "TopCounts":
        return TopCounts(self.first + other.first, self.few + other.few, self.total + other.total)

    @property
    def top1(self) -> float:
        """Share of the photographs; 0 of none."""
        return self.first / self.total if self.total else 0.0

    @property
    def top5(self) -> float:
        """Share of the photographs; 0 of none."""
        return self.few / self.total if self.total else 0.0


def count_top(scores: Tensor, category: Tensor) -> TopCounts:
    """Count at which place the true class is.

    Args:
        scores: (B, N) logits or probabilities. Of equal ones, the lower index comes first.
        category: (B,) int64.
    """
    ranks = places(scores, category)
    return TopCounts(int((ranks < 1).sum()), int((ranks < FEW).sum()), len(ranks))


def places(scores: Tensor, category: Tensor) -> Tensor:
    """Place of the true class among all, (B,) int64 from 0, as ``count_top``."""
    own = scores.gather(1, category[:, None])
    index = torch.arange(scores.shape[1], device=scores.device)
    before = (scores > own) | ((scores == own) & (index < category[:, None]))
    return before.sum(1)
