"""Losses of a main output and of coarser ones beside it.

Source: Chen and others, *VoxResNet*, 2016, arXiv:1608.05895, section 2.3, whose auxiliary outputs
are weighted less and less over the training; voxseg also halves the weight with each halving of an
output's grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn


class DeepSupervision(nn.Module, ABC):
    """A loss that is summed over the main output and further ones.

    Args:
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
    """

    def __init__(self, add: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        super().__init__()
        self._add = add

    def forward(
        self, output: Tensor, auxiliary: list[Tensor], truth: Tensor, auxiliary_weight: float
    ) -> Tensor:
        """Mean loss of the batch; of several processes, the part of this one.

        The parts add up to the loss of the whole batch, whatever the processes' shares, and so do
        their gradients. It is 0 where nothing counts.

        Args:
            output: (B, N, *S), or (B, N, P) of sampled pixels: the main output.
            auxiliary: further outputs, on coarser grids.
            truth: (B, M, *S) or (B, M, P), as ``one`` takes it.
            auxiliary_weight: weight of each auxiliary output, halved for each halving of its
                grid; 0 skips them.
        """
        self.check(output, truth)
        loss = self.one(output, truth)
        if auxiliary_weight:
            for further in auxiliary:
                coarseness = further.shape[2] / truth.shape[2]
                loss = loss + auxiliary_weight * coarseness * self.one(further, truth)
        return loss

    def check(self, output: Tensor, truth: Tensor) -> None:
        """Refuse a main output that does not fit the truth.

        Raises:
            ValueError: it does not.
        """

    @abstractmethod
    def one(self, output: Tensor, truth: Tensor) -> Tensor:
        """Loss of one output (B, N, *R), on the truth's grid or a coarser one."""
