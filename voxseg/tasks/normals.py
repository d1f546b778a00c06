"""Surface normals: every pixel gets a vector of length 1, x to the right, y up, z to the viewer.

The loss is the Euclidean one of Bansal, Russell, Gupta, *Marr Revisited*, CVPR 2016, which Bansal,
Chen, Russell, Gupta, Ramanan, *PixelNet*, 2016, arXiv:1609.06694, section 4.2, takes over: a
network's three outputs are brought to length 1 and half the squared distance to the true normal is
averaged, which is 1 minus the cosine of the angle between them. Pixels without a normal count
nowhere.

Departures: the mean is over the pixels that count of the whole batch, whatever is drawn of each
image; coarser outputs of deep supervision, which PixelNet has none of, are compared with the mean
normals of their cells; outputs shorter than ``SHORTEST`` are divided by that, so that an output of
length 0 costs 1/2 and is drawn to the truth by a finite gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from voxseg.tasks.deep_supervision import DeepSupervision
from voxseg.tasks.segmentation import average_pool

SHORTEST = 0.1
"""Outputs shorter than this are not brought to length 1, which bounds the gradient at zero: weights
that start small would be thrown far away by a first step. The authors' outputs start at 0.17."""

_CANCELLED = 1e-5


class NormalsLoss(DeepSupervision):
    """Half the squared distance of unit vectors, with deep supervision.

    Args:
        add: sums a tensor over the processes that share the batch, differentiably; by default
            there is one.
    """

    def check(self, outputs: Tensor, normals: Tensor) -> None:
        """Refuse other shapes than (B, 3, *S) of both."""
        if outputs.shape != normals.shape or outputs.shape[1] != 3:
            raise ValueError(
                f"outputs {tuple(outputs.shape)} and normals {tuple(normals.shape)} must both be "
                "(B, 3, *S)"
            )

    def one(self, outputs: Tensor, normals: Tensor) -> Tensor:
        """Loss of outputs (B, 3, *R) of any length; normals of length 1, or 0 where unknown.

        Normals are (B, 3, *S) or (B, 3, P); where R is coarser, the means of its cells are taken.
        """
        normals = _on_grid(normals, outputs.shape[2:])
        counts = normals.square().sum(1, keepdim=True) > 0
        distance = (unit_vectors(outputs) - normals).square() * counts
        number = self._add(counts.sum().to(distance.dtype))
        return distance.sum() / 2 / number.clamp_min(1)


def unit_vectors(outputs: Tensor) -> Tensor:
    """Bring outputs (B, 3, *S) to length 1, float32; shorter ones than ``SHORTEST`` less so."""
    return functional.normalize(outputs.float(), dim=1, eps=SHORTEST)


def _on_grid(normals: Tensor, size: torch.Size) -> Tensor:
    """Mean normals (B, 3, *size) of the cells of a coarser grid, of length 1 or 0."""
    if size == normals.shape[2:]:
        return normals
    means = average_pool(normals, size)
    lengths = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    # What rounding leaves of opposite vectors that cancel out is no direction.
    return torch.where(lengths > _CANCELLED, means / lengths.clamp_min(_CANCELLED), 0)
