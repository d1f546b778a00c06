"""ResNet-18, 34, 50 and 101 as backbones: a tap after each stage, ImageNet weights from a file.

Source: He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, 2016,
arXiv:1512.03385; the layers are MONAI's. Output stride and multi-grid: Chen, Papandreou, Schroff
and Adam, *Rethinking Atrous Convolution*, 2017, arXiv:1706.05587.

Departures:

- Bottlenecks stride in their 3x3 convolution, not in the first 1x1, as torchvision's, so that its
  ImageNet files fit. The names in the state dict are torchvision's, without the classifier ``fc``.
- A stage whose stride is replaced has all of its 3x3 convolutions dilated, the first one too.
- 3 spatial axes are an option; there are no ImageNet weights for them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from voxseg.models.imagenet import load_weights, read_weights
from voxseg.models.shared import LoadReport

Depth = Literal[18, 34, 50, 101]
OutputStride = Literal[8, 16, 32]

WIDTHS = (64, 128, 256, 512)
"""Planes of the four stages; a bottleneck's stage has four times as many channels."""

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_LEAST_BOTTLENECK = 50
_RGB = 3
_CLASSIFIER = ("fc.weight", "fc.bias")


class ResNet(nn.Module):
    """The convolutional part of a ResNet; ``forward`` returns what each of its stages gives.

    Shape: (B, in_channels, *S) -> four maps (B, channels[i], *ceil(S / strides[i])); any S.

    Args:
        in_channels: channels of the image.
        depth: 18 or 34 (basic blocks), 50 or 101 (bottlenecks).
        spatial_dims: 2 or 3.
        output_stride: stride of the last tap; 16 and 8 dilate the last one or two stages instead.
        multi_grid: factors on the dilation of the last stage's blocks, for an output stride below
            32; DeepLabv3's are (1, 2, 4).
        widths: planes of the four stages; the first is the stem's too.

    Attributes:
        channels: channels of each tap.
        strides: stride of each tap against the image; 4, 8, 16, 32.
        receptive_fields: pixels of the image that one pixel of each tap sees along each axis.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        in_channels: int = _RGB,
        *,
        depth: Depth = 50,
        spatial_dims: int = 2,
        output_stride: OutputStride = 32,
        multi_grid: Sequence[int] | None = None,
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        _check(in_channels, depth, spatial_dims, output_stride, widths)
        # Here, as the import takes seconds that commands without a ResNet need not wait for.
        from monai.networks.nets.resnet import ResNet as MonaiResNet

        is_bottleneck = depth >= _LEAST_BOTTLENECK
        built = MonaiResNet(
            block="bottleneck" if is_bottleneck else "basic",
            layers=list(_BLOCKS[depth]),
            block_inplanes=list(widths),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            # MONAI's defaults differ from torchvision's layers in these two.
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        self.in_channels = in_channels
        self.depth: Depth = depth
        self.spatial_dims = spatial_dims
        # Under torchvision's names, so that its state dicts fit as they are.
        self.conv1: nn.Module = built.conv1
        self.bn1: nn.Module = built.bn1
        self.act: nn.Module = built.act
        self.maxpool: nn.Module = built.maxpool
        self.layer1: nn.Sequential = built.layer1
        self.layer2: nn.Sequential = built.layer2
        self.layer3: nn.Sequential = built.layer3
        self.layer4: nn.Sequential = built.layer4
        grid = _grid(multi_grid, output_stride, len(self.layer4))
        if output_stride <= 16:
            _dilate(self.layer4, [32 // output_stride * factor for factor in grid])
        if output_stride <= 8:
            _dilate(self.layer3, [2] * len(self.layer3))
        expansion = 4 if is_bottleneck else 1
        self.channels = tuple(expansion * width for width in widths)
        self.strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
        self.receptive_fields = self._fields()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four taps of ``image``, finest first."""
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, and {self.spatial_dims} spatial axes), "
                f"got {tuple(image.shape)}"
            )
        features = self.maxpool(self.act(self.bn1(self.conv1(image))))
        taps = []
        for stage in self.stages:
            features = stage(features)
            taps.append(features)
        return taps

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages, finest first."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def load_imagenet(self, path: Path) -> LoadReport:
        """Load a state dict in torchvision's layout from a local file.

        The classifier is left out. Nothing is changed unless everything fits.

        Raises:
            DataError: the file is missing, damaged, or of another network.
        """
        weights = read_weights(path)
        kind = f"ResNet-{self.depth}"
        return load_weights(
            self, weights, path, kind=kind, stem="conv1.weight", left_out=_CLASSIFIER
        )

    def _fields(self) -> tuple[tuple[int, ...], ...]:
        """Follow step and field through the 3x3 convolutions; shortcuts see less."""
        step, field = 4, 7 + 2 * 2  # the stem's 7x7, and max-pooling 3x3 on its half grid
        fields = []
        for stage in self.stages:
            for layer in _wide_convolutions(stage):
                field += 2 * layer.dilation[0] * step
                step *= layer.stride[0]
            fields.append((field,) * self.spatial_dims)
        return tuple(fields)


def _wide_convolutions(stage: nn.Module) -> list[nn.Conv2d | nn.Conv3d]:
    """The 3x3 convolutions of a stage, in the order of the forward pass."""
    return [
        module
        for module in stage.modules()
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.kernel_size[0] > 1
    ]


def _dilate(stage: nn.Sequential, dilations: Sequence[int]) -> None:
    """Give the blocks of ``stage`` these dilations, and no stride."""
    for block, dilation in zip(stage, dilations, strict=True):
        for module in block.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                ones = (1,) * len(module.stride)
                module.stride = ones
                if module.kernel_size[0] > 1:
                    rates = (dilation,) * len(ones)
                    module.dilation = rates
                    module.padding = rates


def _check(
    in_channels: int, depth: int, spatial_dims: int, output_stride: int, widths: Sequence[int]
) -> None:
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {tuple(_BLOCKS)}, got {depth}")
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    if len(widths) != len(WIDTHS) or min(widths) < 1:
        raise ValueError(f"widths must be {len(WIDTHS)} positive numbers, got {tuple(widths)}")


def _grid(multi_grid: Sequence[int] | None, output_stride: int, blocks: int) -> tuple[int, ...]:
    if multi_grid is None:
        return (1,) * blocks
    if output_stride == 32 or len(multi_grid) != blocks or min(multi_grid) < 1:
        raise ValueError(
            f"multi_grid must be {blocks} positive numbers, one for each block of the last stage, "
            f"and needs an output stride of 8 or 16, got {tuple(multi_grid)} at {output_stride}"
        )
    return tuple(multi_grid)
