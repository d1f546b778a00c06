"""The U-Net module that stacked U-nets are made of: out to a coarser grid and back, and the skip.

Source: Shah, Ghosh, Davis and Goldstein, *Stacked U-Nets: A No-Frills Approach to Natural Image
Segmentation*, 2018, arXiv:1804.10343, Figure 1 (U-Net, U-Net+) and section 5 (dilation, multigrid).
What the paper leaves out is as in the authors' code: biases everywhere, and one norm and ReLU for
both paths of a module that changes the number of channels.

Departures: the transposed convolutions answer for the size that was halved, whatever it is (the
authors' fix it by an image of 512 pixels); 3 spatial axes are an option; He's fan-out of a
transposed convolution counts its own outputs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Dilation = Literal["multigrid", "strided"]
"""How a module works at a dilation: on one grid with rates that rise and fall, or halving it."""
DILATIONS: tuple[Dilation, ...] = ("multigrid", "strided")

_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
MOMENTUM = 0.01
"""Share of a batch in the norms' running statistics; the paper's decay is 0.99."""


def batch_norm(spatial_dims: int, channels: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    """Build a batch norm whose running statistics move by a hundredth a batch."""
    return _BATCH_NORM[spatial_dims](channels, momentum=MOMENTUM)


def convolution(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Conv2d | nn.Conv3d:
    """Build a biased convolution of an odd kernel that keeps the grid, or takes each second cell.

    Weights start as He's normal distribution by fan-out, biases at 0.
    """
    layer = _CONVOLUTION[spatial_dims](
        in_channels,
        out_channels,
        kernel,
        stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
    )
    _initialise(layer)
    return layer


class NormReLUConv(nn.Module):
    """Batch norm, ReLU and a convolution with bias.

    Shape: (B, in_channels, *S) -> (B, out_channels, *ceil(S / stride)).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.norm = batch_norm(spatial_dims, in_channels)
        self.conv = convolution(
            spatial_dims, in_channels, out_channels, kernel, stride=stride, dilation=dilation
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolution's answer as it is."""
        answer: Tensor = self.conv(functional.relu(self.norm(features), inplace=True))
        return answer


class NormReLUDeconv(nn.Module):
    """Batch norm, ReLU and a transposed convolution with bias, 3 wide.

    Shape: (B, in_channels, *ceil(S / stride)) -> (B, out_channels, *S).
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.norm = batch_norm(spatial_dims, in_channels)
        self.conv = _TRANSPOSED[spatial_dims](
            in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation
        )
        _initialise(self.conv)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return the answer on a grid of ``size``, which ``stride`` brought to that of features."""
        active = functional.relu(self.norm(features), inplace=True)
        answer: Tensor = self.conv(active, output_size=list(size))
        return answer


class Down(nn.Module):
    """One level of a U-Net's encoder: a strided convolution and one on the coarser grid.

    Shape: (B, C, *S) -> (B, C, *ceil(S / stride)).

    Args:
        spatial_dims: 2 or 3.
        channels: C.
        stride: 2, or 1 to keep the grid.
        rates: dilations of the two convolutions.
    """

    def __init__(
        self, spatial_dims: int, channels: int, *, stride: int, rates: tuple[int, int]
    ) -> None:
        super().__init__()
        fine, coarse = rates
        self.conv1 = NormReLUConv(spatial_dims, channels, channels, stride=stride, dilation=fine)
        self.conv2 = NormReLUConv(spatial_dims, channels, channels, dilation=coarse)

    def forward(self, features: Tensor) -> Tensor:
        """Return the coarser map."""
        answer: Tensor = self.conv2(self.conv1(features))
        return answer


class Up(nn.Module):
    """One level of a U-Net's decoder: a transposed convolution and one on the finer grid.

    Shape: (B, in_channels, *ceil(S / stride)) -> (B, C, *S).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels in.
        channels: C.
        stride: 2, or 1 to keep the grid.
        rates: dilations of the encoder's two convolutions, which come back in reverse.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        rates: tuple[int, int],
    ) -> None:
        super().__init__()
        fine, coarse = rates
        self.deconv = NormReLUDeconv(
            spatial_dims, in_channels, channels, stride=stride, dilation=coarse
        )
        self.conv = NormReLUConv(spatial_dims, channels, channels, dilation=fine)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return the finer map, of ``size``."""
        answer: Tensor = self.conv(self.deconv(features, size))
        return answer


class UNetModule(nn.Module):
    """A bottleneck, a U-Net of so many levels, an expansion, and the skip around them.

    Every level halves the grid and comes back to it. Dilated, the module sees the same places as
    without: "strided" has this rate in all of its 3-wide convolutions and halves the grid still;
    "multigrid" keeps the grid, and the rates double level by level and fall again.

    The skip is the module's input as it is; where the number of channels changes, a 1-wide
    convolution of its norm and ReLU, which the bottleneck reads as well.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S), any S.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels in.
        filters: N, of every convolution inside.
        out_channels: channels out.
        levels: 2 for U-Net, 1 for U-Net+.
        rate: dilation against the network without; 1 for none.
        dilation: see above; with a rate of 1 both are the same.

    Attributes:
        reach: cells on each side that an answer reads, at most.
        stride: cells from one of the coarsest grid to the next.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        filters: int,
        out_channels: int,
        *,
        levels: int = 2,
        rate: int = 1,
        dilation: Dilation = "multigrid",
    ) -> None:
        super().__init__()
        _check(spatial_dims, levels, rate, dilation)
        stride = 2 if rate == 1 or dilation == "strided" else 1
        self.norm = batch_norm(spatial_dims, in_channels)
        self.bottleneck = convolution(spatial_dims, in_channels, filters, 1)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()  # finest level first, as the encoder
        self.reach, self.stride = 0, stride**levels
        for level in range(levels):
            rates = (rate, rate) if stride == 2 else (rate << level, rate << level + 1)
            # All levels but the deepest get what their encoder found beside what comes up.
            both = filters if level == levels - 1 else 2 * filters
            self.encoder.append(Down(spatial_dims, filters, stride=stride, rates=rates))
            self.decoder.append(Up(spatial_dims, both, filters, stride=stride, rates=rates))
            self.reach += stride**level * _reach(stride, *rates)
        self.expansion = NormReLUConv(spatial_dims, filters, out_channels, 1)
        self.skip = (
            convolution(spatial_dims, in_channels, out_channels, 1)
            if in_channels != out_channels
            else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the module's answer and its skip, summed; nothing comes after the sum."""
        active = functional.relu(self.norm(features), inplace=True)
        skip = features if self.skip is None else self.skip(active)
        taps: list[Tensor] = [self.bottleneck(active)]
        del active
        for down in self.encoder:
            taps.append(down(taps[-1]))
        found = taps.pop()
        for up in reversed(list(self.decoder)):
            finer = taps.pop()
            found = up(found, finer.shape[2:])
            if taps:  # the bottleneck's own answer, the last, is not joined
                found = torch.cat([found, finer], 1)
        answer: Tensor = self.expansion(found) + skip
        return answer


class ResidualStride(nn.Module):
    """Two 3-wide convolutions, the first of stride 2, and a 1-wide one around them.

    Both read one norm and ReLU of the input.

    Shape: (B, in_channels, *S) -> (B, out_channels, *ceil(S / stride)).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels in.
        out_channels: channels out.
        stride: 2, or 1 to keep the grid; the second convolution is then dilated by 2.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, stride: int = 2
    ) -> None:
        super().__init__()
        self.norm = batch_norm(spatial_dims, in_channels)
        self.conv1 = convolution(spatial_dims, in_channels, out_channels, 3, stride=stride)
        self.conv2 = NormReLUConv(spatial_dims, out_channels, out_channels, dilation=2 // stride)
        self.skip = convolution(spatial_dims, in_channels, out_channels, 1, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum as it is."""
        active = functional.relu(self.norm(features), inplace=True)
        answer: Tensor = self.conv2(self.conv1(active)) + self.skip(active)
        return answer


def _check(spatial_dims: int, levels: int, rate: int, dilation: str) -> None:
    if spatial_dims not in _CONVOLUTION:
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    if levels < 1 or rate < 1:
        raise ValueError(f"levels and rate must be at least 1, got {levels} and {rate}")
    if dilation not in DILATIONS:
        raise ValueError(f"dilation must be one of {DILATIONS}, got {dilation!r}")


def _reach(stride: int, fine: int, coarse: int) -> int:
    """Cells of the finer grid that a level reads on each side.

    By the encoder's two convolutions, the transposed one, which between two grids leans over by a
    cell of the finer, and the decoder's last.
    """
    return fine + stride * coarse + coarse + fine


def _initialise(layer: nn.modules.conv._ConvNd) -> None:
    fan_out = layer.out_channels * math.prod(layer.kernel_size)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
