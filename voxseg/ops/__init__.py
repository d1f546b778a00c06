"""Functions on tensors: superpixel pooling and SLIC."""

from voxseg.ops.slic import block_partition, enforce_connectivity, slic
from voxseg.ops.superpixel_pool import superpixel_pool, superpixel_unpool

__all__ = [
    "block_partition",
    "enforce_connectivity",
    "slic",
    "superpixel_pool",
    "superpixel_unpool",
]
