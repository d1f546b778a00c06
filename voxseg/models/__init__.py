"""Networks, one paper a file, and ``MODELS``: every variant of every network by name."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import nn

from voxseg.layers.superpixel import Design as Design
from voxseg.layers.superpixel import Reduce as Reduce
from voxseg.layers.voxres import Norm as Norm
from voxseg.models.deeplab import Context as Context
from voxseg.models.deeplab import DeepLab as DeepLab
from voxseg.models.deeplab import build_deeplab as build_deeplab
from voxseg.models.enet import EncoderENet as EncoderENet
from voxseg.models.enet import ENet as ENet
from voxseg.models.enet import Version as Version
from voxseg.models.enet_weights import load_published_weights as load_published_weights
from voxseg.models.fcn import FCN as FCN
from voxseg.models.fcn import FinestStride as FinestStride
from voxseg.models.fcn import SplitMergeFCN as SplitMergeFCN
from voxseg.models.pixelnet import PixelNet as PixelNet
from voxseg.models.pixelnet import build_pixelnet as build_pixelnet
from voxseg.models.pixelnet import build_volume_pixelnet as build_volume_pixelnet
from voxseg.models.resnet import Depth as Depth
from voxseg.models.resnet import OutputStride as OutputStride
from voxseg.models.resnet import ResNet as ResNet
from voxseg.models.shared import LoadReport as LoadReport
from voxseg.models.shared import ParameterCount as ParameterCount
from voxseg.models.shared import count_parameters as count_parameters
from voxseg.models.shared import load_shared_weights as load_shared_weights
from voxseg.models.sunet import Dilation as Dilation
from voxseg.models.sunet import SUNet as SUNet
from voxseg.models.sunet import SUNetClassifier as SUNetClassifier
from voxseg.models.sunet import build_sunet as build_sunet
from voxseg.models.sunet import build_sunet_classifier as build_sunet_classifier
from voxseg.models.sunet_trunk import SUNetStride as SUNetStride
from voxseg.models.sunet_trunk import Variant as Variant
from voxseg.models.trunk import Tap as Tap
from voxseg.models.trunk import TappedNetwork as TappedNetwork
from voxseg.models.trunk import Trunk as Trunk
from voxseg.models.trunk import VoxResTaps as VoxResTaps
from voxseg.models.vgg import TAPS
from voxseg.models.vgg import VGG16 as VGG16
from voxseg.models.voxresnet import Fusion as Fusion
from voxseg.models.voxresnet import VoxResNet as VoxResNet


class Build(Protocol):
    """Build a network: channels in, classes out, 2 or 3 spatial axes."""

    def __call__(self, in_channels: int, num_classes: int, *, spatial_dims: int = 3) -> nn.Module:
        """Return the network with fresh weights."""


@dataclass(frozen=True)
class ModelEntry:
    """One variant of one network."""

    build: Build
    """Builds it."""
    paper: str
    """Where it is described."""
    description: str
    """What it is, in one line."""
    spatial_dims: tuple[int, ...] = (3, 2)
    """Numbers of spatial axes it can have, the paper's first."""
    in_channels: int = 1
    """Of the paper's images."""
    num_classes: int = 4
    """Of the paper's data, background included."""
    size: tuple[int, ...] = (80, 80, 80)
    """Of what the paper's network answers at once, by axis."""
    is_classifier: bool = False
    """Whether it answers once for the whole image, not for every pixel."""


_photos = partial(ModelEntry, spatial_dims=(2,), in_channels=3)
_enets = partial(_photos, num_classes=20, size=(512, 1024))  # Cityscapes, one for unlabelled
_ports = partial(_photos, num_classes=19, size=(512, 1024))
_fcns = partial(_photos, num_classes=19, size=(1024, 2048))  # Cityscapes
_deeplabs = partial(_photos, num_classes=21, size=(513, 513))  # PASCAL VOC
_sunets = partial(  # the same
    ModelEntry, spatial_dims=(2, 3), in_channels=3, num_classes=21, size=(512, 512)
)
_classifiers = partial(_sunets, num_classes=1000, size=(224, 224), is_classifier=True)  # ImageNet

_context = partial(_photos, num_classes=60, size=(224, 224))  # PASCAL-Context
_vocs = partial(_photos, num_classes=21, size=(224, 224))  # PASCAL VOC

_CHEN = "arXiv:1608.05895"
_BOTH = "arXiv:1806.02705, on arXiv:1608.05895"
_OURS = "voxseg's own, after arXiv:1608.05895"
_TOKENS = "voxseg's own, after arXiv:1806.02705 and arXiv:1810.00825"
_PASZKE = "arXiv:1606.02147"
_FIGURE_10 = "arXiv:1806.02705, on arXiv:1606.02147"

_DEEPLAB = "arXiv:1706.05587"
_VORTEX = "arXiv:1804.06242, on arXiv:1706.05587"
_FCN = "arXiv:2006.07742, on arXiv:1411.4038"
_SMP = "arXiv:2006.07742"
_PIXELNET = "arXiv:1609.06694, on arXiv:1409.1556"
_VOXELNET = "voxseg's own, after arXiv:1609.06694 and arXiv:1608.05895"
_SUNET = "arXiv:1804.10343"

_full = partial(VoxResNet, stages=3, fusion="features")
_scores = partial(VoxResNet, stages=3, fusion="scores")
_reduced4 = partial(VoxResNet, stages=1, width_divisor=4)
_reduced8 = partial(VoxResNet, stages=1, width_divisor=8)
_decoder4 = partial(
    VoxResNet, stages=4, width_divisor=4, widths=(32, 64, 128, 256, 512), fusion="decoder"
)
_deeplab50 = partial(build_deeplab, depth=50)
_deeplab101 = partial(build_deeplab, depth=101)

_enet = partial(ENet, version="released")
_enet_port = partial(ENet, version="port")
_fcn32s = partial(FCN, finest_stride=32)
_fcn8s = partial(FCN, finest_stride=8)
_table4 = partial(build_pixelnet, taps=("1_2", "3_3", "5_3"))
_TABLE_4_WITH_7 = ("1_2", "3_3", "5_3", "7")
_sunet_7_128 = partial(build_sunet, variant="7-128")

MODELS: dict[str, ModelEntry] = {
    "voxresnet-full-v0": ModelEntry(
        partial(_full, design="V0"), _CHEN, "Full, four summed taps, one classifier"
    ),
    "voxresnet-full-v1": ModelEntry(
        partial(_full, design="V1"), _BOTH, "Full, class scores pooled over supervoxels"
    ),
    "voxresnet-full-v2": ModelEntry(
        partial(_full, design="V2"), _BOTH, "Full, supervoxels classified instead of voxels"
    ),
    "voxresnet-full-v3": ModelEntry(
        partial(_full, design="V3"), _BOTH, "Full, voxel and supervoxel branch added"
    ),
    "voxresnet-full-v4": ModelEntry(
        partial(_full, design="V4"), _TOKENS, "Full, supervoxels that exchange added"
    ),
    "voxresnet-full-scores-v0": ModelEntry(
        partial(_scores, design="V0"), _CHEN, "Full, classical: sum of four class-score heads"
    ),
    "voxresnet-full-scores-v1": ModelEntry(
        partial(_scores, design="V1"), _BOTH, "Full, classical, class scores pooled"
    ),
    "voxresnet-full-scores-v2": ModelEntry(
        partial(_scores, design="V2"), _BOTH, "Full, classical, four supervoxel heads"
    ),
    "voxresnet-full-scores-v3": ModelEntry(
        partial(_scores, design="V3"), _BOTH, "Full, classical, both branches in four heads"
    ),
    "voxresnet-full-scores-v4": ModelEntry(
        partial(_scores, design="V4"), _TOKENS, "Full, classical, tokens in four heads"
    ),
    "voxresnet-reduced4-v0": ModelEntry(
        partial(_reduced4, design="V0"), _BOTH, "Reduced (/4): one stage, a quarter of the width"
    ),
    "voxresnet-reduced4-v1": ModelEntry(
        partial(_reduced4, design="V1"), _BOTH, "Reduced (/4), class scores pooled"
    ),
    "voxresnet-reduced4-v2": ModelEntry(
        partial(_reduced4, design="V2"), _BOTH, "Reduced (/4), supervoxels classified"
    ),
    "voxresnet-reduced4-v3": ModelEntry(
        partial(_reduced4, design="V3"), _BOTH, "Reduced (/4), voxel and supervoxel branch added"
    ),
    "voxresnet-reduced4-v4": ModelEntry(
        partial(_reduced4, design="V4"), _TOKENS, "Reduced (/4), supervoxels that exchange added"
    ),
    "voxresnet-reduced8-v0": ModelEntry(
        partial(_reduced8, design="V0"), _BOTH, "Reduced (/8): one stage, an eighth of the width"
    ),
    "voxresnet-reduced8-v1": ModelEntry(
        partial(_reduced8, design="V1"), _BOTH, "Reduced (/8), class scores pooled"
    ),
    "voxresnet-reduced8-v2": ModelEntry(
        partial(_reduced8, design="V2"), _BOTH, "Reduced (/8), supervoxels classified"
    ),
    "voxresnet-reduced8-v3": ModelEntry(
        partial(_reduced8, design="V3"), _BOTH, "Reduced (/8), voxel and supervoxel branch added"
    ),
    "voxresnet-reduced8-v4": ModelEntry(
        partial(_reduced8, design="V4"), _TOKENS, "Reduced (/8), supervoxels that exchange added"
    ),
    "voxresnet-decoder4-v0": ModelEntry(
        partial(_decoder4, design="V0"),
        _OURS,
        "Four stages of doubling width, coarse-to-fine decoder",
    ),
    "voxresnet-decoder4-v1": ModelEntry(
        partial(_decoder4, design="V1"), _OURS, "Decoder4, class scores pooled"
    ),
    "voxresnet-decoder4-v2": ModelEntry(
        partial(_decoder4, design="V2"), _OURS, "Decoder4, supervoxels classified"
    ),
    "voxresnet-decoder4-v3": ModelEntry(
        partial(_decoder4, design="V3"), _OURS, "Decoder4, voxel and supervoxel branch added"
    ),
    "voxresnet-decoder4-v4": ModelEntry(
        partial(_decoder4, design="V4"), _TOKENS, "Decoder4, supervoxels that exchange added"
    ),
    "enet-v0": _enets(partial(_enet, design="V0"), _PASZKE, "ENet as its authors published it"),
    "enet-v1": _enets(
        partial(_enet, design="V1"), _FIGURE_10, "ENet, class scores pooled over superpixels"
    ),
    "enet-v2": _enets(partial(_enet, design="V2"), _FIGURE_10, "ENet, superpixels classified"),
    "enet-v3": _enets(
        partial(_enet, design="V3"), _FIGURE_10, "ENet, superpixel branch added (Figure 10)"
    ),
    "enet-port-v0": _ports(
        partial(_enet_port, design="V0"), _PASZKE, "ENet as its common port has it"
    ),
    "enet-port-v3": _ports(
        partial(_enet_port, design="V3"), _FIGURE_10, "Port, superpixel branch added"
    ),
    "deeplab-resnet50-aspp": _deeplabs(
        partial(_deeplab50, context="aspp"), _DEEPLAB, "DeepLabv3, output stride 8"
    ),
    "deeplab-resnet50-aspp-plus": _deeplabs(
        partial(_deeplab50, context="aspp+"), _VORTEX, "DeepLabv3, first branch 3x3"
    ),
    "deeplab-resnet50-module-a5": _deeplabs(
        partial(_deeplab50, context="module-a5"), _VORTEX, "ASPP over means of 5x5 cells"
    ),
    "deeplab-resnet50-module-a9": _deeplabs(
        partial(_deeplab50, context="module-a9"), _VORTEX, "ASPP over means of 9x9 cells"
    ),
    "deeplab-resnet50-module-a13": _deeplabs(
        partial(_deeplab50, context="module-a13"), _VORTEX, "ASPP over means of 13x13 cells"
    ),
    "deeplab-resnet50-vortex": _deeplabs(
        partial(_deeplab50, context="vortex"), _VORTEX, "DeepLabv3 with vortex pooling"
    ),
    "deeplab-resnet101-aspp": _deeplabs(
        partial(_deeplab101, context="aspp"), _DEEPLAB, "DeepLabv3, output stride 8"
    ),
    "deeplab-resnet101-vortex": _deeplabs(
        partial(_deeplab101, context="vortex"), _VORTEX, "DeepLabv3 with vortex pooling"
    ),
    "fcn32s-resnet18": _fcns(partial(_fcn32s, depth=18), _FCN, "Scores of the last stage, resized"),
    "fcn32s-resnet34": _fcns(partial(_fcn32s, depth=34), _FCN, "Scores of the last stage, resized"),
    "fcn32s-resnet50": _fcns(partial(_fcn32s, depth=50), _FCN, "Scores of the last stage, resized"),
    "fcn32s-resnet101": _fcns(
        partial(_fcn32s, depth=101), _FCN, "Scores of the last stage, resized"
    ),
    "fcn8s-resnet18": _fcns(
        partial(_fcn8s, depth=18), _FCN, "Scores of the last three stages, resized and added"
    ),
    "fcn8s-resnet34": _fcns(
        partial(_fcn8s, depth=34), _FCN, "Scores of the last three stages, resized and added"
    ),
    "fcn8s-resnet50": _fcns(
        partial(_fcn8s, depth=50), _FCN, "Scores of the last three stages, resized and added"
    ),
    "fcn8s-resnet101": _fcns(
        partial(_fcn8s, depth=101), _FCN, "Scores of the last three stages, resized and added"
    ),
    "smp-resnet18": _fcns(
        partial(SplitMergeFCN, depth=18), _SMP, "FCN32s, split-merge pooling for strides"
    ),
    "smp-resnet34": _fcns(
        partial(SplitMergeFCN, depth=34), _SMP, "FCN32s, split-merge pooling for strides"
    ),
    "smp-resnet50": _fcns(
        partial(SplitMergeFCN, depth=50), _SMP, "FCN32s, split-merge pooling for strides"
    ),
    "smp-resnet101": _fcns(
        partial(SplitMergeFCN, depth=101), _SMP, "FCN32s, split-merge pooling for strides"
    ),
    "pixelnet-vgg16": _vocs(build_pixelnet, _PIXELNET, "PixelNet, hypercolumns of five layers"),
    "pixelnet-vgg16-conv7": _vocs(
        partial(build_pixelnet, taps=(*TAPS, "7")), _PIXELNET, "PixelNet, conv-7 besides"
    ),
    "pixelnet-vgg16-3-fc1": _context(
        partial(_table4, hidden=(), normalise_taps=True),
        _PIXELNET,
        "Three layers (Table 4), linear predictor",
    ),
    "pixelnet-vgg16-3-fc2": _context(
        partial(_table4, hidden=(4096,)), _PIXELNET, "Three layers, one hidden layer"
    ),
    "pixelnet-vgg16-3-fc3": _context(_table4, _PIXELNET, "Three layers, two hidden layers"),
    "pixelnet-vgg16-3-conv7-fc3": _context(
        partial(build_pixelnet, taps=_TABLE_4_WITH_7), _PIXELNET, "Three layers and conv-7"
    ),
    "pixelnet-voxresnet": ModelEntry(
        build_volume_pixelnet, _VOXELNET, "Hypercolumns of VoxResNet's four taps"
    ),
    "sunet-64": _sunets(
        partial(build_sunet, variant="64"), _SUNET, "Stacked U-nets, the last block dilated"
    ),
    "sunet-128": _sunets(
        partial(build_sunet, variant="128"), _SUNET, "Stacked U-nets, the last block dilated"
    ),
    "sunet-7-128": _sunets(_sunet_7_128, _SUNET, "Stacked U-nets, the last block dilated"),
    "sunet-7-128-degridding": _sunets(
        partial(_sunet_7_128, degridding=512), _SUNET, "SUNet-7-128 with de-gridding layers"
    ),
    "sunet-64-classifier": _classifiers(
        partial(build_sunet_classifier, variant="64"), _SUNET, "One answer for the whole image"
    ),
    "sunet-128-classifier": _classifiers(
        partial(build_sunet_classifier, variant="128"), _SUNET, "One answer for the whole image"
    ),
    "sunet-7-128-classifier": _classifiers(
        partial(build_sunet_classifier, variant="7-128"), _SUNET, "One answer for the whole image"
    ),
}
"""Written out by hand: what is not here does not exist."""
