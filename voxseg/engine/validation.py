"""Score a network during training, as its task asks for.

Whole cases are predicted. The scores are those that can be had quickly: of boundaries without the
tolerance that ``voxseg evaluate`` has, of photographs their centre.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxseg.data.prepare import IGNORED, Prepared
from voxseg.engine.classify import class_shares
from voxseg.engine.config import Config
from voxseg.engine.device import Compute
from voxseg.engine.inference import predict_probabilities
from voxseg.engine.network import SegmentationNetwork
from voxseg.metrics.normals import count_angles
from voxseg.models import SUNetClassifier
from voxseg.tasks.answers import answer_of
from voxseg.tasks.classification import TopCounts, count_top
from voxseg.tasks.segmentation import DiceCounts, count_dice

_BINS = 1000  # of probabilities


@dataclass(frozen=True)
class Validation:
    """How well a network does."""

    name: str
    """Of the score, as people call it."""
    score: float
    """What the weights are chosen by."""
    is_better_higher: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the log says of it."""

    @property
    def rank(self) -> float:
        """The better, the higher."""
        return self.score if self.is_better_higher else -self.score


def validate(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> Validation:
    """Score predictions of all cases.

    Each process takes every ``ranks.size``-th case, and counts are added up once at the end: shares
    may be unequal or empty, and every case counts once.

    Args:
        network: in evaluation mode.
        cases: prepared, with labels; the same in all processes.
        compute: device, precision, memory layout, processes.
        config: task, windows, coordinates, labels.
    """
    kind = config.task.kind
    if kind == "boundaries":
        return _boundaries(network, cases, compute, config)
    if kind == "normals":
        return _normals(network, cases, compute, config)
    if kind == "classification":
        return _categories(network, cases, compute, config)
    counts = count_overlap(network, cases, compute, config)
    facts = {
        "dice": counts.foreground_mean,
        "iou": counts.mean_iou,
        "class_dice": [float(d) for d in counts.dice],
    }
    if config.train.select == "iou":
        return Validation("IoU", counts.mean_iou, facts=facts)
    return Validation("Dice", counts.foreground_mean, facts=facts)


def score_name(config: Config) -> str:
    """What the score is called by which weights are chosen."""
    names = {"boundaries": "pixel AP", "normals": "mean angle", "classification": "top-1"}
    of_segmentation = "IoU" if config.train.select == "iou" else "Dice"
    return names.get(config.task.kind, of_segmentation)


def count_overlap(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> DiceCounts:
    """Count the agreement of predicted classes and labels, as ``validate`` of a segmentation."""
    num_classes = len(config.labels.values)
    total = torch.zeros(3, num_classes, dtype=torch.int64)
    for case, values in _answers(network, cases, compute, config):
        assert case.label is not None
        counts = count_dice(values.argmax(0), torch.from_numpy(case.label), num_classes)
        total += torch.stack([counts.both, counts.predicted, counts.true])
    return DiceCounts(*compute.ranks.add(total))


def _boundaries(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> Validation:
    """Average precision over all pixels that count, each where it is."""
    counts = torch.zeros(2, _BINS, dtype=torch.int64)
    for case, values in _answers(network, cases, compute, config):
        assert case.label is not None
        label = torch.from_numpy(case.label).flatten()
        bins = (values[1].flatten() * _BINS).long().clamp(0, _BINS - 1)
        for truth in (0, 1):
            counts[truth] += torch.bincount(bins[label == truth], minlength=_BINS)
        assert ((label <= 1) | (label == IGNORED)).all()
    return Validation(score_name(config), average_precision(*compute.ranks.add(counts)))


def average_precision(negatives: Tensor, positives: Tensor) -> float:
    """Area under the precision-recall curve, from counts (bins,) in rising order of the score.

    Precision is that at the recall reached, summed over the steps of recall (scikit-learn's
    ``average_precision_score``). 0 where nothing is positive.
    """
    found, wrong = positives.flip(0).cumsum(0).double(), negatives.flip(0).cumsum(0).double()
    if not found[-1]:
        return 0.0
    precision = found / (found + wrong).clamp_min(1)
    return float((precision * positives.flip(0)).sum() / found[-1])


def _normals(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> Validation:
    """Mean angle in degrees over all valid pixels, at the size that the network sees."""
    total = torch.zeros(2, dtype=torch.float64)
    for case, values in _answers(network, cases, compute, config):
        assert case.normals is not None
        angles = count_angles(values.numpy(), case.normals)
        total += torch.tensor([angles.total, angles.pixels], dtype=torch.float64)
    degrees, count = compute.ranks.add(total).tolist()
    mean = degrees / count if count else math.nan
    return Validation(score_name(config), mean, is_better_higher=False)


def _categories(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> Validation:
    """Share of the photographs whose class is the most probable one."""
    assert isinstance(network, SUNetClassifier)
    ranks = compute.ranks
    found = TopCounts()
    for case in cases[ranks.rank :: ranks.size]:
        assert case.category is not None
        shares = class_shares([network], case, compute, config.train.patch_voxels)
        found += count_top(torch.from_numpy(shares)[None], torch.tensor([case.category]))
    first, few, total = ranks.add(torch.tensor([found.first, found.few, found.total])).tolist()
    return Validation(score_name(config), TopCounts(first, few, total).top1)


def _answers(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> Iterator[tuple[Prepared, Tensor]]:
    """Predict this process's share of the cases: each with its values (channels, *S)."""
    ranks = compute.ranks
    answer = answer_of(config.task.kind, config.num_outputs)
    for case in cases[ranks.rank :: ranks.size]:
        values = predict_probabilities(
            network, case, compute, config.predict, config.data, answer=answer
        )
        yield case, torch.from_numpy(values)
