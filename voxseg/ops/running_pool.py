"""Superpixel pooling of an image that comes part by part, for volumes larger than memory.

Source: the op is that of Schuurmans, Berman, Blaschko, arXiv:1806.02705, Equations 1-3; doing it in
parts is voxseg's own.
"""

import torch
from torch import Tensor

from voxseg.ops.superpixel_pool import Reduce, superpixel_pool


class RunningPool:
    """The pooled features of the parts seen so far.

    Maxima are to the bit those of the whole image. Means are added up in float64, so they differ
    from those of the whole by rounding alone.

    Args:
        count: K.
        reduce: "max" or "mean", see ``superpixel_pool``.
    """

    def __init__(self, count: int, reduce: Reduce = "max") -> None:
        self._count = count
        self._reduce = reduce
        self._values: Tensor | None = None
        self._sizes: Tensor | None = None
        self._dtype = torch.float32

    def add(self, features: Tensor, superpixels: Tensor) -> None:
        """Take in a part: features (B, C, *S), superpixels (B, *S) as for ``superpixel_pool``."""
        self._dtype = features.dtype
        if self._reduce == "max":
            values = superpixel_pool(features, superpixels, self._count)
            ones = features.new_ones((len(features), 1, *features.shape[2:]))
            sizes = superpixel_pool(ones, superpixels, self._count)
        else:
            values, sizes = torch.ops.voxseg.superpixel_mean(features, superpixels, self._count)
            sizes = sizes[:, None]
            values = values.double() * sizes
        if self._values is None or self._sizes is None:
            self._values, self._sizes = values, sizes
        elif self._reduce == "max":
            # An empty superpixel is 0, which is more than some maxima.
            larger = torch.where(self._sizes > 0, torch.maximum(self._values, values), values)
            self._values = torch.where(sizes > 0, larger, self._values)
            self._sizes = torch.maximum(self._sizes, sizes)
        else:
            self._values += values
            self._sizes += sizes

    def result(self) -> Tensor:
        """Return (B, C, K) in the dtype of the features; a superpixel without a voxel is 0."""
        if self._values is None or self._sizes is None:
            raise ValueError("no part was added: there is nothing to pool")
        if self._reduce == "max":
            return self._values
        return (self._values / self._sizes.clamp_min(1)).to(self._dtype)
