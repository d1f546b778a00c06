"""Where patches are cut: near a voxel of a drawn class, or anywhere.

Volumes are few and their voxels of each class are remembered. Photographs may be many, too many to
be looked at before training; their classes are looked up when a patch is drawn.
"""

from collections.abc import Sequence

import numpy as np

from voxseg.data.normalise import OUTSIDE
from voxseg.data.prepare import Prepared

_POSITIONS_KEPT = (
    20_000  # voxels remembered per class and case; enough to be dense, small in memory
)


class ClassPlaces:
    """Voxels of each class, and of the whole foreground, of all cases.

    Args:
        cases: volumes with labels.
        num_classes: classes, background included.
        seed: of the run.
    """

    def __init__(self, cases: Sequence[Prepared], num_classes: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 0xC1A55])
        positions = [_class_positions(case, num_classes, rng) for case in cases]
        # One array for all of them: processes can share it.
        self._positions = np.concatenate([part for parts in positions for part in parts])
        lengths = [[len(part) for part in parts] for parts in positions]
        self._ends = np.cumsum(lengths).reshape(len(cases), num_classes + 1)

    def draw(self, index: int, class_share: float, rng: np.random.Generator) -> int:
        """Draw a voxel of a case, as an index into its flat array.

        Args:
            index: of the case.
            class_share: probability that it is one of a class, each class that the case has
                equally likely; else it is any of the foreground.
            rng: of the sample.
        """
        ends = self._ends[index]
        first = self._ends[index - 1][-1] if index else 0
        *classes, anywhere = np.split(self._positions[first : ends[-1]], ends[:-1] - first)
        present = [p for p in classes if len(p)] or [anywhere]
        chosen = anywhere
        if rng.random() < class_share:
            chosen = present[int(rng.integers(len(present)))]
        return int(chosen[int(rng.integers(len(chosen)))])


def draw_in_photograph(
    case: Prepared, num_classes: int, class_share: float, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Draw a pixel of a class, each class that the photograph has equally likely.

    Args:
        case: a photograph with a label.
        num_classes: classes, background included.
        class_share: probability that there is one.
        rng: of the sample.

    Returns:
        Row and column; None for anywhere, as where no pixel counts or there are no classes.
    """
    if case.label is None or not rng.random() < class_share:
        return None
    counts = np.bincount(case.label.ravel(), minlength=num_classes)[:num_classes]
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    chosen = present[int(rng.integers(len(present)))]
    found = np.flatnonzero(case.label.ravel() == chosen)
    row, column = divmod(int(found[int(rng.integers(len(found)))]), case.shape[1])
    return row, column


def keep_inside(centre: int, size: int, patch: int) -> int:
    """Move a patch's centre so that it covers no padding where the volume is large enough."""
    if size <= patch:
        return size // 2
    low = patch // 2
    return min(max(centre, low), size - patch + low)


def anywhere(size: int, patch: int, rng: np.random.Generator) -> int:
    """Draw a patch's centre, each place equally likely where all or none of it is padding."""
    start = int(rng.integers(min(0, size - patch), max(0, size - patch) + 1))
    return start + patch // 2


def _class_positions(
    case: Prepared, num_classes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Remember voxels of each class, and last of the whole foreground; none lies outside it."""
    assert case.label is not None
    inside = np.ravel((case.image != OUTSIDE).any(0))
    label = np.ravel(case.label)
    positions = []
    for chosen in (*(inside & (label == k) for k in range(num_classes)), inside):
        found = np.flatnonzero(chosen)
        if len(found) > _POSITIONS_KEPT:
            found = np.sort(rng.choice(found, _POSITIONS_KEPT, replace=False))
        positions.append(found)
    return positions
