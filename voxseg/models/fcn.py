"""FCN32s, FCN8s and SMP on ResNet-18, 34, 50 and 101.

Source: Jafari and Rother, *Split-Merge Pooling*, 2020, arXiv:2006.07742, section 4.1, after Long,
Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation*, 2015,
arXiv:1411.4038.

Departures:

- An image that 32 does not divide is filled up at the end of each axis with its last pixels, and
  the answer cut.
- 3 spatial axes are an option.
- What ``smp`` says of the split.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.decoder import pointwise
from voxseg.layers.smp import SMP
from voxseg.models.resnet import WIDTHS, Depth, ResNet

FinestStride = Literal[8, 32]

_STRIDE = 32
_LINEAR = {2: "bilinear", 3: "trilinear"}


class FCN(nn.Module):
    """Class scores from a ResNet's last stage, or its last three, resized to the image.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, background included.
        depth: of the ResNet: 18, 34, 50 or 101.
        finest_stride: 32 scores the last stage alone (FCN32s); 8 resizes the scores of the last
            three to the finest of them and adds them (FCN8s).
        spatial_dims: 2 or 3.
        widths: planes of the ResNet's stages.

    Attributes:
        receptive_field: pixels that one pixel of the last stage sees, by axis.
        reach: None: scores are resized over the whole image, which is not to be cut into tiles.
        output_stride: pixels from one of the finest scores to the next, along each axis.
        needs_superpixels: False.

    Raises:
        ValueError: an option is outside its range.
    """

    needs_superpixels = False
    reach: tuple[int, ...] | None = None

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: Depth = 18,
        finest_stride: FinestStride = 32,
        spatial_dims: int = 2,
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if finest_stride not in (8, 32):
            raise ValueError(f"finest_stride must be 8 or 32, got {finest_stride}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.spatial_dims = spatial_dims
        self.backbone = ResNet(in_channels, depth=depth, spatial_dims=spatial_dims, widths=widths)
        self.receptive_field = self.backbone.receptive_fields[-1]
        # Deepest first, so that FCN32s and FCN8s share the name of the first.
        read = self.backbone.channels[: 0 if finest_stride == 8 else 2 : -1]
        self.heads = nn.ModuleList(pointwise(spatial_dims, c, num_classes) for c in read)
        self.output_stride = self.backbone.strides[-len(read)]

    def forward(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes, *S) of ``image`` (B, in_channels, *S), any S.

        Superpixels and their count are taken as every model does, and not needed.
        """
        size = image.shape[2:]
        taps = self.backbone(_filled(image))[::-1]
        # Not strict: FCN32s reads the deepest tap only.
        scores = [head(tap) for head, tap in zip(self.heads, taps, strict=False)]
        finest = scores[-1].shape[2:]
        total = scores[-1]
        for coarse in scores[:-1]:
            total = total + self._resized(coarse, finest)
        filled = [length + -length % _STRIDE for length in size]
        logits = self._resized(total, filled)
        for axis, length in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, length)
        return logits

    def supervise(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer, for training."""
        return self(image), []

    def _resized(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        mode = _LINEAR[self.spatial_dims]
        return functional.interpolate(scores, size=list(size), mode=mode, align_corners=False)


class SplitMergeFCN(SMP):
    """FCN32s with split-merge pooling: a score for every pixel, and FCN32s's parameters.

    An FCN32s's state dict loads into ``network``, and ImageNet files into ``network.backbone``.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, background included.
        depth: of the ResNet: 18, 34, 50 or 101.
        spatial_dims: 2 or 3.
        widths: planes of the ResNet's stages.

    Attributes:
        receptive_field: pixels that one pixel's scores depend on, by axis.
        reach: None: instead of tiles, sub-grids keep within a memory budget.
        output_stride: 1: every pixel is classified.
        needs_superpixels: False.

    Raises:
        ValueError: an option is outside its range.
    """

    needs_superpixels = False
    reach: tuple[int, ...] | None = None

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: Depth = 18,
        spatial_dims: int = 2,
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        network = FCN(
            in_channels, num_classes, depth=depth, spatial_dims=spatial_dims, widths=widths
        )
        layers = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        super().__init__(
            network,
            in_channels,
            spatial_dims=spatial_dims,
            stages=(*(f"backbone.{layer}" for layer in layers), "heads.0"),
        )
        self.num_classes = num_classes
        self.output_stride = network.output_stride // max(self.window)
        # Max-pooling adds 2 pixels of stride 2 to it, and is left out.
        self.receptive_field = tuple(field - 2 * 2 for field in network.receptive_field)

    def forward(
        self,
        image: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        *,
        memory_budget: int | None = None,
        devices: Sequence[torch.device | str] = (),
    ) -> Tensor:
        """Return class logits for every pixel, see ``SMP.forward``.

        Superpixels and their count are taken as every model does, and not needed.
        """
        return super().forward(image, memory_budget=memory_budget, devices=devices)

    def supervise(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer.

        Training on ``sampled`` and ``sample_labels`` instead costs what an FCN32s does.
        """
        return self(image), []


def _filled(image: Tensor) -> Tensor:
    """Repeat the last pixels of each axis until the stride divides it."""
    # functional.pad wants the last axis first.
    pads = [pad for length in reversed(image.shape[2:]) for pad in (0, -length % _STRIDE)]
    return functional.pad(image, pads, mode="replicate") if any(pads) else image
