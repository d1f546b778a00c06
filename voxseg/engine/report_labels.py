"""Names and colours of classes on pages, as the run has them: its colour table, or its settings."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from voxseg.engine.mask_tables import TABLE
from voxseg.errors import VoxsegError
from voxseg.export.label_files import colour_of, read_label_table
from voxseg.export.labels import Colour, LabelTable, class_colours

_EMPTY = LabelTable(labels=())


def written_table(folder: Path) -> LabelTable:
    """Read the colour table that ``predict`` writes; one of another program has no label."""
    path = folder / TABLE
    if not path.is_file():
        return _EMPTY
    try:
        return read_label_table(path)
    except VoxsegError:
        return _EMPTY


def colours_of_settings(settings: str) -> dict[int, Colour]:
    """Give the colours by class value that a ``config.toml`` names; none of one that is damaged."""
    try:
        labels = tomllib.loads(settings).get("labels", {})
        pairs = zip(labels.get("values", ()), labels.get("colours", ()), strict=True)
        return {int(value): colour_of(colour) for value, colour in pairs}
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError):
        return {}


def page_colours(labels: Iterable[int], known: Mapping[int, Colour]) -> dict[int, Colour]:
    """Give a colour to each class above 0: the known one, else that of ``class_colours``."""
    return {value: known.get(value, own) for value, own in class_colours(labels).items()}
