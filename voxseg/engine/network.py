"""From configuration or checkpoint to a network."""

from pathlib import Path
from typing import Any

from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.config import Config, ModelConfig, build
from voxseg.errors import DataError, UsageError
from voxseg.models import VoxResNet, load_shared_weights


def build_network(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> VoxResNet:
    """Build the VoxResNet that ``config`` describes, for ``dims`` spatial axes."""
    try:
        return VoxResNet(
            in_channels,
            num_classes,
            spatial_dims=dims,
            stages=config.stages,
            width_divisor=config.width_divisor,
            design=config.design,
            reduce=config.reduce,
            fusion=config.fusion,
            norm=config.norm,
            widths=config.widths or None,
        )
    except ValueError as error:
        raise UsageError(f"model: {error}") from None


def network_of(content: dict[str, Any], path: Path) -> tuple[VoxResNet, Config]:
    """Rebuild the network of a checkpoint's content, with its weights, in evaluation mode."""
    config = build(content["config"])
    network = build_network(
        config.model, content["in_channels"], len(config.labels.values), content["spatial_dims"]
    )
    try:
        network.load_state_dict(content["model"])
    except RuntimeError:
        raise DataError(
            f"{path} holds weights that do not fit the network it describes; the file is damaged"
        ) from None
    return network.eval(), config


def initialise_from(network: VoxResNet, path: Path, in_channels: int, num_classes: int) -> str:
    """Load all weights that ``network`` shares with a checkpoint; say in words what was loaded."""
    content = load_checkpoint(path)
    other = build(content["config"])
    if content["in_channels"] != in_channels:
        raise DataError(
            f"{path} was trained on {content['in_channels']} input channels, but this run has "
            f"{in_channels}; initialise from a checkpoint with the same channels"
        )
    if len(other.labels.values) != num_classes:
        raise DataError(
            f"{path} has {len(other.labels.values)} classes, but this run has {num_classes}; "
            "initialise from a checkpoint with the same classes"
        )
    report = load_shared_weights(network, content["model"])
    return (
        f"{len(report.loaded)} of {len(report.loaded) + len(report.missing)} tensors "
        f"({other.model.design} -> this design)"
    )
