"""Colour tables that give a mask its class names and colours in 3D Slicer.

Source: Slicer's developer guide, module Colors: the CSV form (``labels.csv``, recent versions),
which also holds codes, and the text form (``labels.ctbl``, all versions).
"""

import csv
import io
from pathlib import Path

from voxseg.export.label_files import CODE_PARTS, CODED, COLUMNS
from voxseg.export.labels import Codes, LabelTable
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
    write_text(paths[1], _text_table(table, background))
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


def _text_table(table: LabelTable, background: str) -> str:
    lines = [f"0 {background.replace(' ', '_') or 'background'} 0 0 0 0"]
    for label in table:
        red, green, blue = label.colour
        lines.append(f"{label.value} {label.name.replace(' ', '_')} {red} {green} {blue} 255")
    head = ["# Color table file labels.ctbl", f"# {len(lines)} values"]
    return "\n".join([*head, *lines, ""])
