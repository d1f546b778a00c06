"""VoxRes modules, the trunk made of them, and the deconvolutions that bring its taps back.

Source: Chen, Dou, Yu and Heng, *VoxResNet: Deep Voxelwise Residual Networks for Volumetric Brain
Segmentation*, 2016, arXiv:1608.05895.

Departures: every kernel is 3 voxels wide on every axis (the original's figure has some 1x3x3);
weights start from He's normal distribution; instance and group normalisation are options; strides
can differ by axis; an image that the deepest stride does not divide is filled up with its last
voxels and the answer cut, since zeros there look like tissue and odd maps come back shifted.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["batch", "instance", "group"]
Stride = int | tuple[int, ...]

_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_MOST_GROUPS = 8
_STEM_FIELD = 5


def per_axis(stride: Stride, spatial_dims: int) -> tuple[int, ...]:
    """Write ``stride`` as one positive number for each of ``spatial_dims`` axes."""
    strides = (stride,) * spatial_dims if isinstance(stride, int) else tuple(stride)
    if len(strides) != spatial_dims or min(strides) < 1:
        raise ValueError(f"stride must be {spatial_dims} numbers of at least 1, got {stride}")
    return strides


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, stride: Stride = 1
) -> nn.Conv2d | nn.Conv3d:
    """Build a biased convolution, 3 voxels wide and padded by 1, with He-normal weights."""
    if spatial_dims not in _CONVOLUTION:
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    layer = _CONVOLUTION[spatial_dims](
        in_channels,
        out_channels,
        3,
        per_axis(stride, spatial_dims),  # type: ignore[arg-type] # as long as spatial_dims
        padding=1,
    )
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    _zero_bias(layer)
    return layer


def normalisation(norm: Norm, spatial_dims: int, channels: int) -> nn.Module:
    """Build a learnable normalisation of ``channels`` maps.

    ``instance`` is the group norm of one channel a group, which, unlike PyTorch's instance norm,
    accepts a map of one voxel; ``group`` has at most 8 groups.
    """
    match norm:
        case "batch":
            return _BATCH_NORM[spatial_dims](channels)
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "group":
            return nn.GroupNorm(math.gcd(channels, _MOST_GROUPS), channels)
    raise ValueError(f"norm must be 'batch', 'instance' or 'group', got {norm!r}")


class VoxRes(nn.Module):
    """BN-ReLU-conv, BN-ReLU-conv and the identity, with nothing after the sum.

    Source: arXiv:1608.05895, VoxRes module.
    Shape: (B, C, *S) -> (B, C, *S).
    """

    def __init__(self, spatial_dims: int, channels: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.norm1 = normalisation(norm, spatial_dims, channels)
        self.conv1 = convolution(spatial_dims, channels, channels)
        self.norm2 = normalisation(norm, spatial_dims, channels)
        self.conv2 = convolution(spatial_dims, channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Add the residual to ``features``."""
        residual = self.conv1(functional.relu(self.norm1(features), inplace=True))
        residual = self.conv2(functional.relu(self.norm2(residual), inplace=True))
        summed: Tensor = features + residual
        return summed


class Stage(nn.Module):
    """BN-ReLU, a strided convolution and two VoxRes modules.

    Shape: (B, C, *S) -> (B, out_channels, *ceil(S / stride)).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stride: Stride = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.norm = normalisation(norm, spatial_dims, in_channels)
        self.conv = convolution(spatial_dims, in_channels, out_channels, stride)
        self.voxres1 = VoxRes(spatial_dims, out_channels, norm)
        self.voxres2 = VoxRes(spatial_dims, out_channels, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of the second VoxRes module as it is, without BN-ReLU."""
        features = self.conv(functional.relu(self.norm(features), inplace=True))
        residual: Tensor = self.voxres2(self.voxres1(features))
        return residual


class VoxResTrunk(nn.Module):
    """Two full-resolution convolutions, then one ``Stage`` for each stride.

    Tap 0 is what conv1b gives, tap ``i`` what stage ``i`` gives, each without BN-ReLU.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        widths: channels of tap 0 and of each stage; the paper's are (32, 64, 64, 64).
        strides: stride of each stage, one number or one for each axis; the paper's are 2.
        norm: normalisation before each ReLU.

    Attributes:
        widths: channels of each tap.
        strides: stride of each tap against the image, by axis.
        receptive_fields: voxels of the image that a voxel of each tap sees, by axis.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        widths: Sequence[int],
        strides: Sequence[Stride],
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if len(widths) != len(strides) + 1:
            raise ValueError(
                f"widths needs one number for the stem and one for each of the {len(strides)} "
                f"stages, got {tuple(widths)}"
            )
        steps = [per_axis(stride, spatial_dims) for stride in strides]
        self.widths = tuple(widths)
        self.strides, self.receptive_fields = _geometry(spatial_dims, steps)
        self.conv1a = convolution(spatial_dims, in_channels, widths[0])
        self.norm1a = normalisation(norm, spatial_dims, widths[0])
        self.conv1b = convolution(spatial_dims, widths[0], widths[0])
        self.stages = nn.ModuleList(
            Stage(spatial_dims, widths[i], widths[i + 1], step, norm)
            for i, step in enumerate(steps)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return every tap of ``image`` (B, C, *S).

        With S' the size that is filled up to a multiple of the deepest stride, tap i is
        (B, widths[i], *S' / stride): a consumer cuts off what is beyond S.
        """
        features = self.conv1a(fill_grid(image, self.strides[-1]))
        features = self.conv1b(functional.relu(self.norm1a(features), inplace=True))
        taps = [features]
        for stage in self.stages:
            taps.append(stage(taps[-1]))
        return taps


class Deconvolution(nn.Module):
    """Bring a tap of stride s back to the image's grid: kernel s + 2, stride s, padding 1.

    With strides 1, 2, 4 and 8 these are the kernels 3, 4, 6 and 10 of the classical network.
    Shape: (B, C, *ceil(S / stride)) -> (B, out_channels, *S).
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, stride: Stride
    ) -> None:
        super().__init__()
        steps = per_axis(stride, spatial_dims)
        self.deconv = _TRANSPOSED[spatial_dims](
            in_channels,
            out_channels,
            tuple(step + 2 for step in steps),  # type: ignore[arg-type] # as long as spatial_dims
            steps,  # type: ignore[arg-type] # as long as spatial_dims
            padding=1,
        )
        # Inputs that meet in one output voxel; PyTorch's own fan-in forgets the stride.
        fan_in = in_channels * math.prod((step + 2) / step for step in steps)
        nn.init.normal_(self.deconv.weight, std=math.sqrt(2 / fan_in))
        _zero_bias(self.deconv)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return the first ``size`` voxels of each axis: strides round the grid up."""
        upsampled: Tensor = self.deconv(features)
        for axis, length in enumerate(size, start=2):
            upsampled = upsampled.narrow(axis, 0, length)
        return upsampled


def _geometry(
    spatial_dims: int, steps: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Follow stride and receptive field through the stages: one strided, four plain convs each."""
    strides = [(1,) * spatial_dims]
    fields = [(_STEM_FIELD,) * spatial_dims]
    for step in steps:
        before = strides[-1]
        strides.append(tuple(b * s for b, s in zip(before, step, strict=True)))
        fields.append(
            tuple(
                f + 2 * b + 4 * 2 * s
                for f, b, s in zip(fields[-1], before, strides[-1], strict=True)
            )
        )
    return tuple(strides), tuple(fields)


def fill_grid(image: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Repeat the last voxels of each axis until the deepest stride divides it.

    Where the deepest map would be one voxel, zeros make it two: no normalisation trains on one.
    """
    size = image.shape[2:]
    missing = [-length % step for length, step in zip(size, stride, strict=True)]
    # An exported network must not depend on whether its example's size happened to need filling.
    is_exporting = torch.compiler.is_exporting()
    if is_exporting or any(missing):
        # functional.pad wants the last axis first.
        pads = [pad for length in reversed(missing) for pad in (0, length)]
        image = functional.pad(image, pads, mode="replicate")
    if not is_exporting and tuple(image.shape[2:]) == stride:
        image = functional.pad(image, (0, stride[-1]))
    return image


def _zero_bias(layer: nn.Module) -> None:
    bias = layer.bias
    if isinstance(bias, Tensor):
        with torch.no_grad():
            bias.zero_()
