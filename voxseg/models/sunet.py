"""SUNet: stacked U-nets as a classifier and, dilated, for segmentation.

Source: Shah, Ghosh, Davis and Goldstein, *Stacked U-Nets: A No-Frills Approach to Natural Image
Segmentation*, 2018, arXiv:1804.10343, sections 4 and 5.

Departures (those of the trunk are in ``sunet_trunk``):

- Scores are resized to the stride times the cells, and what lies beyond the image is cut, so that
  they are nowhere shifted; with images of a multiple of 32 this is the authors' network.
- De-gridding layers are an option of all variants. The paper has them with 7-128.
- The weights of the segmentation's last layer start from N(0, 0.01); He's by fan-out, as in the
  rest, would start at scores of about 7.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.stacked_unet import MOMENTUM, NormReLUConv, batch_norm, convolution
from voxseg.layers.stacked_unet import Dilation as Dilation
from voxseg.models.sunet_trunk import StackedUNets, SUNetStride, Variant, table_column

_DEGRIDDING = (2, 1)  # dilations
_CLASSIFIER_STD = 0.01
_LINEAR = {2: "bilinear", 3: "trilinear"}


class SUNetClassifier(nn.Module):
    """One answer for a whole image: the mean of all cells, and a linear layer.

    Its trunk's weights are those of a ``SUNet`` of the same widths, under the same names; no other
    name is shared.

    Args:
        trunk: of output stride 32 in the paper.
        num_classes: number of classes.

    Attributes:
        receptive_field: pixels along each axis that a cell sees, before the mean over all.
        output_stride: pixels from one of the averaged cells to the next, along each axis.
        reach: None: the answer is about the whole image.
        needs_superpixels: False.
    """

    needs_superpixels = False
    reach: tuple[int, ...] | None = None

    def __init__(self, trunk: StackedUNets, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.in_channels = trunk.in_channels
        self.num_classes = num_classes
        self.spatial_dims = trunk.spatial_dims
        self.output_stride = trunk.output_stride
        self.receptive_field = trunk.receptive_field
        self.trunk = trunk
        self.fc = nn.Linear(trunk.channels, num_classes)

    def forward(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes) of images (B, in_channels, *S), any S.

        Superpixels and their count are taken as every model does, and not needed.
        """
        logits: Tensor = self.fc(self.trunk(image).flatten(2).mean(2))
        return logits

    def supervise(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer, for training."""
        return self(image), []

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what a trunk that was trained before does not bring: the linear layer."""
        return list(self.fc.parameters())


class SUNet(nn.Module):
    """Class scores of the cells, resized to the image; from built parts, see ``build_sunet``.

    Args:
        trunk: of output stride 16 in most of the paper's experiments.
        num_classes: number of classes, background included.
        degridding: filters of each of the two de-gridding layers, 512 in the paper; 0 for none.

    Attributes:
        receptive_field: pixels along each axis that a cell sees, at most.
        output_stride: pixels from one classified cell to the next, along each axis.
        reach: None: scores are resized over the whole image, which is not to be cut into tiles.
        needs_superpixels: False.

    Raises:
        ValueError: an argument is outside its range.
    """

    needs_superpixels = False
    reach: tuple[int, ...] | None = None

    def __init__(self, trunk: StackedUNets, num_classes: int, *, degridding: int = 0) -> None:
        super().__init__()
        if num_classes < 1 or degridding < 0:
            raise ValueError(
                "num_classes must be at least 1 and degridding not negative, got "
                f"{num_classes} and {degridding}"
            )
        self.in_channels = trunk.in_channels
        self.num_classes = num_classes
        dims = self.spatial_dims = trunk.spatial_dims
        stride = self.output_stride = trunk.output_stride
        self.trunk = trunk
        field, channels = trunk.receptive_field[0], trunk.channels
        self.degridding = nn.Sequential()
        if degridding:
            first, second = _DEGRIDDING
            # The first reads what the trunk has normalised already.
            self.degridding.append(convolution(dims, channels, degridding, 3, dilation=first))
            self.degridding.append(NormReLUConv(dims, degridding, degridding, dilation=second))
            self.degridding.append(batch_norm(dims, degridding))
            self.degridding.append(nn.ReLU(inplace=True))
            field, channels = field + 2 * sum(_DEGRIDDING) * stride, degridding
        self.receptive_field = (field,) * dims
        self.classifier = convolution(dims, channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=_CLASSIFIER_STD)

    def forward(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes, *S) of images (B, in_channels, *S), any S.

        Superpixels and their count are taken as every model does, and not needed.
        """
        size = image.shape[2:]
        coarse = self.coarse_logits(image)
        covered = [self.output_stride * cells for cells in coarse.shape[2:]]
        mode = _LINEAR[self.spatial_dims]
        logits = functional.interpolate(coarse, covered, mode=mode, align_corners=False)
        for axis, length in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, length)
        return logits

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Return the logits of the cells, (B, num_classes, *ceil(S / output_stride))."""
        answer: Tensor = self.classifier(self.degridding(self.trunk(image)))
        return answer

    def supervise(
        self, image: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer, for training."""
        return self(image), []

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what a classifier's trunk does not bring: the layers behind it."""
        return [*self.degridding.parameters(), *self.classifier.parameters()]


def build_sunet(  # noqa: PLR0913 - the choices of the paper
    in_channels: int,
    num_classes: int,
    *,
    spatial_dims: int = 2,
    variant: Variant = "64",
    output_stride: SUNetStride = 16,
    dilation: Dilation = "multigrid",
    degridding: int = 0,
    filters: int | None = None,
    widths: Sequence[int] | None = None,
    stacks: Sequence[int] | None = None,
    norm_momentum: float = MOMENTUM,
) -> SUNet:
    """Build a SUNet for segmentation from plain numbers.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, background included.
        spatial_dims: 2 or 3.
        variant: column of Table 1.
        output_stride: see ``StackedUNets``.
        dilation: see ``StackedUNets``.
        degridding: see ``SUNet``.
        filters: instead of the variant's, see ``StackedUNets``.
        widths: instead of the variant's.
        stacks: instead of the variant's.
        norm_momentum: share of a batch in the norms' running statistics, in (0, 1]. The paper's
            is for tens of thousands of steps: after 100 a third of them is still the start's.

    Raises:
        ValueError: an option is outside its range.
    """
    column = table_column(variant, filters, widths, stacks)
    trunk = StackedUNets(
        in_channels,
        filters=column.filters,
        widths=column.widths,
        stacks=column.stacks,
        spatial_dims=spatial_dims,
        output_stride=output_stride,
        dilation=dilation,
    )
    network = SUNet(trunk, num_classes, degridding=degridding)
    _set_momentum(network, norm_momentum)
    return network


def build_sunet_classifier(
    in_channels: int,
    num_classes: int,
    *,
    spatial_dims: int = 2,
    variant: Variant = "64",
    filters: int | None = None,
    widths: Sequence[int] | None = None,
    stacks: Sequence[int] | None = None,
    norm_momentum: float = MOMENTUM,
) -> SUNetClassifier:
    """Build a SUNet that classifies images, at output stride 32; see ``build_sunet``."""
    column = table_column(variant, filters, widths, stacks)
    trunk = StackedUNets(
        in_channels,
        filters=column.filters,
        widths=column.widths,
        stacks=column.stacks,
        spatial_dims=spatial_dims,
    )
    network = SUNetClassifier(trunk, num_classes)
    _set_momentum(network, norm_momentum)
    return network


def _set_momentum(network: nn.Module, momentum: float) -> None:
    if not 0 < momentum <= 1:
        raise ValueError(f"norm_momentum must be in (0, 1], got {momentum}")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = momentum
