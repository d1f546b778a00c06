"""Surface normals of predictions: what is written, and how it is scored."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.normals import read_normals
from voxseg.export.normals import write_normals_npz, write_normals_png
from voxseg.metrics.normals import Angles, NormalScores, count_angles


def write_normals(target: Path, normals: np.ndarray) -> None:
    """Write normals in colours, CASE.png, and as numbers beside it, CASE.npz.

    Args:
        target: CASE.png.
        normals: (3, H, W) of length 1.
    """
    write_normals_npz(target.with_suffix(".npz"), normals)
    write_normals_png(target, normals)


def numbers_beside(prediction: Path) -> Path:
    """Return the archive of numbers beside a picture of normals, or the picture."""
    numbers = prediction.with_suffix(".npz")
    return numbers if numbers.is_file() else prediction


class NormalsScorer:
    """Scores surface normals, see ``voxseg.metrics.normals``."""

    def __init__(self) -> None:
        self._angles: dict[str, Angles] = {}

    def add(self, case_id: str, prediction: Path, truth: Path) -> None:
        """Read and count one case; numbers beside a picture are taken rather than its colours.

        Raises:
            DataError: A file cannot be read.
        """
        found = read_normals(numbers_beside(prediction))
        self._angles[case_id] = count_angles(found.array[..., 0], read_normals(truth).array[..., 0])

    def cases(self) -> Mapping[str, Mapping[str, float]]:
        """The six numbers of each case."""
        return {case: _numbers(angles.scores) for case, angles in self._angles.items()}

    def totals(self) -> Mapping[str, float]:
        """The six numbers over all pixels together."""
        return _numbers(self._sum().scores)

    def detail(self) -> Mapping[str, Any]:
        """Sums and histogram of the angles."""
        return self._sum().to_json()

    def _sum(self) -> Angles:
        return reduce(add, self._angles.values())


def _numbers(scores: NormalScores) -> dict[str, float]:
    found = asdict(scores)
    del found["pixels"]
    return found
