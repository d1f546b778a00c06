"""Boundary maps of predictions: what is written, and how it is scored."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from voxseg.data.boundaries import read_boundaries
from voxseg.data.reading import read_label
from voxseg.errors import DataError
from voxseg.export.images import write_grey_png, write_grey_tiff
from voxseg.metrics.boundaries import (
    BoundaryCounts,
    BoundaryScores,
    case_scores,
    evaluate_boundaries,
    scores,
)
from voxseg.metrics.suppression import suppress_non_maxima

_MOST_8_BITS, _MOST_16_BITS = 255, 65535


def write_boundaries(target: Path, probabilities: np.ndarray, *, keeps_probabilities: bool) -> None:
    """Write a boundary map as benchmarks read it: thinned, 8 bits of grey.

    Args:
        target: CASE.png.
        probabilities: (H, W) in [0, 1].
        keeps_probabilities: also write them as they are, CASE_probability-1.tif.
    """
    if keeps_probabilities:
        write_grey_tiff(target.with_name(f"{target.stem}_probability-1.tif"), probabilities)
    thin = suppress_non_maxima(probabilities)
    write_grey_png(target, np.rint(thin * _MOST_8_BITS).astype(np.uint8))


def read_boundary_map(path: Path) -> np.ndarray:
    """Read a boundary map, 8 or 16 bits of grey, as strengths (H, W) in [0, 1].

    Raises:
        DataError: The file is no such picture.
    """
    values = read_label(path).array[..., 0]
    most = _MOST_8_BITS if values.max(initial=0) <= _MOST_8_BITS else _MOST_16_BITS
    if values.min(initial=0) < 0 or values.max(initial=0) > most:
        raise DataError(f"{path} is no boundary map: save it with 8 or 16 bits of grey")
    return values / most


class BoundaryScorer:
    """Scores boundary maps against those of all annotators, see ``voxseg.metrics.boundaries``."""

    def __init__(self) -> None:
        self._counts: dict[str, BoundaryCounts] = {}

    def add(self, case_id: str, prediction: Path, truth: Path) -> None:
        """Read and count one case.

        Raises:
            DataError: A file cannot be read, or sizes differ.
        """
        found, annotators = read_boundary_map(prediction), read_boundaries(truth)
        if found.shape != annotators.shape[1:]:
            sizes = [f"{width} x {height} pixels" for height, width in
                     (found.shape, annotators.shape[1:])]  # fmt: skip
            raise DataError(f"{prediction} has {sizes[0]} but {truth} has {sizes[1]}; predict the "
                            "photograph as it is")  # fmt: skip
        self._counts[case_id] = evaluate_boundaries(found, annotators)

    def cases(self) -> Mapping[str, Mapping[str, float]]:
        """F at the set's threshold, best F and average precision of each case."""
        threshold = self._scores().ods_threshold
        found = {}
        for case, counts in self._counts.items():
            one = case_scores(counts, threshold)
            found[case] = {"f": one.f, "best_f": one.best.f, "average_precision": one.ap}
        return found

    def totals(self) -> Mapping[str, float]:
        """ODS, OIS and AP."""
        one = self._scores()
        return {
            "ods": one.ods,
            "ods_threshold": one.ods_threshold,
            "ois": one.ois,
            "average_precision": one.ap,
        }

    def detail(self) -> Mapping[str, Any]:
        """The precision-recall curve, by threshold."""
        one = self._scores()
        return {
            "thresholds": one.thresholds.tolist(),
            "recall": one.recall.tolist(),
            "precision": one.precision.tolist(),
        }

    def _scores(self) -> BoundaryScores:
        return scores(reduce(add, self._counts.values()))
