"""Names, colours and codes of masks in a folder: what their prediction left beside them."""

from collections.abc import Callable, Iterable
from pathlib import Path

from voxseg.engine.labels import label_table
from voxseg.export.label_files import read_label_table
from voxseg.export.labels import LabelTable, plain_table

TABLE = "labels.csv"
_FOLDER, _CONFIG = "predictions", "config.toml"  # of a run


def place_beside(folder: Path) -> Path | None:
    """Say which file names the classes of the masks in a folder.

    Returns:
        ``labels.csv`` there; else the ``config.toml`` of the run whose predictions they are; else
        None.
    """
    places = [folder / TABLE]
    if folder.resolve().name == _FOLDER:
        places.append(folder.resolve().parent / _CONFIG)
    return next((place for place in places if place.is_file()), None)


def read_beside(place: Path) -> LabelTable:
    """Read the table of what ``place_beside`` found.

    Raises:
        VoxsegError: The file is no label table, or no configuration.
    """
    if place.name == _CONFIG:
        from voxseg.engine.config import build, read_toml  # torch

        return label_table(build(read_toml(place)).labels)
    return read_label_table(place)


def unnamed_table(values: Iterable[int], mask: Path, say: Callable[[str], None]) -> LabelTable:
    """Call the classes of a mask class 1, class 2 and so on, and say so."""
    say(
        f"no {TABLE} lies beside {mask}: its classes are called class 1, class 2 and so on; "
        "--label-table gives them names"
    )
    return plain_table({value: f"class {value}" for value in values})
