"""Configuration: frozen dataclasses, filled from a recipe, a TOML file and ``--set a.b=c``.

Later sources win: defaults, recipe, file, ``--set``, flags. An unknown key is an error that names
the nearest known one. ``dump`` writes the resolved configuration back as TOML.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from voxseg.data.augment_settings import AugmentSettings
from voxseg.data.prepare import PrepareSettings
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.engine.sections import LabelConfig as LabelConfig
from voxseg.engine.sections import ModelConfig as ModelConfig
from voxseg.engine.sections import Network as Network
from voxseg.engine.sections import PredictConfig as PredictConfig
from voxseg.engine.sections import TaskConfig as TaskConfig
from voxseg.engine.sections import TrainConfig as TrainConfig
from voxseg.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    data: PrepareSettings = field(default_factory=PrepareSettings)
    supervoxels: SupervoxelSettings = field(default_factory=SupervoxelSettings)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        if self.train.pixels and self.model.network != "pixelnet":
            raise ValueError(
                f"train.pixels is {self.train.pixels}, but {self.model.network} classifies all "
                "pixels at once; leave it out, or choose model.network=pixelnet"
            )
        if self.train.pixel_sampling != "uniform" and self.task.kind == "normals":
            raise ValueError(
                f"train.pixel_sampling {self.train.pixel_sampling} needs classes, which surface "
                "normals have not; leave it out"
            )

    @property
    def num_outputs(self) -> int:
        """Channels of the network's answer: a class each, one of boundaries, three of normals."""
        kind = self.task.kind
        return {"boundaries": 1, "normals": 3}.get(kind, len(self.labels.values))


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
