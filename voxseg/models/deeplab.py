"""DeepLabv3: a dilated ResNet, a context module (ASPP or vortex pooling) and a 1x1 classifier.

Source: Chen, Papandreou, Schroff and Adam, *Rethinking Atrous Convolution for Semantic Image
Segmentation*, 2017, arXiv:1706.05587; with vortex pooling: Xie, Zhou and Wu, 2018,
arXiv:1804.06242, Figure 4.

Departures:

- Figure 4 of arXiv:1804.06242 classifies the concatenated branches with a 1x1 convolution. By
  default DeepLabv3's 1x1 convolution to 256 channels with norm and ReLU comes before it, as there;
  ``projection=None`` is the figure read literally.
- A cell of the backbone's map lies on every 8th (16th) pixel, the first on the first. Therefore an
  image is filled up with its last pixels to a multiple of the stride plus one (513 as it is) and to
  two cells at least, and the cut answer is nowhere shifted against the image; a single image can
  train, however small it is.
- At output stride 16 the rates of ASPP and Module A halve, as DeepLabv3's; Module B, which tiles
  what is around a cell, keeps its regions. The vortex paper has stride 8 only.
- Classifier weights start from N(0, 0.01).
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.aspp import ASPP, CHANNELS, RATES, ConvNormReLU
from voxseg.layers.vortex import Border, VortexPooling, module_a
from voxseg.models.resnet import WIDTHS, Depth, OutputStride, ResNet

Context = Literal["aspp", "aspp+", "module-a5", "module-a9", "module-a13", "vortex"]
CONTEXTS: tuple[Context, ...] = ("aspp", "aspp+", "module-a5", "module-a9", "module-a13", "vortex")
MULTI_GRID = (1, 2, 4)
"""Factors on the dilations of the last stage's three blocks."""
_CLASSIFIER_STD = 0.01


class DeepLab(nn.Module):
    """Semantic segmentation of images of any size, from built parts; see ``build_deeplab``.

    Args:
        backbone: gives maps whose last one is read; two spatial axes.
        context: the module behind it.
        num_classes: number of classes, background included.
        projection: channels of the 1x1 convolution after the concatenation; None for none.

    Attributes:
        receptive_field: pixels along each axis that one cell of the context sees; the global branch
            sees the whole image besides.
        output_stride: pixels from one classified cell to the next, along each axis.
        reach: None: an answer depends on the whole image, which is not to be cut into tiles.
        needs_superpixels: False.

    Raises:
        ValueError: ``num_classes`` or ``projection`` is below 1, or the backbone is not 2D.
    """

    def __init__(
        self,
        backbone: ResNet,
        context: ASPP | VortexPooling,
        num_classes: int,
        *,
        projection: int | None = CHANNELS,
    ) -> None:
        super().__init__()
        if num_classes < 1 or (projection is not None and projection < 1):
            raise ValueError(
                f"num_classes and projection must be at least 1, got {num_classes}, {projection}"
            )
        if backbone.spatial_dims != 2:
            raise ValueError(f"the backbone must be 2D, got {backbone.spatial_dims} spatial axes")
        self.in_channels = backbone.in_channels
        self.num_classes = num_classes
        self.spatial_dims = 2
        self.needs_superpixels = False
        self.reach: tuple[int, ...] | None = None
        self.output_stride = backbone.strides[-1]
        self.receptive_field = tuple(
            field + 2 * context.reach * self.output_stride
            for field in backbone.receptive_fields[-1]
        )
        self.backbone = backbone
        self.context = context
        self.projection: nn.Module = nn.Identity()
        channels = context.out_channels
        if projection is not None:
            self.projection = ConvNormReLU(channels, projection)
            channels = projection
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=_CLASSIFIER_STD)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes, H, W) of images (B, in_channels, H, W).

        ``superpixels`` and ``count`` are there for one call of all networks, and not read.

        Raises:
            ValueError: the images have other channels or axes than the network.
        """
        size = x.shape[2:]
        coarse = self.coarse_logits(x)
        filled = [self.output_stride * (length - 1) + 1 for length in coarse.shape[2:]]
        logits = functional.interpolate(coarse, filled, mode="bilinear", align_corners=True)
        return logits[..., : size[0], : size[1]]

    def coarse_logits(self, x: Tensor) -> Tensor:
        """Return the logits of the cells, which lie on every ``output_stride``-th pixel.

        The last cell of each axis lies on or beyond the last pixel, and there are two at least.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, H, W), got {tuple(x.shape)}"
            )
        # The last axis first, as functional.pad wants it.
        pads = [pad for length in reversed(x.shape[2:]) for pad in (0, self._missing(length))]
        if any(pads):
            x = functional.pad(x, pads, mode="replicate")
        answer: Tensor = self.classifier(self.projection(self.context(self.backbone(x)[-1])))
        return answer

    def supervise(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``; there are no auxiliary answers."""
        return self(x, superpixels, count), []

    def _missing(self, length: int) -> int:
        return max(-(length - 1) % self.output_stride, self.output_stride + 1 - length)


def build_deeplab(  # noqa: PLR0913 - the choices of two papers
    in_channels: int,
    num_classes: int,
    *,
    spatial_dims: int = 2,
    depth: Depth = 50,
    context: Context = "vortex",
    output_stride: OutputStride = 8,
    multi_grid: Sequence[int] | None = MULTI_GRID,
    widths: Sequence[int] = WIDTHS,
    channels: int = CHANNELS,
    projection: int | None = CHANNELS,
    border: Border = "ignore",
    conv_first: bool = False,
) -> DeepLab:
    """Build a DeepLabv3 from plain numbers.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, background included.
        spatial_dims: 2; there is no other.
        depth: of the ResNet; 50 and 101 are the papers'. 18 has two blocks in its last stage, so it
            needs a ``multi_grid`` of two.
        context: ``aspp``, ``aspp+``, ``module-a5``, ``module-a9``, ``module-a13`` or ``vortex``.
        output_stride: 8, 16 or 32; 32 goes with ``multi_grid=None``.
        multi_grid: factors on the dilations of the last stage's blocks.
        widths: planes of the ResNet's stages.
        channels: filters of each branch of the context module.
        projection: channels between context module and classifier; None for none.
        border: of the pooling, see ``voxseg.layers.vortex.average_pool``.
        conv_first: of the pooling, see ``voxseg.layers.vortex.VortexPooling``.

    Raises:
        ValueError: an option is outside its range, or one of pooling is given where none is.
    """
    if spatial_dims != 2:
        raise ValueError(f"DeepLab has 2 spatial axes, got spatial_dims={spatial_dims}")
    backbone = ResNet(
        in_channels,
        depth=depth,
        output_stride=output_stride,
        multi_grid=multi_grid,
        widths=widths,
    )
    module = _context(
        context,
        backbone.channels[-1],
        channels=channels,
        rates=tuple(max(1, rate * 8 // output_stride) for rate in RATES),
        border=border,
        conv_first=conv_first,
    )
    return DeepLab(backbone, module, num_classes, projection=projection)


def _context(
    context: Context,
    in_channels: int,
    *,
    channels: int,
    rates: Sequence[int],
    border: Border,
    conv_first: bool,
) -> ASPP | VortexPooling:
    if context == "vortex":
        return VortexPooling(in_channels, channels=channels, border=border, conv_first=conv_first)
    if context in ("aspp", "aspp+"):
        if border != "ignore" or conv_first:
            raise ValueError(f"border and conv_first are about pooling, and {context} has none")
        return ASPP(
            in_channels,
            channels=channels,
            rates=rates,
            first_kernel=3 if context == "aspp+" else 1,
        )
    if context not in CONTEXTS:
        raise ValueError(f"context must be one of {CONTEXTS}, got {context!r}")
    return module_a(
        in_channels,
        int(context.removeprefix("module-a")),
        channels=channels,
        rates=rates,
        border=border,
        conv_first=conv_first,
    )
