"""Label tables as files: our own TOML, the CSV of 3D Slicer, and those that ship with voxseg.

Source of the CSV: Slicer's developer guide, module Colors, *Color table file format (.csv)*. Four
more columns may follow its own: Side, Structure, Tissue, Intracranial.
"""

import csv
import difflib
import io
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast, get_args

from voxseg.errors import DataError, UsageError
from voxseg.export.labels import Code, Codes, Colour, Label, LabelTable, Side, Tissue, tidy_name
from voxseg.files import write_text

CODED = {
    "category": "Category",
    "type": "Type",
    "type_modifier": "TypeModifier",
    "region": "Region",
    "region_modifier": "RegionModifier",
}
"""Our names of the codes, and those of Slicer's columns."""
CODE_PARTS = ("CodingScheme", "CodeValue", "CodeMeaning")
COLUMNS = (
    "LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A",
    *(f"{kind}_{part}" for kind in CODED.values() for part in CODE_PARTS),
)  # fmt: skip
_MORE = ("Side", "Structure", "Tissue", "Intracranial")
_HEX = re.compile("#[0-9a-fA-F]{6}")
_TABLE_KEYS = {"name", "note", "labels"}
_LABEL_KEYS = {
    "value", "name", "colour", *CODED, "side", "structure", "tissue", "intracranial",
}  # fmt: skip
_YES = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def table_names() -> tuple[str, ...]:
    """Names of the label tables that ship with voxseg, sorted."""
    folder = resources.files("voxseg.label_tables")
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml")))


def read_label_table(place: str | Path) -> LabelTable:
    """Read a label table.

    Args:
        place: The name of a table that ships with voxseg, or a file: ``.toml``, or ``.csv`` with
            Slicer's columns (``LabelValue``, ``Name`` and ``Color_R``, ``_G``, ``_B`` are needed).

    Raises:
        UsageError: There is no such table or file.
        DataError: The file is no label table; the sentence says where.
    """
    if str(place) in table_names():
        folder = resources.files("voxseg.label_tables")
        return _from_toml((folder / f"{place}.toml").read_text(encoding="utf-8"), str(place))
    path = Path(place)
    if not path.is_file():
        close = difflib.get_close_matches(str(place), table_names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(table_names())}"
        raise UsageError(f"there is no label table or file {place}; {hint}")
    if path.suffix.lower() not in (".toml", ".csv"):
        raise UsageError(f"{path} is no label table: one ends in .toml or .csv")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from None
    return (_from_toml if path.suffix.lower() == ".toml" else _from_csv)(text, str(path))


def write_label_toml(path: Path, table: LabelTable) -> Path:
    """Write ``table`` as TOML, to be read and changed.

    Raises:
        VoxsegError: The file cannot be written.
    """
    lines = [f"name = {_quoted(table.name)}", f"note = {_quoted(table.note)}"]
    for label in table:
        lines += ["", "[[labels]]", f"value = {label.value}", f"name = {_quoted(label.name)}"]
        lines.append(f'colour = "#{"".join(f"{part:02x}" for part in label.colour)}"')
        for kind in CODED:
            code = getattr(label.codes, kind)
            if code is not None:
                triplet = ", ".join(_quoted(part) for part in str(code).split("^"))
                lines.append(f"{kind} = [{triplet}]")
        for kind in ("side", "structure", "tissue"):
            if getattr(label, kind):
                lines.append(f"{kind} = {_quoted(getattr(label, kind))}")
        if label.is_intracranial:
            lines.append("intracranial = true")
    write_text(path, "\n".join([*lines, ""]))
    return path


def colour_of(text: str) -> Colour:
    """Read ``#rrggbb``.

    Raises:
        ValueError: It is something else.
    """
    if not _HEX.fullmatch(text):
        raise ValueError(f"a colour is #rrggbb, got {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _from_toml(text: str, where: str) -> LabelTable:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where} is not valid TOML: {error}") from None
    _refuse_unknown(content, _TABLE_KEYS, where)
    rows = content.get("labels")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{where} holds no label; give each a [[labels]] with value and name")
    labels = []
    for number, row in enumerate(rows, 1):
        place = f"{where}, label number {number}"
        _refuse_unknown(row, _LABEL_KEYS, place)
        try:
            codes = {kind: _code(kind, row[kind]) for kind in CODED if kind in row}
            labels.append(_label({**row, "codes": Codes(**codes)}))
        except ValueError as error:
            raise DataError(f"{place}: {error}") from None
    try:
        return LabelTable(
            labels=tuple(labels), name=str(content.get("name", "")), note=content.get("note", "")
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _label(row: Mapping[str, Any]) -> Label:
    """Make a label of a row of TOML, or of one of CSV in the same form."""
    value = row.get("value")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"value is missing or no whole number, got {value!r}")
    name = row.get("name", "")
    if not isinstance(name, str):
        raise ValueError(f"the name of label {value} must be text, got {name!r}")
    colour = row.get("colour")
    if colour is None:
        raise ValueError(f"label {value} ({name}) has no colour; give one as #rrggbb")
    for kind, known in (("side", get_args(Side)), ("tissue", get_args(Tissue))):
        if row.get(kind, "") not in known:
            words = ", ".join(one for one in known if one)
            raise ValueError(
                f"{kind} of label {value} ({name}) is one of {words}, got {row[kind]!r}"
            )
    structure = row.get("structure", "")
    if not isinstance(structure, str) or structure != tidy_name(structure):
        raise ValueError(f"structure of label {value} ({name}) must be text on one line")
    intracranial = row.get("intracranial", False)
    if not isinstance(intracranial, bool):
        raise ValueError(f"intracranial of label {value} ({name}) is true or false")
    return Label(
        value=value,
        name=name,
        colour=_colour(colour, value, name),
        codes=row["codes"],
        side=cast(Side, row.get("side", "")),
        structure=structure,
        tissue=cast(Tissue, row.get("tissue", "")),
        is_intracranial=intracranial,
    )


def _colour(colour: Any, value: int, name: str) -> Colour:
    try:
        if isinstance(colour, str):
            return colour_of(colour)
        red, green, blue = (int(part) for part in colour)
    except (TypeError, ValueError):
        raise ValueError(
            f"the colour of label {value} ({name}) must be #rrggbb or three numbers in 0 to 255, "
            f"got {colour!r}"
        ) from None
    return red, green, blue


def _code(kind: str, parts: Any) -> Code:
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise ValueError(f'{kind} is a code like ["SCT", "5366008", "Hippocampus"], got {parts!r}')
    return Code(*(str(part) for part in parts))


def _refuse_unknown(content: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
        raise DataError(f"{where} has an unknown key {unknown[0]!r}; {hint}")


def _from_csv(text: str, where: str) -> LabelTable:
    reader = csv.DictReader(io.StringIO(text))
    needed = COLUMNS[:5]
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{where} has no column {missing[0]}; a label table needs {', '.join(needed)}"
        )
    unknown = [name for name in reader.fieldnames or () if name not in (*COLUMNS, *_MORE)]
    if unknown:
        raise DataError(f"{where} has an unknown column {unknown[0]!r}; remove or rename it")
    labels = []
    for row in reader:
        place = f"{where}, line {reader.line_num}"
        cells = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        if None in row or None in row.values():  # so a DictReader marks too many and too few
            raise DataError(f"{place} has {'more' if None in row else 'fewer'} cells than columns")
        try:
            made = _csv_label(cells)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from None
        if made is not None:
            labels.append(made)
    if not labels:
        raise DataError(f"{where} holds no label; give each a line")
    try:
        return LabelTable(labels=tuple(labels), name=Path(where).stem)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _csv_label(cells: Mapping[str, str]) -> Label | None:
    """Make a label of a line; None of the background's."""
    text = cells["LabelValue"]
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f"LabelValue is missing or no whole number, got {text!r}")
    value = int(text)
    if value == 0:
        return None
    codes: dict[str, Code] = {}
    for kind, column in CODED.items():
        parts = [cells.get(f"{column}_{part}", "") for part in CODE_PARTS]
        if any(parts):
            codes[kind] = _code(kind, parts)
    yes = cells.get("Intracranial", "").lower()
    if yes not in _YES:
        raise ValueError(f"Intracranial is true or false, got {yes!r}")
    return _label(
        {
            "value": value,
            "name": cells["Name"],
            "colour": [cells[f"Color_{channel}"] for channel in "RGB"],
            "codes": Codes(**codes),
            "side": cells.get("Side", ""),
            "structure": cells.get("Structure", ""),
            "tissue": cells.get("Tissue", ""),
            "intracranial": _YES[yes],
        }
    )
