"""Scores: overlap, surface distances, confusion and objects, tables over cases, superpixels."""

from voxseg.metrics.case import ABSENT, EMPTY_POLICY, ClassScores, score_case
from voxseg.metrics.confusion import Confusion, count_confusion
from voxseg.metrics.instances import Instances, count_instances
from voxseg.metrics.overlap import OverlapCounts, count_overlap, dice, iou
from voxseg.metrics.summary import Summary, case_rows, foreground_means, summarise
from voxseg.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "ABSENT",
    "EMPTY_POLICY",
    "ClassScores",
    "Confusion",
    "Instances",
    "OverlapCounts",
    "Summary",
    "SurfaceDistances",
    "case_rows",
    "count_confusion",
    "count_instances",
    "count_overlap",
    "dice",
    "foreground_means",
    "iou",
    "score_case",
    "summarise",
    "surface_distances",
]
