"""ENet's blocks: initial block, bottlenecks, encoder and decoder. Two spatial axes only.

Source: Paszke, Chaurasia, Kim and Culurciello, *ENet: A Deep Neural Network Architecture for
Real-Time Semantic Segmentation*, 2016, arXiv:1606.02147.

Departures: the networks that are called ENet differ in ``Details``, which the paper leaves open;
its defaults are those of the network that the authors published for Cityscapes. The authors'
dropout leaves what it keeps as it is in training and scales all in evaluation; here, as everywhere
in PyTorch, it scales in training, which is the same network with other weights (see
``voxseg.models.enet_weights``). The initial block keeps its 16 maps whatever the image's channels,
of which the paper has three.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL = 16
"""Maps of the initial block and of the decoder's end."""
WIDTHS = (64, 128)
"""Channels of the encoder's two depths."""

_NARROWING = 4  # how much thinner a bottleneck is than what it reads and writes
_PLAIN_BLOCKS = 4
_STAGE: tuple[int | None, ...] = (1, 2, None, 4, 1, 8, None, 16)
"""Dilation of each bottleneck of stages 2 and 3; None is asymmetric."""
_ASYMMETRIC = 5
_EARLY_DROPOUT, _DROPOUT = 0.01, 0.1


@dataclass(frozen=True, kw_only=True)
class Details:
    """What differs between the networks that are called ENet."""

    eps: float = 1e-3
    """Of every batch norm."""
    bias: bool = True
    """Of convolutions wider than 1x1; projections and expansions never have one."""
    slope_per_channel: bool = True
    """PReLU learns a slope for each channel, otherwise one."""
    narrow_output: bool = True
    """A bottleneck that changes the width is a quarter of its output wide, else of its input."""
    active_expansion: bool = False
    """An activation follows the expansion, except in upsampling."""
    split_asymmetric: bool = False
    """Norm and activation stand between the two asymmetric convolutions; then 5x1 comes first."""
    pool_kernel: int = 2
    """Of the initial block's pooling: 2, or 3 with padding."""
    up_kernel: int = 3
    """Of the decoder's upsampling: 3 or 2."""
    last_kernel: int = 2
    """Of the last transposed convolution: 2 or 3."""
    decoder_prelu: bool = True
    """The decoder has PReLU, otherwise ReLU."""
    decoder_dropout: float = 0.0
    """Dropout in the decoder's bottlenecks."""

    def activation(self, channels: int, *, prelu: bool) -> nn.Module:
        """Build an activation of ``channels`` maps."""
        if not prelu:
            return nn.ReLU()
        return nn.PReLU(channels if self.slope_per_channel else 1)


def pool_windows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Take the maximum of each 2x2 window and remember where it was.

    Args:
        features: (B, C, H, W), H and W even.

    Returns:
        The maxima (B, C, H / 2, W / 2) and their int64 indices into H * W, of the same shape.
    """
    return functional.max_pool2d_with_indices(features, (2, 2))


def unpool_windows(values: Tensor, indices: Tensor) -> Tensor:
    """Put each value where ``pool_windows`` found a maximum, and zero elsewhere.

    Windows do not overlap, so that no place is written twice and the answer is deterministic.

    Args:
        values: (B, C, H, W).
        indices: (B, C, H, W) into 4 * H * W, from ``pool_windows``.

    Returns:
        (B, C, 2 * H, 2 * W).
    """
    if values.shape != indices.shape:
        raise ValueError(
            f"values and indices must have one shape, got {tuple(values.shape)} and "
            f"{tuple(indices.shape)}"
        )
    batch, channels, height, width = values.shape
    flat = values.new_zeros(batch, channels, 4 * height * width)
    flat = flat.scatter(2, indices.flatten(2), values.flatten(2))
    return flat.view(batch, channels, 2 * height, 2 * width)


def doubling(in_channels: int, out_channels: int, kernel: int, *, bias: bool) -> nn.ConvTranspose2d:
    """Build the transposed convolution, 2 or 3 wide, that doubles height and width."""
    if kernel not in (2, 3):
        raise ValueError(f"the kernel must be 2 or 3 wide, got {kernel}")
    extra = kernel - 2
    return nn.ConvTranspose2d(
        in_channels, out_channels, kernel, 2, padding=extra, output_padding=extra, bias=bias
    )


class InitialBlock(nn.Module):
    """A strided convolution beside a max pooling of the image; batch norm and PReLU.

    Shape: (B, in_channels, H, W), even -> (B, 16, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, details: Details) -> None:
        super().__init__()
        if not 1 <= in_channels < INITIAL:
            raise ValueError(f"in_channels must be 1 to {INITIAL - 1}, got {in_channels}")
        if details.pool_kernel not in (2, 3):
            raise ValueError(f"pool_kernel must be 2 or 3, got {details.pool_kernel}")
        self.conv = nn.Conv2d(
            in_channels, INITIAL - in_channels, 3, 2, padding=1, bias=details.bias
        )
        self.pool = nn.MaxPool2d(details.pool_kernel, 2, padding=details.pool_kernel - 2)
        self.norm = nn.BatchNorm2d(INITIAL, details.eps)
        self.activation = details.activation(INITIAL, prelu=True)

    def forward(self, image: Tensor) -> Tensor:
        """Return the learned maps first, then the pooled image."""
        maps: Tensor = self.activation(
            self.norm(torch.cat([self.conv(image), self.pool(image)], 1))
        )
        return maps


class Bottleneck(nn.Module):
    """Project, convolve, expand, drop maps, and add the input.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        details: which ENet.
        dilation: of the 3x3 convolution; None for the asymmetric pair, 5 wide.
        dropout: probability to drop a map.
        prelu: PReLU, otherwise ReLU.
    """

    def __init__(
        self,
        channels: int,
        details: Details,
        *,
        dilation: int | None = 1,
        dropout: float = 0.0,
        prelu: bool = True,
    ) -> None:
        super().__init__()
        narrow = channels // _NARROWING
        if dilation is None:
            middle = _asymmetric(narrow, details, prelu)
        else:
            middle = [_square(narrow, details, dilation)]
        self.residual = _residual(
            nn.Conv2d(channels, narrow, 1, bias=False),
            middle,
            channels,
            details,
            prelu=prelu,
            dropout=dropout,
            active=details.active_expansion,
        )
        self.activation = details.activation(channels, prelu=prelu)

    def forward(self, features: Tensor) -> Tensor:
        """Return the activated sum."""
        summed: Tensor = self.activation(features + self.residual(features))
        return summed


class Downsampling(nn.Module):
    """A bottleneck with stride 2 beside a 2x2 max pooling, whose maxima the decoder puts back.

    Shape: (B, in_channels, H, W), even -> (B, out_channels, H / 2, W / 2) and the indices
    (B, in_channels, H / 2, W / 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, details: Details, *, dropout: float
    ) -> None:
        super().__init__()
        narrow = (out_channels if details.narrow_output else in_channels) // _NARROWING
        self.residual = _residual(
            nn.Conv2d(in_channels, narrow, 2, 2, bias=False),
            [_square(narrow, details)],
            out_channels,
            details,
            prelu=True,
            dropout=dropout,
            active=details.active_expansion,
        )
        self.activation = details.activation(out_channels, prelu=True)
        self._more = out_channels - in_channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activated sum, pooled maps filled up with zero maps, and the indices."""
        pooled, indices = pool_windows(features)
        filled = functional.pad(pooled, (0, 0, 0, 0, 0, self._more))
        return self.activation(filled + self.residual(features)), indices


class Upsampling(nn.Module):
    """A bottleneck of stride 1/2 beside a projection whose values return to the maxima's places.

    Shape: (B, in_channels, H, W) and indices (B, out_channels, H, W) ->
    (B, out_channels, 2 * H, 2 * W).
    """

    def __init__(self, in_channels: int, out_channels: int, details: Details) -> None:
        super().__init__()
        prelu = details.decoder_prelu
        narrow = (out_channels if details.narrow_output else in_channels) // _NARROWING
        self.residual = _residual(
            nn.Conv2d(in_channels, narrow, 1, bias=False),
            [doubling(narrow, narrow, details.up_kernel, bias=details.bias)],
            out_channels,
            details,
            prelu=prelu,
            dropout=details.decoder_dropout,
            active=False,
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, details.eps),
        )
        self.activation = details.activation(out_channels, prelu=prelu)

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        """Return the activated sum."""
        unpooled = unpool_windows(self.shortcut(features), indices)
        summed: Tensor = self.activation(unpooled + self.residual(features))
        return summed


class ENetEncoder(nn.Module):
    """Initial block and stages 1 to 3: 22 bottlenecks, an eighth of the resolution.

    Shape: (B, in_channels, H, W), multiples of 8 -> (B, 128, H / 8, W / 8) and the indices of its
    two poolings, the finer first.

    Attributes:
        strides: stride of the maps at each depth, by axis.
        field: pixels to the left and to the right of its own first one that an answer sees.
    """

    def __init__(self, in_channels: int, details: Details) -> None:
        super().__init__()
        fine, deep = WIDTHS
        self.initial = InitialBlock(in_channels, details)
        self.stage1 = nn.ModuleList(
            [
                Downsampling(INITIAL, fine, details, dropout=_EARLY_DROPOUT),
                *(Bottleneck(fine, details, dropout=_EARLY_DROPOUT) for _ in range(_PLAIN_BLOCKS)),
            ]
        )
        self.stage2 = nn.ModuleList(
            [
                Downsampling(fine, deep, details, dropout=_DROPOUT),
                *_dilated_stage(deep, details),
            ]
        )
        self.stage3 = nn.ModuleList(_dilated_stage(deep, details))
        self.strides = ((2, 2), (4, 4), (8, 8))
        # 3x3 at stride 2; then two strided steps of one further cell, 3x3 and bottlenecks.
        stages = 2 * sum(_ASYMMETRIC // 2 if d is None else d for d in _STAGE)
        both = 1 + 4 * (1 + _PLAIN_BLOCKS) + 8 * (1 + stages)
        self.field = (both, both + 2 + 4)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest features and where the poolings found their maxima."""
        features = self.initial(image)
        indices = []
        for stage in (self.stage1, self.stage2):
            features, found = stage[0](features)
            indices.append(found)
            for block in list(stage)[1:]:
                features = block(features)
        for block in self.stage3:
            features = block(features)
        return features, indices


class ENetDecoder(nn.Module):
    """Stages 4 and 5: two upsamplings and three bottlenecks, up to half the resolution.

    Shape: (B, 128, H / 8, W / 8) and the encoder's indices -> (B, 16, H / 2, W / 2).

    Attributes:
        field: pixels that these stages add to an answer's field to the left and to the right.
    """

    def __init__(self, details: Details) -> None:
        super().__init__()
        fine, deep = WIDTHS

        def plain(channels: int) -> Bottleneck:
            return Bottleneck(
                channels,
                details,
                dropout=details.decoder_dropout,
                prelu=details.decoder_prelu,
            )

        self.stage4 = nn.ModuleList(
            [Upsampling(deep, fine, details), plain(fine), plain(fine)],
        )
        self.stage5 = nn.ModuleList([Upsampling(fine, INITIAL, details), plain(INITIAL)])
        # The pixel below, and with a kernel of 3 the one after it; the bottlenecks' 3x3.
        after = details.up_kernel - 2
        self.field = (4 * (1 + 2) + 2 * (1 + 1), 4 * (after + 2) + 2 * (after + 1))

    def forward(self, features: Tensor, indices: Sequence[Tensor]) -> Tensor:
        """Return the map that the last transposed convolution and the superpixels read."""
        for stage, found in zip((self.stage4, self.stage5), reversed(indices), strict=True):
            features = stage[0](features, found)
            for block in list(stage)[1:]:
                features = block(features)
        return features


def _square(channels: int, details: Details, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=details.bias)


def _asymmetric(channels: int, details: Details, prelu: bool) -> list[nn.Module]:
    """Build the pair: 1x5 and 5x1, or 5x1, norm, activation and 1x5."""
    long, side = _ASYMMETRIC, _ASYMMETRIC // 2
    if details.split_asymmetric:
        return [
            nn.Conv2d(channels, channels, (long, 1), padding=(side, 0), bias=details.bias),
            nn.BatchNorm2d(channels, details.eps),
            details.activation(channels, prelu=prelu),
            nn.Conv2d(channels, channels, (1, long), padding=(0, side), bias=details.bias),
        ]
    return [
        nn.Conv2d(channels, channels, (1, long), padding=(0, side), bias=False),
        nn.Conv2d(channels, channels, (long, 1), padding=(side, 0), bias=details.bias),
    ]


def _residual(
    project: nn.Conv2d,
    middle: list[nn.Module],
    out_channels: int,
    details: Details,
    *,
    prelu: bool,
    dropout: float,
    active: bool,
) -> nn.Sequential:
    """Chain projection, middle and expansion, each with its norm and activation, and dropout."""
    narrow = project.out_channels
    layers: list[nn.Module] = [project, nn.BatchNorm2d(narrow, details.eps)]
    layers += [details.activation(narrow, prelu=prelu), *middle]
    layers += [nn.BatchNorm2d(narrow, details.eps), details.activation(narrow, prelu=prelu)]
    layers += [
        nn.Conv2d(narrow, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels, details.eps),
    ]
    if active:
        layers.append(details.activation(out_channels, prelu=prelu))
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def _dilated_stage(channels: int, details: Details) -> list[nn.Module]:
    return [
        Bottleneck(channels, details, dilation=dilation, dropout=_DROPOUT) for dilation in _STAGE
    ]
