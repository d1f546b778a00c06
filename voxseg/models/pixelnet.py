"""PixelNet: a small perceptron classifies hypercolumns, those of chosen pixels in training.

Source: Bansal, Chen, Russell, Gupta and Ramanan, *PixelNet: Towards a General Pixel-Level
Architecture*, 2016, arXiv:1609.06694; details after the authors' code for arXiv:1702.06506.

Departures:

- The trunk is an argument: VGG-16, VoxResNet in 2 or 3 axes, or a network of one's own.
- Hypercolumns are interpolated over the image as it is; the authors surround it with zeros.
- The prediction for all pixels goes through the image in boxes, within a fixed memory.
- Weights of the perceptron from He's normal distribution are an option, for small networks from
  scratch; biases start at 0.
- Table 4 counts 1,056 features of conv-{1_2, 3_3, 5_3} and 144 MB with three layers; those layers
  have 832 channels, which fit its 74 MB and 686 MB (and make 141 MB).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.hypercolumn import boxes, dense_hypercolumns, sample_hypercolumns
from voxseg.layers.voxres import Norm
from voxseg.models.trunk import VOXRES_TAPS, Trunk, VoxResTaps
from voxseg.models.vgg import TAPS, VGG16, WIDTHS

HIDDEN = (4096, 4096)
"""Widths of the perceptron's hidden layers."""
VOLUME_HIDDEN = (256, 256)
"""The same on VoxResNet, whose hypercolumns have 224 features."""
STD = 1e-3
"""Standard deviation of the perceptron's first weights."""

_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


class PixelNet(nn.Module):
    """A multi-layer perceptron on the hypercolumns of a trunk.

    Args:
        trunk: ``VGG16``, ``VoxResTaps``, ``TappedNetwork`` or anything like them.
        num_classes: number of outputs of a pixel.
        hidden: widths of the perceptron's hidden layers; none is a linear predictor.
        dropout: share of the hidden values that training sets to 0.
        input_dropout: the same of the hypercolumns.
        normalise_taps: whether each tapped map goes through a batch norm that learns no scale and
            no shift, without which a linear predictor does not converge.
        std: standard deviation of the perceptron's first weights; 0 takes He's normal distribution.

    Attributes:
        receptive_field: pixels that a cell of the deepest tap sees, by axis; None where nobody
            knows.
        output_stride: 1: every pixel is classified.
        block_bytes: about what a prediction for all pixels takes besides the trunk and the answer.
        needs_superpixels: False.

    Raises:
        ValueError: an option is outside its range.
    """

    needs_superpixels = False
    output_stride = 1
    block_bytes = 2**27

    def __init__(
        self,
        trunk: Trunk,
        num_classes: int,
        *,
        hidden: Sequence[int] = HIDDEN,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        normalise_taps: bool = False,
        std: float = STD,
    ) -> None:
        super().__init__()
        if num_classes < 1 or any(width < 1 for width in hidden):
            raise ValueError(
                f"num_classes and hidden must be positive, got {num_classes}, {tuple(hidden)}"
            )
        if not 0 <= dropout < 1 or not 0 <= input_dropout < 1 or std < 0:
            raise ValueError(
                f"dropout and input_dropout must be in [0, 1) and std not negative, got {dropout}, "
                f"{input_dropout}, {std}"
            )
        self.trunk = trunk
        self.in_channels = trunk.in_channels
        self.num_classes = num_classes
        self.spatial_dims = trunk.spatial_dims
        self.dropout = dropout
        self.input_dropout = input_dropout
        channels = [tap.channels for tap in trunk.taps.values()]
        self.norms = nn.ModuleList(
            _BATCH_NORM[trunk.spatial_dims](width, affine=False)
            for width in channels * normalise_taps
        )
        widths = [sum(channels), *hidden, num_classes]
        self.mlp = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        for layer in self._layers:
            _initialise(layer, std)

    @property
    def receptive_field(self) -> tuple[int, ...] | None:
        """Pixels that a cell of the deepest tap sees, by axis; None where nobody knows."""
        fields = [tap.field for tap in self.trunk.taps.values()]
        known = [field for field in fields if field is not None]
        return tuple(map(max, zip(*known, strict=True))) if len(known) == len(fields) else None

    @property
    def reach(self) -> tuple[int, ...] | None:
        """Pixels on each side that the answer for a pixel depends on, by axis.

        None with instance or group norm, which look at the whole image, and where nobody knows.
        """
        if any(isinstance(module, nn.GroupNorm) for module in self.modules()):
            return None
        found = []
        for tap in self.trunk.taps.values():
            if tap.field is None or tap.stride is None:
                return None
            # A pixel lies between two cells, at most a stride from either; and a cell of strided
            # convolutions sees what is half a stride before it.
            pairs = zip(tap.field, tap.stride, strict=True)
            found.append([n // 2 + (math.ceil(1.5 * s) if s > 1 else 0) for n, s in pairs])
        return tuple(map(max, zip(*found, strict=True)))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Go through the parameters that no ImageNet file has: those of the perceptron."""
        return self.mlp.parameters()

    def forward(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes, *S) of ``image`` (B, in_channels, *S), any S.

        Without gradients the image is classified box by box; with gradients at once, which takes
        memory for every pixel. Superpixels and their count are taken as every model does, and not
        needed.
        """
        size = image.shape[2:]
        maps = self._maps(image)
        if torch.is_grad_enabled():
            columns = dense_hypercolumns(maps, size, self._strides)
            answer = self._classified(columns.flatten(2))
            return answer.reshape(*answer.shape[:2], *size)
        logits: Tensor | None = None
        for box in boxes(size, self._pixels_at_once(maps)):
            columns = dense_hypercolumns(maps, size, self._strides, box)
            part = self._classified(columns.flatten(2))
            if logits is None:
                logits = part.new_empty(len(image), self.num_classes, *size)
            place = logits[(slice(None), slice(None), *box)]
            place.copy_(part.reshape(place.shape))
            del columns, part
        assert logits is not None
        return logits

    def sampled(self, image: Tensor, points: Tensor) -> Tensor:
        """Return the logits of chosen pixels, equal to those of ``forward`` there.

        Args:
            image: (B, in_channels, *S).
            points: (B, P) int64, positions in the flattened image.

        Returns:
            (B, num_classes, P).
        """
        columns = sample_hypercolumns(self._maps(image), points, image.shape[2:], self._strides)
        return self._classified(columns)

    def supervise(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer.

        Training on ``sampled`` instead takes a fraction of time and memory.
        """
        return self(image), []

    @property
    def _strides(self) -> list[tuple[float, ...] | None]:
        return [tap.stride for tap in self.trunk.taps.values()]

    def _maps(self, image: Tensor) -> list[Tensor]:
        maps = self.trunk(image)
        for number, norm in enumerate(self.norms):
            maps[number] = norm(maps[number])
        return maps

    def _classified(self, columns: Tensor) -> Tensor:
        """Classify hypercolumns (B, C, P); (B, num_classes, P)."""
        batch, channels, pixels = columns.shape
        rows = columns.transpose(1, 2).reshape(batch * pixels, channels)
        rows = functional.dropout(rows, self.input_dropout, self.training)
        *hidden, last = self._layers
        for layer in hidden:
            # Dropout before the ReLU is the same, and both can then work in place.
            rows = functional.dropout(layer(rows), self.dropout, self.training, inplace=True)
            rows = functional.relu(rows, inplace=True)
        answer: Tensor = last(rows)
        return answer.view(batch, pixels, self.num_classes).transpose(1, 2)

    def _pixels_at_once(self, maps: Sequence[Tensor]) -> int:
        """How many pixels of every image fit into ``block_bytes``."""
        # Of each layer what goes in and what comes out; hypercolumns are rearranged once.
        widest = max(layer.in_features + layer.out_features for layer in self._layers)
        values = self._layers[0].in_features + widest
        return max(1, self.block_bytes // (maps[0].element_size() * values * len(maps[0])))

    @property
    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.mlp if isinstance(layer, nn.Linear)]


def build_pixelnet(
    in_channels: int,
    num_classes: int,
    *,
    spatial_dims: int = 2,
    taps: Sequence[str] = TAPS,
    hidden: Sequence[int] = HIDDEN,
    widths: Sequence[int] = WIDTHS,
    normalise_taps: bool = False,
) -> PixelNet:
    """Build a PixelNet on VGG-16, as the paper's tables have it."""
    trunk = VGG16(in_channels, taps, spatial_dims=spatial_dims, widths=widths)
    return PixelNet(trunk, num_classes, hidden=hidden, normalise_taps=normalise_taps)


def build_volume_pixelnet(
    in_channels: int,
    num_classes: int,
    *,
    spatial_dims: int = 3,
    taps: Sequence[str] = VOXRES_TAPS[:4],
    hidden: Sequence[int] = VOLUME_HIDDEN,
    width_divisor: int = 1,
    norm: Norm = "batch",
) -> PixelNet:
    """Build a PixelNet on VoxResNet's trunk, to be trained from scratch."""
    trunk = VoxResTaps(
        in_channels, taps, spatial_dims=spatial_dims, width_divisor=width_divisor, norm=norm
    )
    return PixelNet(trunk, num_classes, hidden=hidden, dropout=0.0, normalise_taps=True, std=0.0)


def _initialise(layer: nn.Linear, std: float) -> None:
    if std:
        nn.init.normal_(layer.weight, std=std)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
