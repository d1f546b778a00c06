"""Colour tables that give a mask its class names and colours in 3D Slicer.

Source: Slicer's developer guide, module Colors: the CSV form (``labels.csv``, recent versions),
which also holds codes, and the text form (``labels.ctbl``, all versions).
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from voxseg.export.label_files import CODE_PARTS, CODED, COLUMNS
from voxseg.export.labels import Codes, Colour, LabelTable
from voxseg.files import write_text


def write_label_table(
    folder: Path, table: LabelTable, background: str = "background"
) -> tuple[Path, Path]:
    """Write ``labels.csv`` and ``labels.ctbl`` into ``folder``.

    Args:
        folder: Made if needed; tables that are there are replaced.
        table: The classes; ``read_label_table`` reads the ``.csv`` back.
        background: Name of 0, which is transparent and only in the ``.ctbl``.

    Returns:
        The paths of the two files.

    Raises:
        VoxsegError: A file cannot be written.
    """
    paths = folder / "labels.csv", folder / "labels.ctbl"
    write_text(paths[0], _csv_table(table))
    write_colour_text(paths[1], ((one.value, one.name, one.colour) for one in table), background)
    return paths


def _csv_table(table: LabelTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for label in table:
        writer.writerow((label.value, label.name, *label.colour, 255, *_code_cells(label.codes)))
    return text.getvalue()


def _code_cells(codes: Codes) -> list[str]:
    cells: list[str] = []
    for kind in CODED:
        code = getattr(codes, kind)
        cells += [""] * len(CODE_PARTS) if code is None else [code.scheme, code.value, code.meaning]
    return cells


def write_colour_text(
    path: Path, entries: Iterable[tuple[int, str, Colour]], background: str = "background"
) -> Path:
    """Write a ``.ctbl`` of values, their names and colours.

    Raises:
        VoxsegError: It cannot be written.
    """
    lines = [f"0 {background.replace(' ', '_') or 'background'} 0 0 0 0"]
    for value, name, (red, green, blue) in entries:
        lines.append(f"{value} {name.replace(' ', '_')} {red} {green} {blue} 255")
    head = [f"# Color table file {path.name}", f"# {len(lines)} values"]
    write_text(path, "\n".join([*head, *lines, ""]))
    return path
