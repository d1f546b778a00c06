"""Networks with random weights as checkpoints, to measure what predicting takes.

A prediction's time does not depend on its weights, as long as they are ordinary numbers.
"""

from pathlib import Path

import torch

from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, merge, read_recipe, to_tables
from voxseg.engine.network import build_network, network_channels

_DIMS = 3


def write_untrained(recipe: str, path: Path, *, num_classes: int = 4, seed: int = 0) -> int:
    """Write a checkpoint of the network of volumes that a recipe describes, as it would start.

    Args:
        recipe: one that ships with voxseg, for one image channel.
        path: the file; its folder is made, and a file that is there is replaced.
        num_classes: background included; the labels are 0, 1, 2, ...
        seed: of the weights.

    Returns:
        The number of parameters.

    Raises:
        UsageError: there is no such recipe.
    """
    labels = {
        "values": list(range(num_classes)),
        "names": [f"class {n}" for n in range(num_classes)],
    }
    config = build(merge(read_recipe(recipe), {"labels": {"table": "", **labels}}))
    channels = network_channels(config.data, 1, _DIMS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config.model, channels, num_classes, _DIMS)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": network.state_dict(), "config": to_tables(config)}
    save_checkpoint(path, {**content, "in_channels": channels, "spatial_dims": _DIMS})
    return sum(parameter.numel() for parameter in network.parameters())
