"""How sure a prediction is of each voxel, and how far its members agree.

Members are the folds of a cross-validation and the flips of test-time augmentation. With their mean
probabilities p and their own p_m, both measures are in units of the largest possible entropy:

    entropy       H(p) = -sum p log p / log N
    disagreement  H(p) - mean of H(p_m), the mutual information (Houlsby et al. 2011,
                  arXiv:1112.5745): 0 where all members say the same, however unsure each is
"""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]


class Shares(Protocol):
    """Class probabilities (N, *S): an array, or what reads one piece by piece from a disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *S)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part as an array."""


def entropy(probabilities: Shares) -> Floats:
    """Normalised entropy of class probabilities.

    Args:
        probabilities: (N, *S), summing to 1 over N classes.

    Returns:
        (*S) float32 in [0, 1]; 0 with one class.
    """
    total = np.zeros(probabilities.shape[1:], np.float32)
    classes = len(probabilities)
    if classes == 1:
        return total
    for index in range(len(total)):  # a layer at a time: the whole never exists twice
        layer = probabilities[:, index]
        for share in layer:
            total[index] -= share * np.log(np.maximum(share, np.finfo(np.float32).tiny))
    total /= math.log(classes)
    return np.clip(total, 0, 1, out=total)


class Members:
    """What is remembered of each member's prediction; its probabilities are not.

    Args:
        entropy: take account of each member's entropy, which ``disagreement`` needs.
    """

    def __init__(self, *, entropy: bool = True) -> None:
        self._with_entropy = entropy
        self._entropy: Floats | None = None
        self._voxels: list[NDArray[np.int64]] = []
        self._shape: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Members so far."""
        return len(self._voxels)

    def start(self, shape: tuple[int, ...]) -> None:
        """Begin with another member, whose volume has this spatial shape."""
        self._shape = shape
        self._voxels.append(np.zeros(0, np.int64))

    def add_part(self, region: tuple[slice, ...], probabilities: Array, winners: Array) -> None:
        """Take account of a part of the member's probabilities.

        Args:
            region: which part of the volume; parts do not overlap.
            probabilities: (N, *region).
            winners: (*region) the most probable class.
        """
        if self._with_entropy:
            if self._entropy is None:
                self._entropy = np.zeros(self._shape, np.float32)
            self._entropy[region] += entropy(probabilities)
        found = np.zeros(len(probabilities), np.int64)
        for layer in winners:  # counting makes 64-bit numbers of what it counts
            found += np.bincount(np.ravel(layer), minlength=len(found))
        self._voxels[-1] = found + self._voxels[-1] if self._voxels[-1].size else found

    def add(self, probabilities: Array) -> None:
        """Take account of one member's (N, *S) probabilities."""
        shape = probabilities.shape[1:]
        self.start(shape)
        whole = tuple(slice(0, n) for n in shape)
        self.add_part(whole, probabilities, probabilities.argmax(0))

    def disagreement(self, mean: Shares) -> Floats:
        """Mutual information (*S) in [0, 1], given the members' mean probabilities (N, *S)."""
        if self._entropy is None:
            return np.zeros(mean.shape[1:], np.float32)
        found = entropy(mean)
        for index, own in enumerate(self._entropy):
            found[index] -= own / self.count
        return np.clip(found, 0, 1, out=found)

    @property
    def voxels(self) -> tuple[tuple[int, ...], ...]:
        """Of each member, how many voxels it gave to each class."""
        return tuple(tuple(int(n) for n in own) for own in self._voxels)
