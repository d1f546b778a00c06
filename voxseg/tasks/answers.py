"""What a network's outputs say: from logits to values of which members are averaged.

Of segmentation these are the probabilities of the classes. Boundaries are two classes, of which the
network tells the second by one number: its logistic function. Normals are vectors of length 1,
which are mirrored with the picture that they belong to.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from voxseg.data.cases import TaskKind

_LEAST_LENGTH = 1e-12


class Answer(Protocol):
    """How the outputs of a network are read."""

    @property
    def channels(self) -> int:
        """Number of values of a voxel."""

    def values(self, logits: Tensor) -> Tensor:
        """Turn logits (N, *S) into values (channels, *S), float32."""

    def tidied(self, values: Tensor) -> Tensor:
        """Make values again of what was interpolated or averaged between values."""

    def mirrored(self, values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Correct values (channels, *S) of a picture that was mirrored along ``axes``.

        The values lie where they belong already; the picture's axes are rows and columns.
        """


class Shares:
    """Probabilities of classes, that add up to 1.

    Args:
        num_classes: N, of the network's outputs.
    """

    def __init__(self, num_classes: int) -> None:
        self.channels = num_classes

    def values(self, logits: Tensor) -> Tensor:
        """Softmax over the classes."""
        return logits.float().softmax(0)

    def tidied(self, values: Tensor) -> Tensor:
        """Bring the sum back to 1."""
        values = values.clamp(0, 1)
        return values / values.sum(0, keepdim=True)

    def mirrored(self, values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Return them as they are: a class has no sides."""
        return values


class BoundaryShares(Shares):
    """Probabilities of no boundary and of a boundary, of a network with one output."""

    def __init__(self) -> None:
        super().__init__(2)

    def values(self, logits: Tensor) -> Tensor:
        """Logistic function of the one output, and what is left to 1."""
        return two_classes(logits[None]).float().softmax(1)[0]


class UnitVectors:
    """Surface normals: x to the right, y up, z to the viewer."""

    channels = 3

    def values(self, logits: Tensor) -> Tensor:
        """Bring every vector to length 1."""
        return self.tidied(logits.float())

    def tidied(self, values: Tensor) -> Tensor:
        """Bring every vector to length 1; one without length stays 0."""
        return functional.normalize(values, dim=0, eps=_LEAST_LENGTH)

    def mirrored(self, values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Turn the sign of x for mirrored columns, of y for mirrored rows."""
        signs = np.ones((3, *[1] * (values.ndim - 1)), np.float32)
        for axis in axes:
            signs[1 - axis] = -1  # rows run along y, columns along x
        return values * signs


def answer_of(kind: TaskKind, num_outputs: int) -> Answer:
    """Say how the answers of a network are read that was trained for a task.

    Args:
        kind: the task; of classification, shares of the whole picture.
        num_outputs: channels of the network's answer.
    """
    if kind == "boundaries":
        return BoundaryShares()
    return UnitVectors() if kind == "normals" else Shares(num_outputs)


def two_classes(logits: Tensor) -> Tensor:
    """Logits (B, 2, *S) of no boundary and of a boundary from one number z (B, 1, *S).

    The softmax of (0, z) is the logistic function of z.
    """
    return torch.cat([torch.zeros_like(logits), logits], 1)
