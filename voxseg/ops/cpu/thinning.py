"""Thinning of a mask to lines one pixel wide, on the CPU.

Source: Guo and Hall, *Parallel thinning with two-subiteration algorithms*, CACM 32(3), 1989,
doi:10.1145/62065.62074; the variant in Lam, Lee and Suen, *Thinning methodologies*, TPAMI 14(9),
1992, page 879, which MATLAB's ``bwmorph(..., 'thin', Inf)`` and scikit-image's ``thin`` follow.

Only pixels of the mask are visited: a list of them that shrinks, where the others filter the whole
image at every step. Both half-steps decide for all pixels at once, so the order of the list does
not matter.
"""

import numpy as np
from numpy.typing import NDArray

from voxseg.ops.jit import kernel

Bytes = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Ints = NDArray[np.int64]


def thin_mask(mask: Masks) -> Masks:
    """Thin a mask until nothing changes any more.

    Args:
        mask: (H, W). All beyond it is empty.

    Returns:
        (H, W), a part of the mask; equal to scikit-image's ``thin``.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    places = np.flatnonzero(padded)
    _thin(padded.reshape(-1), places, padded.shape[1], _DELETED)
    return padded[1:-1, 1:-1].astype(np.bool_)


def _may_be_deleted(neighbours: int, is_second: bool) -> bool:
    """Tell whether a pixel goes in a half-step.

    Args:
        neighbours: Eight bits, the lowest the pixel to the right, then counter-clockwise.
        is_second: Whether the half-step is the second of its step.
    """
    x = [bool(neighbours >> k & 1) for k in range(8)]
    after = [*x[1:], x[0]]
    # Condition 1: one run of neighbours, so that nothing falls apart.
    runs = sum(not x[k] and (x[k + 1] or after[k + 1]) for k in (0, 2, 4, 6))
    # Condition 2: neither the end of a line nor inside.
    pairs = (
        sum(x[k] or x[k + 1] for k in (0, 2, 4, 6)),
        sum(x[k] or after[k] for k in (1, 3, 5, 7)),
    )
    # Condition 3: a border that faces this half-step's side.
    if is_second:
        is_kept = (x[5] or x[6] or not x[3]) and x[4]
    else:
        is_kept = (x[1] or x[2] or not x[7]) and x[0]
    return runs == 1 and 2 <= min(pairs) <= 3 and not is_kept


_DELETED = np.array(
    [[_may_be_deleted(bits, is_second) for bits in range(256)] for is_second in (False, True)]
)


@kernel()
def _thin(padded: Bytes, places: Ints, width: int, deleted: Masks) -> None:
    """Thin in place.

    Args:
        padded: ((H + 2) * width,) the mask in an empty frame, 0 and 1.
        places: Where it is 1; overwritten.
        width: W + 2.
        deleted: (2, 256) what ``_may_be_deleted`` says.
    """
    count = places.size
    going = np.empty(count, np.bool_)
    has_changed = True
    while has_changed:
        has_changed = False
        for half in range(2):
            for index in range(count):
                at = places[index]
                bits = padded[at + 1]
                bits |= padded[at - width + 1] << 1
                bits |= padded[at - width] << 2
                bits |= padded[at - width - 1] << 3
                bits |= padded[at - 1] << 4
                bits |= padded[at + width - 1] << 5
                bits |= padded[at + width] << 6
                bits |= padded[at + width + 1] << 7
                going[index] = deleted[half, bits]
            kept = 0
            for index in range(count):
                if going[index]:
                    padded[places[index]] = 0
                else:
                    places[kept] = places[index]
                    kept += 1
            has_changed |= kept < count
            count = kept
