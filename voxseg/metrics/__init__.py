"""Scores: overlap, surface distances, tables over cases, superpixel quality."""

from voxseg.metrics.case import ABSENT, EMPTY_POLICY, ClassScores, score_case
from voxseg.metrics.overlap import OverlapCounts, count_overlap, dice, iou
from voxseg.metrics.summary import Summary, case_rows, foreground_means, summarise
from voxseg.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "ABSENT",
    "EMPTY_POLICY",
    "ClassScores",
    "OverlapCounts",
    "Summary",
    "SurfaceDistances",
    "case_rows",
    "count_overlap",
    "dice",
    "foreground_means",
    "iou",
    "score_case",
    "summarise",
    "surface_distances",
]
