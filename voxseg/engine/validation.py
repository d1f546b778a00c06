"""Score a network on whole volumes during training."""

from collections.abc import Sequence

import torch

from voxseg.data.prepare import Prepared
from voxseg.engine.config import Config
from voxseg.engine.device import Compute
from voxseg.engine.inference import predict_probabilities
from voxseg.engine.network import SegmentationNetwork
from voxseg.tasks.segmentation import DiceCounts, count_dice


def validate(
    network: SegmentationNetwork, cases: Sequence[Prepared], compute: Compute, config: Config
) -> DiceCounts:
    """Count the agreement of predictions and labels over all cases.

    Each process takes every ``ranks.size``-th case, and the counts are added up once at the end:
    shares may be unequal or empty, and every case counts once.

    Args:
        network: in evaluation mode.
        cases: prepared, with labels; the same in all processes.
        compute: device, precision, memory layout, processes.
        config: windows, coordinates, labels.
    """
    num_classes = len(config.labels.values)
    total = torch.zeros(3, num_classes, dtype=torch.int64)
    ranks = compute.ranks
    for case in cases[ranks.rank :: ranks.size]:
        probabilities = predict_probabilities(
            network,
            case,
            compute,
            config.predict,
            config.data,
        )
        predicted = torch.from_numpy(probabilities.argmax(0))
        assert case.label is not None
        counts = count_dice(predicted, torch.from_numpy(case.label), num_classes)
        total += torch.stack([counts.both, counts.predicted, counts.true])
    return DiceCounts(*ranks.add(total))
