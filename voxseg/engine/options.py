"""The options that training and cross-validation share, settled into one request."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxseg.data.folders import check_exists

if TYPE_CHECKING:
    from voxseg.engine.train import TrainRequest

Place = str | PathLike[str]
"""A file or folder."""
Settings = Mapping[str, Any] | Sequence[str] | None
"""Nested tables, or texts like ``train.epochs=5``."""


def training_request(
    *,
    data: Place,
    output: Place,
    labels: Place | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    settings: Settings = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    workers: int | None = None,
    plane: str | None = None,
    val_fraction: float | None = None,
    split: Place | None = None,
    fold: int = 0,
    init_from: Place | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> "TrainRequest":
    """Settle the options that ``train`` and ``crossval`` share; what is wrong is told at once.

    Later sources lie on earlier ones: recipe, file, ``settings``, and the options that are settings
    themselves.
    """
    check_exists(Path(data))  # before torch is loaded
    from voxseg.engine.config import build, merge, parse_setting, read_recipe, read_toml  # torch
    from voxseg.engine.train import TrainRequest

    tables: dict[str, Any] = {}
    if recipe is not None:
        tables = merge(tables, read_recipe(recipe))
    if config is not None:
        tables = merge(tables, read_toml(Path(config)))
    if isinstance(settings, Mapping):
        tables = merge(tables, settings)
    else:
        for text in settings or ():
            tables = merge(tables, parse_setting(text))
    options = {
        "epochs": epochs,
        "max_minutes": max_minutes,
        "seed": seed,
        "deterministic": deterministic or None,
        "workers": workers,
    }
    given = {key: value for key, value in options.items() if value is not None}
    tables = merge(tables, {"train": given}) if given else tables
    if plane is not None:
        tables = merge(tables, {"data": {"plane": plane}})
    build(tables)  # an unknown key or a bad value is told before any data is read
    return TrainRequest(
        data=Path(data),
        run=Path(output),
        labels=as_path(labels),
        settings=tables,
        planned=recipe is None and config is None,
        val_fraction=val_fraction,
        split=as_path(split),
        fold=fold,
        init_from=as_path(init_from),
        device=device,
        resume=resume,
        overwrite=overwrite,
    )


def as_path(place: Place | None) -> Path | None:
    """Make a path of it, if it is one at all."""
    return None if place is None else Path(place)


def as_paths(places: Place | Sequence[Place]) -> tuple[Path, ...]:
    """Make paths of one place or several."""
    if isinstance(places, str | PathLike):
        return (Path(places),)
    return tuple(Path(place) for place in places)
