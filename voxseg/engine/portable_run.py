"""Runs whose network can be written for other programs, and what those must know about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxseg.data.normalise import OUTSIDE
from voxseg.data.prepare import AUTO_ZERO_SHARE
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.config import Config
from voxseg.engine.labels import label_table
from voxseg.engine.network import (
    deepest_stride,
    image_channels,
    network_of,
)
from voxseg.errors import UsageError
from voxseg.export.torch_program import INPUTS, OUTPUT
from voxseg.models import VoxResNet


@dataclass(frozen=True)
class PortableRun:
    """One network of volumes, and what it was trained with."""

    path: Path
    """Its checkpoint."""
    network: VoxResNet
    """In evaluation mode, on the CPU, in float32."""
    config: Config
    channels: int
    """That the network sees."""
    image_channels: int
    """Of them, those of the image; the others are coordinates."""

    @property
    def needs_superpixels(self) -> bool:
        """Whether the network has a second input."""
        return self.network.needs_superpixels

    @property
    def needs_places(self) -> bool:
        """Whether it has a third, the spacing, from which it places its superpixels."""
        return self.network.needs_places

    @property
    def example_shape(self) -> tuple[int, ...]:
        """A size that no axis shares and no stride divides, to trace the network with."""
        step = max(deepest_stride(self.network))
        return 3 * step + 5, 3 * step + 3, 3 * step + 6


def read_portable(run: Path) -> PortableRun:
    """Read the network of a run folder or checkpoint.

    Raises:
        DataError: there is none, or it is damaged.
        UsageError: it is several networks, one of slices or photographs, or of another task.
    """
    members = member_checkpoints(run)
    if len(members) > 1:
        raise UsageError(
            f"{run} has {len(members)} networks, and other programs take one; name one of its "
            f"folds, such as {members[0].parents[1]}"
        )
    content = load_checkpoint(members[0])
    network, config = network_of(content, members[0])
    if config.task.kind != "segmentation":
        raise UsageError(
            f"{run} was trained for {config.task.kind}; networks that segment volumes can be "
            "exported"
        )
    if content["spatial_dims"] != 3:
        raise UsageError(
            f"{run} holds a network of slices or photographs; networks that see whole volumes can "
            "be exported"
        )
    if not isinstance(network, VoxResNet):
        raise UsageError(
            f"{run} holds a {config.model.network}, whose steps depend on the size of an image, "
            "which no fixed program can say; a voxresnet can be exported"
        )
    if config.predict.always_windows and network.needs_superpixels:
        raise UsageError(
            f"{run} pools supervoxels of blended windows (predict.always_windows), which other "
            "programs cannot; use 'voxseg predict'"
        )
    channels = content["in_channels"]
    return PortableRun(
        members[0], network, config, channels, image_channels(config.data, channels, 3)
    )


def facts_of(run: PortableRun) -> dict[str, Any]:
    """What a program must know to prepare an image for the network and to read its answer.

    Numbers, names and rules as plain values; ``voxseg.network`` describes every field.
    """
    config = run.config
    model, data = config.model, config.data
    windows = None
    if config.predict.always_windows:
        windows = {
            "size_voxels": list(config.predict.window_voxels),
            "overlap": config.predict.overlap,
            "blend": config.predict.blend,
        }
    return {
        "network": {
            "name": model.network,
            "design": run.network.design,
            "reduce": run.network.reduce,
            "parameters": sum(p.numel() for p in run.network.parameters()),
        },
        "inputs": _inputs(run),
        "outputs": [
            {
                "name": OUTPUT,
                "type": "float32",
                "channels": run.network.num_classes,
                "axes": ["batch", "channels", "x", "y", "z"],
            }
        ],
        "smallest_voxels": list(deepest_stride(run.network)),
        "windows": windows,
        "preprocessing": {
            "orientation": "RAS",
            "image_channels": run.image_channels,
            "spacing_mm": list(data.spacing_mm),
            "foreground": data.mask,
            "auto_zero_share": AUTO_ZERO_SHARE,
            "margin_voxels": data.margin_voxels,
            "normalise": data.normalise,
            "clip_percentiles": list(data.clip_percentiles),
            "outside": OUTSIDE if data.normalise == "zscore" else None,
            "coordinates": data.coordinates,
        },
        "supervoxels": asdict(config.supervoxels) if run.needs_superpixels else None,
        "postprocessing": {"decision": "argmax", "classes": _classes(config)},
    }


def _inputs(run: PortableRun) -> list[Mapping[str, Any]]:
    inputs = (
        ("float32", run.channels, ["batch", "channels", "x", "y", "z"]),
        ("int64", None, ["batch", "x", "y", "z"]),
        ("float32", None, ["direction"]),
    )
    taken = 1 + run.needs_superpixels + run.needs_places
    return [
        {"name": name, "type": kind, "channels": channels, "axes": axes}
        for name, (kind, channels, axes) in zip(INPUTS[:taken], inputs[:taken], strict=True)
    ]


def _classes(config: Config) -> list[Mapping[str, Any]]:
    """Every class in the order of the network's channels, background among them."""
    labels = config.labels
    rows = {one.value: one for one in label_table(labels)}
    classes: list[Mapping[str, Any]] = []
    for value, name in zip(labels.values, labels.names, strict=True):
        row = rows.get(value)
        colour = list(row.colour) if row else [0, 0, 0]
        classes.append({"value": value, "name": row.name if row else name, "colour": colour})
    return classes
