"""Settings from the command line: recipe, file, ``--set`` and the common flags, in that order."""

from pathlib import Path
from typing import Any


def gather(
    recipe: str | None,
    config: Path | None,
    settings: list[str] | None,
    flags: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Lay the sources on each other, later ones on top; a flag that is None is left out."""
    from voxseg.engine.config import build, merge, parse_setting, read_recipe, read_toml

    tables: dict[str, Any] = {}
    if recipe is not None:
        tables = merge(tables, read_recipe(recipe))
    if config is not None:
        tables = merge(tables, read_toml(config))
    for text in settings or []:
        tables = merge(tables, parse_setting(text))
    for section, table in flags.items():
        given = {key: value for key, value in table.items() if value is not None}
        if given:
            tables = merge(tables, {section: given})
    build(tables)  # an unknown key or a bad value is told before any data is read
    return tables


def training_flags(
    epochs: int | None,
    max_minutes: float | None,
    seed: int | None,
    deterministic: bool,
    workers: int | None,
) -> dict[str, dict[str, Any]]:
    """Turn the flags that ``train`` and ``crossval`` share into settings."""
    return {
        "train": {
            "epochs": epochs,
            "max_minutes": max_minutes,
            "seed": seed,
            "deterministic": deterministic or None,
            "workers": workers,
        }
    }
