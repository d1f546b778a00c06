"""Class weights for a cross-entropy, so that rare classes are learned as well.

Source: Paszke, Chaurasia, Kim and Culurciello, *ENet*, 2016, arXiv:1606.02147, section 5.2:
1 / ln(c + p), where p is a class's share of all pixels. c bounds the weights: 1.02 keeps them
between 1.4 and 50.5. e-lab trains ENet's encoder with 1.2 and the whole network with 1.02.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

ENCODER_C, C = 1.2, 1.02
"""c in the two steps of ENet's training."""


def class_frequencies(labels: Iterable[Tensor], num_classes: int) -> Tensor:
    """Count the pixels of each class.

    Args:
        labels: integer label maps of any shape; what is not in ``[0, num_classes)`` is not counted.
        num_classes: N.

    Returns:
        (N,) int64.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for label in labels:
        known = label[(label >= 0) & (label < num_classes)]
        counts += torch.bincount(known.flatten().long().cpu(), minlength=num_classes)
    return counts


def class_weights(frequencies: Tensor, c: float = C, *, ignored: Iterable[int] = ()) -> Tensor:
    """Return 1 / ln(c + p) for every class.

    Args:
        frequencies: (N,) pixels of each class, or any numbers in proportion to them.
        c: above 1.
        ignored: classes whose weight is 0, for example unlabelled; their pixels count in the
            shares of the others, as in e-lab's scripts.

    Returns:
        (N,) float32; 0 as well for a class without a pixel.

    Raises:
        ValueError: c is 1 or below, a frequency is negative or none is positive, or an ignored
            class does not exist.
    """
    if not c > 1:
        raise ValueError(f"c must be above 1, got {c}")
    if frequencies.ndim != 1 or not (frequencies >= 0).all() or not frequencies.sum() > 0:
        raise ValueError(
            f"frequencies must be (N,), none negative and one positive, got {frequencies.tolist()}"
        )
    left_out = list(ignored)
    if any(not 0 <= index < len(frequencies) for index in left_out):
        raise ValueError(f"ignored must be in [0, {len(frequencies)}), got {left_out}")
    shares = frequencies.double() / frequencies.double().sum()
    weights = 1 / torch.log(c + shares)
    weights[shares == 0] = 0
    weights[left_out] = 0
    return weights.float()
