"""How sure a prediction is of each voxel, and how far its members agree.

Members are the folds of a cross-validation and the flips of test-time augmentation. With their mean
probabilities p and their own p_m, both measures are in units of the largest possible entropy:

    entropy       H(p) = -sum p log p / log N
    disagreement  H(p) - mean of H(p_m), the mutual information (Houlsby et al. 2011,
                  arXiv:1112.5745): 0 where all members say the same, however unsure each is
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]


def entropy(probabilities: Array) -> Floats:
    """Normalised entropy of class probabilities.

    Args:
        probabilities: (N, *S), summing to 1 over N classes.

    Returns:
        (*S) float32 in [0, 1]; 0 with one class.
    """
    total = np.zeros(probabilities.shape[1:], np.float32)
    for share in probabilities:  # one class at a time: the whole never exists twice
        total -= share * np.log(np.maximum(share, np.finfo(np.float32).tiny))
    classes = len(probabilities)
    return np.clip(total / math.log(classes), 0, 1) if classes > 1 else total * 0


class Members:
    """What is remembered of each member's prediction; its probabilities are not.

    Args:
        entropy: take account of each member's entropy, which ``disagreement`` needs.
    """

    def __init__(self, *, entropy: bool = True) -> None:
        self._with_entropy = entropy
        self._entropy: Floats | None = None
        self._voxels: list[NDArray[np.int64]] = []

    @property
    def count(self) -> int:
        """Members so far."""
        return len(self._voxels)

    def add(self, probabilities: Array) -> None:
        """Take account of one member's (N, *S) probabilities."""
        if self._with_entropy:
            own = entropy(probabilities)
            self._entropy = own if self._entropy is None else self._entropy + own
        winners = probabilities.argmax(0)
        self._voxels.append(np.bincount(winners.ravel(), minlength=len(probabilities)))

    def disagreement(self, mean: Array) -> Floats:
        """Mutual information (*S) in [0, 1], given the members' mean probabilities (N, *S)."""
        if self._entropy is None:
            return np.zeros(mean.shape[1:], np.float32)
        return np.clip(entropy(mean) - self._entropy / self.count, 0, 1)

    def voxel_ranges(self) -> list[tuple[int, int]]:
        """For each class, the fewest and the most voxels that a member gave it."""
        stacked = np.stack(self._voxels)
        low, high = stacked.min(0), stacked.max(0)
        return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
