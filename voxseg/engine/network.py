"""From configuration or checkpoint to a network, and from files to its first weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from voxseg.data.cases import TaskKind
from voxseg.data.prepare import PrepareSettings
from voxseg.engine.checkpoint import ForeignFileError, load_checkpoint
from voxseg.engine.config import Config, ModelConfig, Network, build
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.models import (
    FCN,
    VGG16,
    DeepLab,
    EncoderENet,
    ENet,
    PixelNet,
    ResNet,
    SplitMergeFCN,
    SUNet,
    SUNetClassifier,
    VoxResNet,
    VoxResTaps,
    build_deeplab,
    build_sunet,
    build_sunet_classifier,
    load_published_weights,
    load_shared_weights,
)
from voxseg.models.trunk import VOXRES_TAPS, Trunk
from voxseg.models.vgg import TAPS as VGG_TAPS
from voxseg.models.vgg import WIDTHS as VGG_WIDTHS

SegmentationNetwork = (
    VoxResNet
    | ENet
    | EncoderENet
    | FCN
    | SplitMergeFCN
    | DeepLab
    | SUNet
    | SUNetClassifier
    | PixelNet
)
"""What the engine runs: ``forward`` and ``supervise``, with ``superpixels`` and ``count`` where
``needs_superpixels``; ``reach`` says whether it may see an image tile by tile."""


def network_axes(data: PrepareSettings, dims: int) -> int:
    """Number of axes that a network sees of volumes of ``dims`` axes."""
    return 2 if data.slice_axes else dims


def network_channels(data: PrepareSettings, channels: int, dims: int) -> int:
    """Number of channels that a network sees of images of ``channels``; ``dims`` of the volume."""
    return channels * (1 + 2 * data.neighbours) + (dims if data.coordinates else 0)


def image_channels(data: PrepareSettings, seen: int, dims: int) -> int:
    """Undo ``network_channels``; ``dims`` of the network."""
    of_volume = 3 if data.slice_axes else dims
    return (seen - (of_volume if data.coordinates else 0)) // (1 + 2 * data.neighbours)


def deepest_stride(network: SegmentationNetwork) -> tuple[int, ...]:
    """Pixels between two answers of the coarsest map, by axis; 1 where nobody may cut images."""
    if isinstance(network, PixelNet):
        strides = [tap.stride for tap in network.trunk.taps.values() if tap.stride is not None]
        return tuple(int(max(axis)) for axis in zip(*strides, strict=True))
    if isinstance(network, VoxResNet | ENet):
        stride: tuple[int, ...] = tuple(network.trunk.strides[-1])
        return stride
    return (1,) * network.spatial_dims


def build_network(
    config: ModelConfig,
    in_channels: int,
    num_classes: int,
    dims: int,
    kind: TaskKind = "segmentation",
) -> SegmentationNetwork:
    """Build the network that ``config`` describes, for ``dims`` spatial axes and a task.

    Raises:
        UsageError: there is no such network.
    """
    if kind == "classification":
        return _classifier(config, in_channels, num_classes)
    if config.is_planar and dims != 2:
        raise UsageError(
            f"model.network {config.network} sees slices or photographs, not volumes; choose "
            "slices with --plane axial, coronal, sagittal or all"
        )
    if config.needs_places and dims != 3:
        raise UsageError(
            "model.design V4 places supervoxels in a volume, and this network sees slices or "
            "photographs; choose V0 to V3, or volumes with --plane none"
        )
    try:
        return _BUILD[config.network](config, in_channels, num_classes, dims)
    except ValueError as error:
        raise UsageError(f"model: {error}") from None


def network_of(content: dict[str, Any], path: Path) -> tuple[SegmentationNetwork, Config]:
    """Rebuild the network of a checkpoint's content, with its weights, in evaluation mode."""
    config = build(content["config"])
    network = build_network(
        config.model,
        content["in_channels"],
        config.num_outputs,
        content["spatial_dims"],
        config.task.kind,
    )
    try:
        network.load_state_dict(content["model"])
    except RuntimeError:
        raise DataError(
            f"{path} holds weights that do not fit the network it describes; the file is damaged"
        ) from None
    return network.eval(), config


def initialise_from(
    network: SegmentationNetwork, path: Path, in_channels: int, num_classes: int
) -> str:
    """Load all weights that ``network`` shares with a checkpoint; say in words what was loaded.

    Besides voxseg's own checkpoints: ImageNet weights in torchvision's layout for networks with a
    ResNet or VGG-16, and published ENets.
    """
    try:
        content = load_checkpoint(path)
    except ForeignFileError:
        return _published(network, path)
    other = build(content["config"])
    if content["in_channels"] != in_channels:
        raise DataError(
            f"{path} was trained on {content['in_channels']} input channels, but this run has "
            f"{in_channels}; initialise from a checkpoint with the same channels"
        )
    weights = _renamed(network, content["model"])
    anew = ""
    if other.num_outputs != num_classes:
        head = _head(network)
        if not head:
            raise DataError(
                f"{path} has {other.num_outputs} classes, but this run has {num_classes}; "
                "initialise from a checkpoint with the same classes"
            )
        weights = {name: value for name, value in weights.items() if name not in head}
        anew = f"; {other.num_outputs} classes became {num_classes}, so its head starts anew"
    report = load_shared_weights(network, weights)
    return (
        f"{len(report.loaded)} of {len(report.loaded) + len(report.missing)} tensors "
        f"({_name(other.model)} -> this network{anew})"
    )


def _head(network: SegmentationNetwork) -> set[str]:
    """Names of the parameters that only its own classes have; empty where nobody says them."""
    if not isinstance(network, SUNet | SUNetClassifier | PixelNet):
        return set()
    own = {id(parameter) for parameter in network.head_parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in own}


def _voxresnet(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> VoxResNet:
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
        token_width=config.token_width,
        token_blocks=config.token_blocks,
    )


def _enet(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> ENet | EncoderENet:
    if config.part == "encoder":
        return EncoderENet(in_channels, num_classes, version=config.version)
    return ENet(
        in_channels,
        num_classes,
        spatial_dims=dims,
        design=config.design,
        reduce=config.reduce,
        version=config.version,
    )


def _fcn(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> FCN:
    return FCN(
        in_channels,
        num_classes,
        depth=config.depth,
        finest_stride=config.finest_stride,
        spatial_dims=dims,
    )


def _smp(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> SplitMergeFCN:
    return SplitMergeFCN(in_channels, num_classes, depth=config.depth, spatial_dims=dims)


def _deeplab(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> DeepLab:
    stride = config.output_stride
    if stride == 2 or stride == 4:  # mypy follows this, not "in"
        raise ValueError(f"DeepLab's output_stride is 8 or 16, got {stride}")
    return build_deeplab(
        in_channels,
        num_classes,
        spatial_dims=dims,
        depth=config.depth,
        context=config.context,
        output_stride=stride,
        multi_grid=config.multi_grid,
    )


def _sunet(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> SUNet:
    return build_sunet(
        in_channels,
        num_classes,
        spatial_dims=dims,
        variant=config.variant,
        output_stride=config.output_stride,
        dilation=config.dilation,
        degridding=config.degridding,
        filters=config.filters or None,
        widths=config.widths or None,
        stacks=config.stacks or None,
        norm_momentum=config.norm_momentum,
    )


def _pixelnet(config: ModelConfig, in_channels: int, num_classes: int, dims: int) -> PixelNet:
    trunk: Trunk
    if config.trunk == "vgg16":
        trunk = VGG16(
            in_channels,
            config.taps or VGG_TAPS,
            spatial_dims=dims,
            widths=config.widths or VGG_WIDTHS,
            batch_norm=config.batch_norm,
        )
    else:
        trunk = VoxResTaps(
            in_channels,
            config.taps or VOXRES_TAPS[:4],
            spatial_dims=dims,
            width_divisor=config.width_divisor,
            widths=config.widths or None,
            norm=config.norm,
        )
    return PixelNet(
        trunk,
        num_classes,
        hidden=config.hidden,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        normalise_taps=config.normalise_taps,
        std=config.head_std,
    )


def _classifier(config: ModelConfig, in_channels: int, num_classes: int) -> SUNetClassifier:
    """Build what answers once for a photograph; segmentations start from its trunk."""
    return build_sunet_classifier(
        in_channels,
        num_classes,
        variant=config.variant,
        filters=config.filters or None,
        widths=config.widths or None,
        stacks=config.stacks or None,
        norm_momentum=config.norm_momentum,
    )


_BUILD: dict[Network, Callable[[ModelConfig, int, int, int], SegmentationNetwork]] = {
    "voxresnet": _voxresnet,
    "enet": _enet,
    "fcn": _fcn,
    "smp": _smp,
    "deeplab": _deeplab,
    "sunet": _sunet,
    "pixelnet": _pixelnet,
}


def _name(model: ModelConfig) -> str:
    pooled = f" {model.design}" if model.network in ("voxresnet", "enet") else ""
    return f"{model.network}{pooled}"


def _published(network: SegmentationNetwork, path: Path) -> str:
    if isinstance(network, ENet):
        report = load_published_weights(network, path)
        return f"{len(report.loaded)} tensors of a published ENet"
    backbone = _backbone(network)
    if backbone is None:
        raise VoxsegError(
            f"{path} is no checkpoint of voxseg, and this network has no ResNet or VGG-16 that "
            "weights of others could go to; name a run of voxseg"
        )
    report = backbone.load_imagenet(path)
    kind = "VGG-16" if isinstance(backbone, VGG16) else "ResNet"
    return f"{len(report.loaded)} tensors of the {kind}, published weights"


def _backbone(network: SegmentationNetwork) -> ResNet | VGG16 | None:
    if isinstance(network, PixelNet):
        return network.trunk if isinstance(network.trunk, VGG16) else None
    if isinstance(network, SplitMergeFCN):
        found = network.network.get_submodule("backbone")
        assert isinstance(found, ResNet)
        return found
    return network.backbone if isinstance(network, FCN | DeepLab) else None


def _renamed(
    network: SegmentationNetwork, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Give an FCN32s's weights the names that they have in SMP, and the other way round."""
    prefix = "network."
    has_prefix = any(name.startswith(prefix) for name in weights)
    if isinstance(network, SplitMergeFCN) and not has_prefix:
        return {prefix + name: value for name, value in weights.items()}
    if isinstance(network, FCN) and has_prefix:
        return {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
