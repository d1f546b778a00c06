"""Configuration: frozen dataclasses, filled from a recipe, a TOML file and ``--set a.b=c``.

Later sources win: defaults, recipe, file, ``--set``, flags. An unknown key is an error that names
the nearest known one. ``dump`` writes the resolved configuration back as TOML.
"""

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from voxseg.data.prepare import PrepareSettings
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.data.transforms import AugmentSettings
from voxseg.engine.device import Layout, Precision
from voxseg.errors import UsageError
from voxseg.models import (
    Context,
    Depth,
    Design,
    FinestStride,
    Fusion,
    Norm,
    OutputStride,
    Reduce,
    Version,
)
from voxseg.tasks.segmentation import LossKind

_COLOUR = re.compile("#[0-9a-fA-F]{6}")
Network = Literal["voxresnet", "enet", "fcn", "smp", "deeplab"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which values the label files hold."""

    values: tuple[int, ...] = ()
    """Background first; empty takes every value found in the training labels."""
    names: tuple[str, ...] = ()
    """A name for each value; empty takes the data set's, or "class N"."""
    colours: tuple[str, ...] = ()
    """#rrggbb of each value, for masks of photographs; empty takes the data set's, or our own."""
    ignore: tuple[int, ...] = ()
    """Values of voxels that count neither in training nor in scores."""

    def __post_init__(self) -> None:
        both = sorted(set(self.values) & set(self.ignore))
        if both:
            raise ValueError(f"labels.values and labels.ignore both list {both}")
        wrong = [one for one in self.colours if not _COLOUR.fullmatch(one)]
        if wrong:
            raise ValueError(f"labels.colours must be like #00ff7f, got {wrong[0]!r}")

    @property
    def palette(self) -> dict[int, tuple[int, int, int]] | None:
        """Red, green, blue in 0 to 255 by value; None without colours."""
        if not self.colours:
            return None
        parts = [bytes.fromhex(colour[1:]) for colour in self.colours]
        return {v: (rgb[0], rgb[1], rgb[2]) for v, rgb in zip(self.values, parts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network; what another network than the chosen one has must keep its default."""

    network: Network = "voxresnet"
    """"voxresnet" sees volumes, or slices with ``data.plane``; the others see slices and images."""
    design: Design = "V3"
    """V0 without supervoxels; V1 pools scores, V2 features, V3 adds V2 to the voxel classifier."""
    reduce: Reduce = "max"
    """Supervoxel pooling: "max" or "mean"."""
    stages: int = 1
    """VoxResNet's stride-2 stages: 3 is the full network, 1 the Reduced one."""
    width_divisor: int = 8
    """f: all widths of the full VoxResNet are divided by it."""
    fusion: Fusion = "features"
    """How VoxResNet's taps meet: "features", the classical "scores", or a "decoder"."""
    widths: tuple[int, ...] = ()
    """Channels of VoxResNet's stem and stages before the division; empty: 32, 64, 64, ..."""
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
    output_stride: OutputStride = 8
    """DeepLab's: 8 or 16."""
    multi_grid: tuple[int, ...] = (1, 2, 4)
    """Factors on the dilations of DeepLab's last stage, one a block (ResNet-18 has two)."""
    part: Literal["all", "encoder"] = "all"
    """"encoder" trains ENet's encoder alone, the first of its two steps."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.width_divisor < 1:
            raise ValueError("model.stages and model.width_divisor must be at least 1")
        own = _OWN[self.network]
        for one in dataclasses.fields(self):
            given = getattr(self, one.name) != one.default
            if given and one.name not in ("network", *own):
                raise ValueError(
                    f"model.{one.name} is nothing that {self.network} has; it has {', '.join(own)}"
                )

    @property
    def pools(self) -> bool:
        """Whether the network wants superpixels."""
        return self.network in ("voxresnet", "enet") and self.design != "V0"

    @property
    def is_planar(self) -> bool:
        """Whether the network sees two axes only."""
        return self.network != "voxresnet"


_OWN: dict[Network, tuple[str, ...]] = {
    "voxresnet": (
        "design", "reduce", "stages", "width_divisor", "fusion", "widths", "norm",
    ),
    "enet": ("design", "reduce", "version", "part"),
    "fcn": ("depth", "finest_stride"),
    "smp": ("depth",),
    "deeplab": ("depth", "context", "output_stride", "multi_grid"),
}  # fmt: skip


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
    """Size of a training patch, RAS+ order; of slices and images two numbers, or one for both."""
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
    """Of SGD (Nesterov)."""
    beta2: float = 0.999
    """Of AdamW: how slowly the mean square of the gradient changes, in [0, 1)."""
    schedule: Literal["cosine", "poly", "constant", "step"] = "cosine"
    """Learning rate over the run: "cosine", "poly" (power 0.9), "constant", or "step"."""
    step_epochs: int = 100
    """With "step": epochs after which the learning rate falls to a tenth, each time."""
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
    select: Literal["dice", "iou"] = "dice"
    """What the best weights are chosen by: mean foreground Dice, or mean IoU of all classes."""
    freeze_batchnorm: bool = False
    """Keep the batch norms' statistics and do not train their scales (DeepLab's later stages)."""
    patience: int = 0
    """Validations without a better score before stopping; 0 never stops early."""
    precision: Precision = "auto"
    """float32, bfloat16, float16, or auto: by device."""
    memory_format: Layout = "auto"
    """channels_last, contiguous, or auto: by device."""
    workers: int = -1
    """Processes that prepare cases and patches; -1: 2 with a GPU, else 0. Results are the same."""
    seed: int = 0
    deterministic: bool = False
    """Only algorithms that repeat bit by bit; ops that have none are named."""

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "step_epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.workers < -1:
            raise ValueError(f"train.workers must be -1 (by device) or more, got {self.workers}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay must be in [0, 1), got {self.ema_decay}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"train.beta2 must be in [0, 1), got {self.beta2}")
        if not 0 <= self.class_share <= 1:
            raise ValueError(f"train.class_share must be in [0, 1], got {self.class_share}")
        if self.learning_rate <= 0:
            raise ValueError(f"train.learning_rate must be positive, got {self.learning_rate}")
        if any(n < 1 for n in self.patch_voxels):
            raise ValueError(f"train.patch_voxels must be positive, got {self.patch_voxels}")
        if self.class_weight_c <= 1:
            raise ValueError(f"train.class_weight_c must be above 1, got {self.class_weight_c}")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a volume is cut, predicted and put together again."""

    window_voxels: tuple[int, ...] = (96, 96, 96)
    """Size of one window where neither the whole volume nor exact tiles fit the budget."""
    overlap: float = 0.5
    """Fraction of a window shared with its neighbour, in [0, 1)."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which slices and images are seen with --tta, relative to their own."""
    memory_gb: float = 0.0
    """Budget for one forward pass; 0 takes half of what is free. Probabilities that must be kept
    go to a file beside the output where they need more than it."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"predict.overlap must be in [0, 1), got {self.overlap}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"predict.scales must be positive, got {self.scales}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run."""

    labels: LabelConfig = field(default_factory=LabelConfig)
    data: PrepareSettings = field(default_factory=PrepareSettings)
    supervoxels: SupervoxelSettings = field(default_factory=SupervoxelSettings)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    predict: PredictConfig = field(default_factory=PredictConfig)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that ship with voxseg, sorted."""
    folder = resources.files("voxseg.recipes")
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml")))


def read_recipe(name: str) -> dict[str, Any]:
    """Read one recipe; an unknown name is a UsageError with the nearest known ones."""
    if name not in recipe_names():
        raise UsageError(f"there is no recipe {name!r}{_hint(name, recipe_names())}")
    text = (resources.files("voxseg.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def describe_recipes() -> dict[str, str]:
    """Give each recipe's first line, which says what it is."""
    folder = resources.files("voxseg.recipes")
    texts = {n: (folder / f"{n}.toml").read_text(encoding="utf-8") for n in recipe_names()}
    return {name: text.splitlines()[0].lstrip("# ") for name, text in texts.items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; --config takes a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def parse_setting(text: str) -> dict[str, Any]:
    """Turn one ``a.b=c`` into nested tables; the value is TOML, or a bare word taken as text."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"--set takes SECTION.KEY=VALUE, got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return typing.cast(dict[str, Any], parsed)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested table ``over`` on ``base``."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merge(typing.cast(Mapping[str, Any], old), value) if both else value
    return out


def build(tables: Mapping[str, Any]) -> Config:
    """Make a Config from nested tables; every unknown key or bad value is a UsageError."""
    return typing.cast(Config, _build(Config, tables, ""))


def to_tables(config: Any) -> dict[str, Any]:
    """Turn a Config into nested tables of plain values."""
    return dataclasses.asdict(config)


def dump(config: Config) -> str:
    """Write a Config as TOML."""
    lines: list[str] = []
    for section, table in to_tables(config).items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(known)}"


def _build(kind: type, tables: Mapping[str, Any], where: str) -> object:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tables.items():
        if key not in hints:
            raise UsageError(f"there is no setting {where}{key}{_hint(key, tuple(hints))}")
        values[key] = _convert(hints[key], value, f"{where}{key}")
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} is a section with keys, not a value")
        return _build(typing.cast(type, hint), value, f"{where}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in items)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            known = [str(one) for one in allowed]
            hint_text = _hint(str(value), known)
            raise UsageError(f"{where} must be one of {', '.join(known)}, got {value!r}{hint_text}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where} must be {hint.__name__}, got {value!r}")
    return value


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    options = [h for h in typing.get_args(hint) if h is not type(None)]
    if value is None:
        return None
    return _convert(options[0], value, where)
