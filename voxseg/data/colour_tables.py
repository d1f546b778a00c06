"""Which class a colour stands for: tables that lie beside masks, and those that are known.

Understood: ``label_colors.txt`` (``R G B name`` a line, as CamVid has it), ``class_dict.csv`` (a
header with ``name,r,g,b``), and ``labels.csv`` as voxseg and 3D Slicer write it. A table is looked
for in the folder of a mask and in the two above. Where it gives no values, classes count from 0 in
the order of its lines, and those called void, unlabelled or unknown become 255.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from voxseg.data.camvid import CAMVID_COLOURS, ORIGINAL_LABELS
from voxseg.data.case_lists import read_lines, read_table
from voxseg.data.label_sets import CAMVID, VOC, VOID, Colour, LabelClass, LabelSet
from voxseg.data.voc import VOC_MASKS, is_voc_name
from voxseg.errors import DataError

TABLE_FILES = ("label_colors.txt", "class_dict.csv", "labels.csv")
"""Names that a table may have, the one that counts first."""

UNCOUNTED = frozenset({"void", "unlabelled", "unlabeled", "unknown", "ignore", "ignored"})
"""Names, in lower case, that mark what is no class."""
_LEVELS = 3  # folders up from a mask: masks/train/x.png with a table beside masks
_COLUMNS = {
    "value": ("labelvalue", "value", "label", "id"),
    "name": ("name", "class", "class_name"),
    "red": ("r", "red", "color_r"),
    "green": ("g", "green", "color_g"),
    "blue": ("b", "blue", "color_b"),
}
_LINE = re.compile(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+?)\s*")


@dataclass(frozen=True)
class ColourTable:
    """Label values by colour."""

    name: str
    """What the table is, for messages: a file or a data set."""
    entries: Mapping[Colour, tuple[int, str]]
    """Label value and name of each colour."""
    label_set: LabelSet
    is_grey: bool = False
    """Whether all colours are grey levels, and values follow from the order of the lines."""

    def decode(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        """Turn colours into label values.

        Args:
            pixels: (H, W, 3) uint8.
            path: Their file, for messages.

        Returns:
            (H, W) int32.

        Raises:
            DataError: A colour is not in the table.
        """
        codes = np.array([_code(np.array(colour)) for colour in self.entries], np.int64)
        order = np.argsort(codes)
        codes = codes[order]
        values = np.array([value for value, _ in self.entries.values()], np.int32)[order]
        found = _code(pixels)
        places = np.minimum(np.searchsorted(codes, found), len(codes) - 1)
        unknown = codes[places] != found
        if unknown.any():
            row, column = (int(place) for place in np.argwhere(unknown)[0])
            self._refuse(pixels[row, column], int(unknown.sum()), (row, column), path)
        decoded: np.ndarray = values[places]
        return decoded

    def _refuse(self, colour: np.ndarray, count: int, at: tuple[int, int], path: Path) -> None:
        nearest = min(
            self.entries, key=lambda known: float(np.linalg.norm(np.subtract(known, colour * 1.0)))
        )
        raise DataError(
            f"{path} has {count} pixels of colours that {self.name} does not list, the first "
            f"{_triple(colour)} in row {at[0]}, column {at[1]}; the nearest is "
            f"{self.entries[nearest][1]} {_triple(nearest)}: correct the mask, or add the colour "
            "to the table"
        )


def colour_table(mask: Path) -> ColourTable | None:
    """Return the table that a mask's colours are of; None where nothing says it.

    The folder names of CamVid and PASCAL VOC say it; else the nearest table file does.

    Raises:
        DataError: The table file cannot be understood.
    """
    if mask.parent.name == ORIGINAL_LABELS:
        return ColourTable("CamVid", CAMVID_COLOURS, CAMVID)
    if mask.parent.name in VOC_MASKS and is_voc_name(mask.stem):
        return _of_label_set(VOC)
    path = table_file(mask.parent)
    return None if path is None else _read(path, path.stat().st_mtime_ns)


def table_file(folder: Path) -> Path | None:
    """Find the table of a folder of masks, there or in the two folders above."""
    above = (folder, *folder.parents)[:_LEVELS]
    places = (place / name for place in above for name in TABLE_FILES)
    return next((path for path in places if path.is_file()), None)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> ColourTable:
    """Read a table file; ``changed`` is when it was, so that an edited file is read again."""
    del changed
    rows = _text_rows(path) if path.suffix == ".txt" else _csv_rows(path)
    entries: dict[Colour, tuple[int, str]] = {}
    classes, ignore, following = [], set(), 0
    for colour, name, given in rows:
        counts = name.strip().lower() not in UNCOUNTED
        if given is None:
            value = following if counts else VOID
            following += counts
        else:
            value = given
        if entries.setdefault(colour, (value, name)) != (value, name):
            raise DataError(
                f"{path} gives two classes the colour {_triple(colour)}: {entries[colour][1]} and "
                f"{name}; give each its own"
            )
        if counts:
            classes.append(LabelClass(value, name, colour))
        else:
            ignore.add(value)
    is_slicers = path.name == "labels.csv" and all(one.value for one in classes)
    if is_slicers and (0, 0, 0) not in entries:
        # Slicer's tables leave the background out: it is transparent.
        entries[0, 0, 0] = (0, "background")
        classes.append(LabelClass(0, "background", (0, 0, 0)))
    ordered = tuple(sorted(classes, key=lambda one: one.value))
    if len({one.value for one in ordered}) < len(ordered):
        raise DataError(f"{path} gives two classes the same value; give each its own")
    if not ordered:
        raise DataError(f"{path} lists no class; it needs a line with name, r, g, b for each")
    label_set = LabelSet(path.name, ordered, tuple(sorted(ignore)))
    is_grey = all(len(set(colour)) == 1 and given is None for colour, _, given in rows)
    return ColourTable(str(path), entries, label_set, is_grey)


def _of_label_set(label_set: LabelSet) -> ColourTable:
    entries = {one.colour: (one.value, one.name) for one in label_set.classes}
    entries[224, 224, 192] = (VOID, "void")
    return ColourTable(label_set.name, entries, label_set)


def _text_rows(path: Path) -> list[tuple[Colour, str, int | None]]:
    rows: list[tuple[Colour, str, int | None]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"line {number} of {path} is not 'R G B name'; correct it")
        red, green, blue, name = match.groups()
        rows.append((_colour((red, green, blue), path, number), name, None))
    return rows


def _csv_rows(path: Path) -> list[tuple[Colour, str, int | None]]:
    header, lines = read_table(path)
    columns = {
        key: next((header[name] for name in names if name in header), None)
        for key, names in _COLUMNS.items()
    }
    if any(columns[key] is None for key in ("name", "red", "green", "blue")):
        raise DataError(
            f"{path} is no table of class colours; it needs a header with the columns name,r,g,b"
        )
    rows: list[tuple[Colour, str, int | None]] = []
    for number, line in enumerate(lines, start=2):
        cells = {key: (line[name] or "").strip() for key, name in columns.items() if name}
        parts = (cells["red"], cells["green"], cells["blue"])
        value = cells.get("value")
        if value is not None and not re.fullmatch(r"\d+", value):
            raise DataError(f"line {number} of {path} has the class value {value!r}; correct it")
        colour = _colour(parts, path, number)
        rows.append((colour, cells["name"], None if value is None else int(value)))
    return rows


def _colour(parts: tuple[str, str, str], path: Path, number: int) -> Colour:
    if not all(re.fullmatch(r"\d+", part) and int(part) <= 255 for part in parts):
        raise DataError(
            f"line {number} of {path} has the colour {', '.join(parts)}; give red, green and blue "
            "from 0 to 255"
        )
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


def _code(colours: np.ndarray) -> np.ndarray:
    """Put red, green and blue (..., 3) into one number."""
    wide = colours.astype(np.int64)
    code: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return code


def _triple(colour: np.ndarray | Colour) -> str:
    return f"({', '.join(str(int(part)) for part in colour)})"
