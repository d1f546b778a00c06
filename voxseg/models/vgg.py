"""VGG-16 as a trunk: every layer has a name, fully connected ones are convolutions.

Source: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
Recognition*, 2015, arXiv:1409.1556; conv-6 and conv-7 in place of the fully connected layers, and
the padding of 3 in conv-6: Bansal et al., *PixelNet*, 2016, arXiv:1609.06694, section 4.

Departures:

- Pooling rounds up, as Caffe's does, so that every pixel of any image has its cells.
- The authors surround images with 100 zero pixels; here layers pad as VGG's do, and no more.
- Batch norm after each convolution is an option, for training from scratch.
- 3 spatial axes are an option; there are no ImageNet weights for them.
- The names in the state dict are torchvision's, so that its ImageNet files fit: convolutions are
  those of ``features``, conv-6 and conv-7 are ``classifier.0`` and ``classifier.3``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from voxseg.models.imagenet import load_weights, read_weights
from voxseg.models.shared import LoadReport
from voxseg.models.trunk import Tap, checked, chosen

WIDTHS = (64, 128, 256, 512, 512, 4096)
"""Channels of the five blocks, and of conv-6 and conv-7."""
BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of each block."""
LAYERS = (
    *(f"{block}_{i}" for block, n in enumerate(BLOCKS, start=1) for i in range(1, n + 1)),
    "6",
    "7",
)
"""Names of the convolutions, as the paper writes them: 1_2 is the second of the first block."""
TAPS = ("1_2", "2_2", "3_3", "4_3", "5_3")
"""What the paper's networks read; 7 besides in the best."""

_KERNELS = {"6": 7, "7": 1}
"""Of the others it is 3."""
_POOLED = ("2_1", "3_1", "4_1", "5_1", "6")
"""Convolutions that follow a pooling."""
_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_POOLING: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


class VGG16(nn.Module):
    """VGG-16 up to the deepest layer that is read; a layer is read behind its ReLU.

    Shape: (B, in_channels, *S) -> maps (B, channels, *ceil(S / stride)), any S; strides are 1, 2,
    4, 8, 16 in the five blocks and 32 in conv-6 and conv-7.

    Args:
        in_channels: channels of the image.
        taps: which of ``LAYERS`` are read.
        spatial_dims: 2 or 3.
        widths: channels of the five blocks, and of conv-6 and conv-7.
        batch_norm: whether a batch norm follows each convolution of the five blocks.
        dropout: share of the channels' values that training sets to 0 behind conv-6 and conv-7.

    Raises:
        ValueError: there is no such layer, or an option is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        taps: Sequence[str] = TAPS,
        *,
        spatial_dims: int = 2,
        widths: Sequence[int] = WIDTHS,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(widths) != len(WIDTHS) or min(widths) < 1:
            raise ValueError(f"widths must be {len(WIDTHS)} positive numbers, got {tuple(widths)}")
        if spatial_dims not in _CONVOLUTION:
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        self._names = chosen(taps, LAYERS, "VGG-16")
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self._batch_norm = batch_norm
        self._width = {name: widths[min(int(name[0]), 6) - 1] for name in LAYERS}
        features: list[nn.Module] = []
        classifier: list[nn.Module] = []
        channels = in_channels
        for name in LAYERS[: LAYERS.index(self._names[-1]) + 1]:
            width = self._width[name]
            if name in _POOLED:
                features.append(_POOLING[spatial_dims](2, 2, ceil_mode=True))
            convolution = _convolution(spatial_dims, channels, width, _KERNELS.get(name, 3))
            if name in _KERNELS:
                classifier += [convolution, nn.ReLU(inplace=True), nn.Dropout(dropout)]
            else:
                norm = [_BATCH_NORM[spatial_dims](width)] if batch_norm else []
                features += [convolution, *norm, nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    @property
    def taps(self) -> dict[str, Tap]:
        """The layers that are read."""
        axes = range(self.spatial_dims)
        return {
            name: Tap(
                self._width[name],
                tuple(_STRIDES[name] for _ in axes),
                tuple(_FIELDS[name] for _ in axes),
            )
            for name in self._names
        }

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of the taps, finest first."""
        features = checked(image, self.in_channels, self.spatial_dims)
        layers = iter(LAYERS)
        maps = []
        for modules, last in ((self.features, nn.ReLU), (self.classifier, nn.Dropout)):
            for module in modules:
                features = module(features)
                if isinstance(module, last) and next(layers) in self._names:
                    maps.append(features)
        return maps

    def load_imagenet(self, path: Path) -> LoadReport:
        """Load a state dict in torchvision's layout from a local file.

        Layers behind the deepest tap and the classifier of ImageNet are left out; torchvision's
        matrices of 7x7 cells are convolutions here. Nothing is changed unless everything fits.

        Raises:
            DataError: the file is missing, damaged, or of another network.
        """
        weights = read_weights(path)
        own = self.state_dict()
        for name in ("classifier.0.weight", "classifier.3.weight"):
            if name in own and name in weights and weights[name].numel() == own[name].numel():
                weights[name] = weights[name].reshape(own[name].shape)
        whole = _published_names(self._batch_norm)
        return load_weights(
            self,
            weights,
            path,
            kind="VGG-16 with batch norm" if self._batch_norm else "VGG-16",
            stem="features.0.weight",
            left_out=[name for name in weights if name in whole and name not in own],
        )


def _published_names(batch_norm: bool) -> set[str]:
    """Names in torchvision's file."""
    with torch.device("meta"):
        whole = VGG16(taps=LAYERS, batch_norm=batch_norm).state_dict()
    return {*whole, "classifier.6.weight", "classifier.6.bias"}


def _convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel: int
) -> nn.Conv2d | nn.Conv3d:
    """Build a convolution that keeps the size, with He-normal weights and no bias yet."""
    layer = _CONVOLUTION[spatial_dims](in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _geometry() -> tuple[dict[str, int], dict[str, int]]:
    """Stride and receptive field of every layer, along an axis."""
    strides, fields = {}, {}
    step, field = 1, 1
    for name in LAYERS:
        if name in _POOLED:
            step, field = 2 * step, field + step
        field += (_KERNELS.get(name, 3) - 1) * step
        strides[name], fields[name] = step, field
    return strides, fields


_STRIDES, _FIELDS = _geometry()
