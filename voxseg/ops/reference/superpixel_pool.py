"""Superpixel pooling by SciPy, one channel at a time: slow, obvious, the definition of correct.

Source: Schuurmans, Berman, Blaschko, *Efficient semantic image segmentation with superpixel
pooling*, 2018, arXiv:1806.02705, Equations 1-3; ties, empty superpixels and NaN as the public op
``voxseg.ops.superpixel_pool`` states.
"""

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]


def superpixel_max(features: Array, superpixels: Array, count: int) -> tuple[Array, Array]:
    """Pool maxima.

    Args:
        features: (B, C, *S) floating point.
        superpixels: (B, *S) integer; outside [0, count) means no superpixel.
        count: K.

    Returns:
        Maxima (B, C, K), 0 where empty; linear index of the first voxel that has the maximum
        (B, C, K) int64, -1 where empty. The first NaN of a superpixel is its maximum.
    """
    B, C = features.shape[:2]
    values = np.zeros((B, C, count), features.dtype)
    argmax = np.full((B, C, count), -1, np.int64)
    for b in range(B):
        labels = superpixels[b].ravel()
        for k in np.unique(labels[(labels >= 0) & (labels < count)]):
            voxels = np.flatnonzero(labels == k)
            # NumPy's argmax returns the first NaN, else the first of equal maxima.
            winner = voxels[features[b].reshape(C, -1)[:, voxels].argmax(axis=1)]
            argmax[b, :, k] = winner
            values[b, :, k] = features[b].reshape(C, -1)[np.arange(C), winner]
    return values, argmax


def superpixel_mean(features: Array, superpixels: Array, count: int) -> Array:
    """Pool means in float64; (B, C, K), 0 where empty. Arguments as for ``superpixel_max``."""
    sums = superpixel_sum(features, superpixels, count)
    sizes = superpixel_sum(np.ones_like(features[:, :1]), superpixels, count)
    return sums / np.maximum(sizes, 1)


def superpixel_sum(features: Array, superpixels: Array, count: int) -> Array:
    """Add up features in float64; (B, C, K), 0 where empty."""
    B, C = features.shape[:2]
    sums = np.zeros((B, C, count))
    for b in range(B):
        for c in range(C):
            exact = features[b, c].astype(np.float64)
            sums[b, c] = ndimage.sum_labels(exact, superpixels[b], index=np.arange(count))
    return sums


def superpixel_unpool(values: Array, superpixels: Array) -> Array:
    """Give every voxel its superpixel's value, 0 without one; (B, C, K) -> (B, C, *S)."""
    K = values.shape[2]
    padded = np.concatenate([values, np.zeros_like(values[..., :1])], axis=2)
    slots = np.where((superpixels < 0) | (superpixels >= K), K, superpixels)
    return np.stack([image[:, slot] for image, slot in zip(padded, slots, strict=True)])


def superpixel_max_backward(grad: Array, argmax: Array, shape: tuple[int, ...]) -> Array:
    """Hand each superpixel's gradient (B, C, K) to the voxel that won; (B, C, *S)."""
    out = np.zeros((*shape[:2], int(np.prod(shape[2:]))), grad.dtype)
    b, c, k = np.nonzero(argmax >= 0)
    out[b, c, argmax[b, c, k]] = grad[b, c, k]
    return out.reshape(shape)
