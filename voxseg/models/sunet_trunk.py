"""The trunk of SUNet: U-Net modules stacked in four blocks, at any output stride.

Source: Shah, Ghosh, Davis and Goldstein, *Stacked U-Nets: A No-Frills Approach to Natural Image
Segmentation*, 2018, arXiv:1804.10343, Table 1 and section 5.

Departures:

- SUNet-7-128 has the layers of Table 1, which are 39,113,832 parameters with 1,000 classes (the
  table prints 37.7 M; for the others its 6.9 M and 24.6 M come out).
- Any image goes through: a map of odd size keeps its last cells where it is halved (the authors'
  drops them), and a U-Net comes back to the size that it left.
- Output strides 2 and 4, which small volumes need, go on as 16 and 8 begin: the last strides are
  replaced by dilations.
- 3 spatial axes are an option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.stacked_unet import (
    Dilation,
    ResidualStride,
    UNetModule,
    batch_norm,
    convolution,
)

Variant = Literal["64", "128", "7-128"]
SUNetStride = Literal[2, 4, 8, 16, 32]

_STEM = 7  # pixels wide
_LEVELS = (2, 2, 2, 1)  # of the U-Nets in each block


@dataclass(frozen=True)
class Table1:
    """A column of Table 1."""

    filters: int
    """N."""
    widths: tuple[int, ...]
    """Channels after the first convolution, the residual block, and each block of U-Nets."""
    stacks: tuple[int, ...]
    """U-Nets in each block."""


VARIANTS: Mapping[Variant, Table1] = MappingProxyType(
    {
        "64": Table1(64, (64, 128, 256, 512, 768, 1024), (2, 4, 4, 1)),
        "128": Table1(128, (64, 128, 512, 1024, 1536, 2048), (2, 4, 4, 1)),
        "7-128": Table1(128, (64, 128, 512, 1280, 2048, 2304), (2, 7, 7, 1)),
    }
)


class StackedUNets(nn.Module):
    """What classifier and segmentation share: everything up to the last norm and ReLU.

    Names and shapes of the state dict are the same at all output strides.

    Shape: (B, in_channels, *S) -> (B, channels, *ceil(S / output_stride)), any S.

    Args:
        in_channels: channels of the image.
        filters: N, of the convolutions inside the U-Nets.
        widths: channels after the first convolution, the residual block, and the four blocks.
        stacks: U-Nets in each block.
        spatial_dims: 2 or 3.
        output_stride: pixels from one cell of the answer to the next; below 32 the last strides
            are replaced by dilations.
        dilation: "multigrid" or, within each module, "strided"; the same at 32.

    Attributes:
        channels: of the answer.
        receptive_field: pixels of the image that a cell sees along each axis, at most.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        filters: int,
        widths: Sequence[int],
        stacks: Sequence[int],
        spatial_dims: int = 2,
        output_stride: SUNetStride = 32,
        dilation: Dilation = "multigrid",
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        _check(in_channels, filters, widths, stacks, output_stride)
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self.output_stride = output_stride
        self.channels = widths[-1]
        stem, residual, *blocks = widths
        self.conv1 = convolution(spatial_dims, in_channels, stem, _STEM, stride=2)
        self.residual = ResidualStride(
            spatial_dims, stem, residual, stride=2 if output_stride >= 4 else 1
        )
        self.blocks = nn.ModuleList()
        self._coarsest = 1
        channels, stride = residual, 4
        for out_channels, count, levels in zip(blocks, stacks, _LEVELS, strict=True):
            rate = max(1, stride // output_stride)
            modules = []
            for _ in range(count):
                module = UNetModule(
                    spatial_dims,
                    channels,
                    filters,
                    out_channels,
                    levels=levels,
                    rate=rate,
                    dilation=dilation,
                )
                modules.append(module)
                channels = out_channels
            self.blocks.append(nn.Sequential(*modules))
            self._coarsest = max(self._coarsest, stride // rate * module.stride)
            stride *= 2
        self.norm = batch_norm(spatial_dims, channels)
        self.receptive_field = (self._field(),) * spatial_dims

    def forward(self, image: Tensor) -> Tensor:
        """Return the answer after norm and ReLU."""
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, and {self.spatial_dims} spatial axes), "
                f"got {tuple(image.shape)}"
            )
        self._check_trainable(image)
        features = self.residual(self.conv1(image))
        for number, block in enumerate(self.blocks):
            if number and self._pools(number):
                features = self._halved(features)
            features = block(features)
        return functional.relu(self.norm(features), inplace=True)

    def _pools(self, block: int) -> bool:
        """Whether the grid is halved before a block; the first has no pooling before it."""
        return 4 << block <= self.output_stride

    def _halved(self, features: Tensor) -> Tensor:
        """Average pairs of cells along each axis; a last one without a pair is kept."""
        # functional.pad wants the last axis first.
        pads = [pad for length in reversed(features.shape[2:]) for pad in (0, length % 2)]
        if any(pads):
            features = functional.pad(features, pads, mode="replicate")
        pool = functional.avg_pool2d if self.spatial_dims == 2 else functional.avg_pool3d
        return pool(features, 2)

    def _check_trainable(self, image: Tensor) -> None:
        """No norm trains on one value a channel; synced ones see other processes' values."""
        is_alone = isinstance(self.norm, nn.BatchNorm2d | nn.BatchNorm3d) and self.norm.training
        if is_alone and len(image) == 1 and max(image.shape[2:]) <= self._coarsest:
            raise ValueError(
                f"a single image of {'x'.join(map(str, image.shape[2:]))} has one cell where the "
                "network is coarsest, which no batch norm trains on; train on more than "
                f"{self._coarsest} pixels along an axis, or on several images at once"
            )

    def _field(self) -> int:
        """Follow step and field through the layers; skips see less."""
        field, step = _STEM, 2
        field += 2 * step  # the residual block's first convolution
        field += 2 * 4  # its second, at a step of 4 or dilated by 2
        step = min(4, self.output_stride)
        for number, block in enumerate(self.blocks):
            if number and self._pools(number):
                field += step
                step *= 2
            for module in block.children():
                assert isinstance(module, UNetModule)
                field += 2 * module.reach * step
        return field


def table_column(
    variant: Variant,
    filters: int | None = None,
    widths: Sequence[int] | None = None,
    stacks: Sequence[int] | None = None,
) -> Table1:
    """Return a variant's column of Table 1, with other numbers where they are given.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {tuple(VARIANTS)}, got {variant!r}")
    column = VARIANTS[variant]
    return Table1(
        column.filters if filters is None else filters,
        column.widths if widths is None else tuple(widths),
        column.stacks if stacks is None else tuple(stacks),
    )


def _check(
    in_channels: int,
    filters: int,
    widths: Sequence[int],
    stacks: Sequence[int],
    output_stride: int,
) -> None:
    if in_channels < 1 or filters < 1:
        raise ValueError(
            f"in_channels and filters must be at least 1, got {in_channels} and {filters}"
        )
    if len(widths) != len(_LEVELS) + 2 or min(widths) < 1:
        raise ValueError(
            "widths must be 6 positive numbers (first convolution, residual block, four blocks of "
            f"U-Nets), got {tuple(widths)}"
        )
    if len(stacks) != len(_LEVELS) or min(stacks) < 1:
        raise ValueError(f"stacks must be {len(_LEVELS)} positive numbers, got {tuple(stacks)}")
    if output_stride not in (2, 4, 8, 16, 32):
        raise ValueError(f"output_stride must be 2, 4, 8, 16 or 32, got {output_stride}")
