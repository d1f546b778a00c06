"""The sections of a configuration: labels, network, training, prediction.

Those of the data stand where they are used: in ``voxseg.data``.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from voxseg.data.boundaries import Disputed
from voxseg.data.cases import TaskKind
from voxseg.engine.device import Layout, Precision
from voxseg.engine.label_config import LabelConfig as LabelConfig
from voxseg.models import (
    Context,
    Depth,
    Design,
    Dilation,
    FinestStride,
    Fusion,
    Norm,
    Reduce,
    SUNetStride,
    Variant,
    Version,
)
from voxseg.models.pixelnet import HIDDEN, STD
from voxseg.tasks.boundaries import Balance
from voxseg.tasks.pixels import PixelSampling
from voxseg.tasks.segmentation import LossKind

Blend = Literal["gaussian", "even"]

Network = Literal["voxresnet", "enet", "fcn", "smp", "deeplab", "sunet", "pixelnet"]
TrunkName = Literal["vgg16", "voxresnet"]


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is asked of the network."""

    kind: TaskKind = "segmentation"
    """"segmentation", "boundaries", "normals" or "classification"; by default what the labels of
    the data set are about."""
    consensus: int = 3
    """Of boundaries: how many annotators must have drawn one."""
    balance: Balance = "image"
    """Of boundaries: count as much as the rest of the "image", or of the "batch"."""
    disputed: Disputed = "ignored"
    """Of boundaries: what a pixel is that fewer annotators drew: "ignored", or "negative" as where
    there is no boundary."""

    def __post_init__(self) -> None:
        if self.consensus < 1:
            raise ValueError(f"task.consensus must be at least 1, got {self.consensus}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network; what another network than the chosen one has must keep its default."""

    network: Network = "voxresnet"
    """"voxresnet", "sunet" and "pixelnet" on VoxResNet's trunk see volumes, or slices with
    ``data.plane``; the others slices and images."""
    design: Design = "V3"
    """V0 without supervoxels; V1 pools scores, V2 features, V3 adds V2 to the voxel classifier; V4
    (VoxResNet's) adds supervoxels that exchange what they hold over the whole volume."""
    reduce: Reduce = "max"
    """Supervoxel pooling: "max" or "mean"."""
    stages: int = 1
    """VoxResNet's stride-2 stages: 3 is the full network, 1 the Reduced one."""
    width_divisor: int = 8
    """f: all widths of the full VoxResNet are divided by it."""
    fusion: Fusion = "features"
    """How VoxResNet's taps meet: "features", the classical "scores", or a "decoder"."""
    widths: tuple[int, ...] = ()
    """Channels of VoxResNet's stem and stages before the division; empty: 32, 64, 64, ... Of SUNet
    six: after the first convolution, the residual block, and each block of U-Nets. Of VGG-16 six:
    of its five blocks, and of conv-6 and conv-7."""
    token_width: int = 32
    """Of V4: numbers that stand for a supervoxel."""
    token_blocks: int = 2
    """Of V4: how often supervoxels exchange what they hold."""
    norm: Norm = "batch"
    """VoxResNet's normalisation layer: "batch", "instance" or "group"."""
    version: Version = "released"
    """Which ENet: "released", "script" or "port"."""
    depth: Depth = 18
    """Of the ResNet behind FCN, SMP and DeepLab: 18, 34, 50 or 101."""
    finest_stride: FinestStride = 32
    """FCN32s or FCN8s."""
    context: Context = "vortex"
    """DeepLab's: "aspp", "aspp+", "module-a5", "module-a9", "module-a13" or "vortex"."""
    output_stride: SUNetStride = 8
    """DeepLab's: 8 or 16; SUNet's: 32, 16, 8, 4 or 2."""
    multi_grid: tuple[int, ...] = (1, 2, 4)
    """Factors on the dilations of DeepLab's last stage, one a block (ResNet-18 has two)."""
    part: Literal["all", "encoder"] = "all"
    """"encoder" trains ENet's encoder alone, the first of its two steps."""
    variant: Variant = "64"
    """Which SUNet: "64", "128" or "7-128"."""
    filters: int = 0
    """Of the convolutions in SUNet's U-Nets, instead of its variant's; 0 for that."""
    stacks: tuple[int, ...] = ()
    """U-Nets in each of SUNet's four blocks, instead of its variant's."""
    dilation: Dilation = "multigrid"
    """Of SUNet below output stride 32: "multigrid", or "strided" within each U-Net."""
    degridding: int = 0
    """Filters of SUNet's two de-gridding layers, 512 in the paper; 0 for none."""
    norm_momentum: float = 0.01
    """Share of a batch in the running statistics of SUNet's norms; short trainings need more."""
    trunk: TrunkName = "vgg16"
    """What PixelNet reads: "vgg16", or "voxresnet" of slices or volumes."""
    taps: tuple[str, ...] = ()
    """PixelNet's layers: of VGG-16 such as "1_2", "5_3" or "7", of VoxResNet "conv1b", "voxres3",
    "voxres6", "voxres9"; empty: the papers'. The trunk ends at the deepest."""
    hidden: tuple[int, ...] = HIDDEN
    """Widths of the hidden layers of PixelNet's perceptron; none: a linear predictor."""
    dropout: float = 0.5
    """Of PixelNet's hidden values."""
    input_dropout: float = 0.0
    """Of PixelNet's hypercolumns; 0.5 in the paper's networks for boundaries and Context."""
    normalise_taps: bool = False
    """Batch norm, without scale and shift, of each map that PixelNet reads: what a linear predictor
    and training from scratch need."""
    head_std: float = STD
    """Standard deviation of the first weights of PixelNet's perceptron; 0: He's normal ones."""
    batch_norm: bool = False
    """A batch norm after each convolution of VGG-16's blocks, for training from scratch."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.width_divisor < 1:
            raise ValueError("model.stages and model.width_divisor must be at least 1")
        for name in ("token_width", "token_blocks"):
            if self.design != "V4" and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"model.{name} is of design V4, and model.design is {self.design}")
        name = self.network
        own = _OWN[self.network]
        if self.network == "pixelnet":
            name, own = f"pixelnet on {self.trunk}", (*own, *_OF_TRUNK[self.trunk])
        for one in dataclasses.fields(self):
            given = getattr(self, one.name) != one.default
            if given and one.name not in ("network", *own):
                raise ValueError(
                    f"model.{one.name} is nothing that {name} has; it has {', '.join(own)}"
                )

    @property
    def pools(self) -> bool:
        """Whether the network wants superpixels."""
        return self.network in ("voxresnet", "enet") and self.design != "V0"

    @property
    def needs_places(self) -> bool:
        """Whether it wants to know where its supervoxels lie."""
        return self.pools and self.design == "V4"

    @property
    def is_planar(self) -> bool:
        """Whether the network sees two axes only."""
        if self.network == "pixelnet":
            return self.trunk == "vgg16"
        return self.network not in ("voxresnet", "sunet")


_OWN: dict[Network, tuple[str, ...]] = {
    "voxresnet": (
        "design", "reduce", "stages", "width_divisor", "fusion", "widths", "norm", "token_width",
        "token_blocks",
    ),
    "enet": ("design", "reduce", "version", "part"),
    "fcn": ("depth", "finest_stride"),
    "smp": ("depth",),
    "deeplab": ("depth", "context", "output_stride", "multi_grid"),
    "sunet": (
        "variant", "output_stride", "dilation", "degridding", "filters", "widths", "stacks",
        "norm_momentum",
    ),
    "pixelnet": (
        "trunk", "taps", "hidden", "dropout", "input_dropout", "normalise_taps", "head_std",
    ),
}  # fmt: skip
_OF_TRUNK: dict[TrunkName, tuple[str, ...]] = {
    "vgg16": ("widths", "batch_norm"),
    "voxresnet": ("widths", "width_divisor", "norm"),
}


_TRAIN_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("epochs", "steps_per_epoch", "step_epochs", "batch_size", "validate_every"),
        lambda number: number >= 1,
        "at least 1",
    ),
    (("step_at",), lambda numbers: all(n >= 1 for n in numbers), "positive"),
    (("patch_voxels",), lambda numbers: all(n >= 0 for n in numbers), "0 (whole) or more"),
    (("learning_rate", "head_rate", "head_bias_rate"), lambda rate: rate > 0, "positive"),
    (("ema_decay", "beta2"), lambda share: 0 <= share < 1, "in [0, 1)"),
    (("pixels",), lambda number: number >= 0, "0 (all of them) or more"),
    (("class_share", "positive_share"), lambda share: 0 <= share <= 1, "in [0, 1]"),
    (("workers",), lambda number: number >= -1, "-1 (by device) or more"),
    (("class_weight_c",), lambda c: c > 1, "above 1"),
)
"""Settings of a training, which of their values are allowed, and that in words."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 50
    steps_per_epoch: int = 50
    batch_size: int = 2
    """Patches of a step; under torchrun those of all processes together."""
    sync_batchnorm: bool = True
    """Under torchrun, batch statistics over all processes: the result of one process."""
    patch_voxels: tuple[int, ...] = (64, 64, 64)
    """Size of a training patch, RAS+ order; of slices and images two numbers, or one for both. 0:
    of volumes, as large as the largest of them, cropped to its foreground, along this axis."""
    pixels: int = 0
    """Pixels or voxels of each patch that PixelNet is trained on, 2000 in the paper; 0: all."""
    pixel_sampling: PixelSampling = "uniform"
    """How they are drawn: "uniform", "balanced" (as many of each class that a patch shows), or
    "positives": a fixed share of classes other than the first, of boundaries the boundary."""
    positive_share: float = 0.5
    """Of "positives"."""
    class_share: float = 0.67
    """Share of patches centred near a voxel of a drawn class; the others fall anywhere."""
    loss: LossKind = "dice_ce"
    class_weights: Literal["none", "enet"] = "none"
    """Of cross-entropy: "enet" is 1 / ln(c + p), p the class's share of the training pixels."""
    class_weight_c: float = 1.02
    """c: weights lie below 1 / ln(c); ENet's encoder has 1.2."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    momentum: float = 0.99
    """Of SGD."""
    nesterov: bool = True
    """Of SGD: look ahead along the momentum."""
    head_rate: float = 1.0
    """Learning rate of the weights in the head of "pixelnet" (its perceptron) or "sunet" (its last
    layer), as a multiple of the others'."""
    head_bias_rate: float = 1.0
    """The same of the head's biases."""
    beta2: float = 0.999
    """Of AdamW: how slowly the mean square of the gradient changes, in [0, 1)."""
    schedule: Literal["cosine", "poly", "constant", "step"] = "cosine"
    """Learning rate over the run: "cosine", "poly" (power 0.9), "constant", or "step"."""
    step_epochs: int = 100
    """With "step": epochs after which the learning rate falls to a tenth, each time."""
    step_at: tuple[int, ...] = ()
    """With "step": the epochs, counted from the start, after which it falls; instead of
    ``step_epochs``."""
    warmup: float = 0.03
    """Share of the run in which the learning rate rises from 0."""
    ema_decay: float = 0.99
    """Of the averaged weights that are validated and kept; 0 keeps the plain ones."""
    clip_norm: float = 12.0
    """Largest norm of the whole gradient; 0 does not clip."""
    auxiliary_weight: float = 0.5
    """Deep supervision's weight at the start; it decays linearly to 0.001 over the run."""
    max_minutes: float = 0.0
    """Wall-clock budget; 0 for none. The schedule then follows the clock if it is ahead."""
    validate_every: int = 5
    """Epochs between validations on whole volumes."""
    select: Literal["auto", "dice", "iou"] = "auto"
    """What the best weights are chosen by: mean foreground "dice", mean "iou" of all classes, or
    "auto": Dice, and of other tasks than segmentation their own score."""
    freeze_batchnorm: bool = False
    """Keep the batch norms' statistics and do not train their scales (DeepLab's later stages)."""
    patience: int = 0
    """Validations without a better score before stopping; 0 never stops early."""
    precision: Precision = "auto"
    """float32, bfloat16, float16, or auto: by device."""
    memory_format: Layout = "auto"
    """channels_last, contiguous, or auto: by device."""
    workers: int = -1
    """Processes that prepare cases and patches; -1: with a GPU 2 for cases and up to 8, by the
    number of cores, for patches, else 0. Results are the same."""
    seed: int = 0
    deterministic: bool = False
    """Only algorithms that repeat bit by bit; ops that have none are named."""

    def __post_init__(self) -> None:
        for names, is_allowed, words in _TRAIN_RULES:
            for name in names:
                value = getattr(self, name)
                if not is_allowed(value):
                    raise ValueError(f"train.{name} must be {words}, got {value}")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a volume is cut, predicted and put together again."""

    window_voxels: tuple[int, ...] = (96, 96, 96)
    """Size of one window where neither the whole volume nor exact tiles fit the budget."""
    always_windows: bool = False
    """Cut into windows whatever is larger than one, even where the budget takes it whole."""
    overlap: float = 0.5
    """Fraction of a window shared with its neighbour, in [0, 1)."""
    blend: Blend = "gaussian"
    """Where windows overlap, the middle of each counts more ("gaussian"), or all alike ("even")."""
    tta: bool = False
    """Predict as with --tta always, also the held-out cases of a cross-validation: the mean over
    mirror images along ``augment.flip_axes``, and over ``scales``."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which slices and images are seen with --tta, relative to their own."""
    shorter_side: int = 0
    """Pixels that the shorter side of a slice or image is brought to with --tta, before
    ``scales``; 0 keeps its own."""
    memory_gb: float = 0.0
    """Budget for one forward pass; 0 takes half of what is free. Probabilities that must be kept
    go to a file beside the output where they need more than it."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"predict.overlap must be in [0, 1), got {self.overlap}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"predict.scales must be positive, got {self.scales}")
        if self.shorter_side < 0:
            raise ValueError(f"predict.shorter_side must not be negative, got {self.shorter_side}")
