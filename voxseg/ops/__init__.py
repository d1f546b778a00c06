"""Functions on tensors: superpixel pooling and SLIC."""

from voxseg.ops.slic import block_partition, enforce_connectivity, slic
from voxseg.ops.superpixel_pool import (
    SuperpixelPlan,
    superpixel_plan,
    superpixel_pool,
    superpixel_unpool,
)

__all__ = [
    "SuperpixelPlan",
    "block_partition",
    "enforce_connectivity",
    "slic",
    "superpixel_plan",
    "superpixel_pool",
    "superpixel_unpool",
]
