"""Data sets written down: a CSV table, or a JSON list as MONAI and the Decathlon use it.

CSV: a header with ``image`` (more channels: ``image2``, ``image3``, ...), optionally ``case`` and
``label``. JSON: ``{"training": [{"image": ..., "label": ...}], ...}`` or the list alone; ``image``
may be a list of channels. Relative paths start at the file that lists them.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxseg.data.cases import Case
from voxseg.data.names import case_name
from voxseg.data.normals import is_normals_file
from voxseg.errors import DataError

CASE_COLUMNS = ("case", "case_id", "id", "subject")
_LABEL_COLUMNS = ("label", "seg", "mask", "normals")
_IMAGE_COLUMN = re.compile(r"^image_?(\d*)$")
_LABELLED_KEYS = ("training", "train", "validation", "val")
_HELD_OUT_KEYS = ("test", "testing")


def read_csv(path: Path) -> list[Case]:
    """Read cases from a table separated by commas, semicolons or tabs.

    Raises:
        DataError: The header has no ``image``, or a row lacks a file that exists.
    """
    header, rows = read_table(path)
    images = sorted(
        (int(match[1] or 1), header[name])
        for name in header
        if (match := _IMAGE_COLUMN.match(name))
    )
    if not images:
        raise DataError(
            f"{path} lists no images; it needs a header with the columns case,image,label and a "
            "row for each case"
        )
    case_column = next((header[name] for name in CASE_COLUMNS if name in header), None)
    label_key = next((name for name in _LABEL_COLUMNS if name in header), "label")
    return [
        _case(
            path,
            f"line {number}",
            {
                "image": [row[column] for _, column in images],
                label_key: row[header[label_key]] if label_key in header else None,
                "case": row[case_column] if case_column else None,
            },
        )
        for number, row in enumerate(rows, start=2)
    ]


def read_table(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Read a table separated by commas, semicolons or tabs.

    Returns:
        Its columns, lower-case name -> name as written; and its rows by the latter.

    Raises:
        DataError: The file cannot be read or is not text.
    """
    lines = read_lines(path)
    separator = max(",;\t", key=lines[0].count) if lines else ","
    rows = list(csv.DictReader(lines, delimiter=separator))
    return {name.strip().lower(): name for name in (rows[0] if rows else {}) if name}, rows


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file in UTF-8.

    Raises:
        DataError: It cannot be read or is not text.
    """
    return _read_text(path).splitlines()


def read_json(path: Path) -> tuple[list[Case], list[Case]]:
    """Read cases from a JSON list or from an object with ``training``.

    Returns:
        The cases; those of ``test``, which stay held out whether they have labels or not.

    Raises:
        DataError: The file is not JSON, lists nothing, or names files that do not exist.
    """
    content = parse_json(path)
    if isinstance(content, list):
        content = {"training": content}
    if not isinstance(content, dict):
        content = {}
    cases = list(_entries(path, content, _LABELLED_KEYS))
    held_out = list(_entries(path, content, _HELD_OUT_KEYS))
    if not cases and not held_out:
        raise DataError(
            f'{path} lists no cases; it needs {{"training": [{{"image": ..., "label": ...}}]}} or '
            "such a list alone"
        )
    return cases, held_out


def read_class_names(path: Path) -> dict[int, str]:
    """Read ``labels`` of a Decathlon or nnU-Net ``dataset.json``: value to name, either way round.

    Returns:
        Empty if the file does not exist or names no classes; nnU-Net's regions (lists of values)
        are left out.

    Raises:
        DataError: The file is not JSON.
    """
    if not path.is_file():
        return {}
    content = parse_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    names: dict[int, str] = {}
    for left, right in labels.items() if isinstance(labels, dict) else ():
        if isinstance(right, str) and _is_whole(left):
            names[int(left)] = right
        elif not isinstance(right, list) and _is_whole(right):
            names[int(right)] = str(left)
    return dict(sorted(names.items()))


def parse_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: It is not JSON, with the line where it stops being so.
    """
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON (line {error.lineno}: {error.msg})") from error


def _entries(path: Path, content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[Case]:
    for key in keys:
        entries = content.get(key) or []
        if not isinstance(entries, list):
            raise DataError(f'"{key}" in {path} must be a list; give an entry for each case')
        for number, entry in enumerate(entries, start=1):
            fields = {"image": entry} if isinstance(entry, str) else entry
            if not isinstance(fields, dict):
                raise DataError(
                    f'entry {number} of "{key}" in {path} must name an image; write '
                    '{"image": ..., "label": ...}'
                )
            yield _case(path, f'entry {number} of "{key}"', fields)


def _case(path: Path, where: str, fields: Mapping[str, Any]) -> Case:
    images = fields.get("image")
    names = [name for name in (images if isinstance(images, list) else [images]) if name]
    if not names:
        raise DataError(f"{where} of {path} names no image; fill it in or remove it")
    files = tuple(_existing(path, where, name) for name in names)
    kind = next((key for key in _LABEL_COLUMNS if fields.get(key)), None)
    label = _existing(path, where, fields[kind]) if kind else None
    case_id = next((fields[key] for key in CASE_COLUMNS if fields.get(key)), None)
    return Case(
        case_id=str(case_id).strip() if case_id else case_name(files[0]),
        images=files,
        label=label,
        task="normals" if kind == "normals" or is_normals_file(label) else "segmentation",
    )


def _existing(path: Path, where: str, name: Any) -> Path:
    """Return a listed file, relative to the list."""
    if not isinstance(name, str):
        raise DataError(f"{where} of {path} has {name!r} where a file name is needed; correct it")
    file = path.parent / Path(name.strip()).expanduser()
    if not file.is_file():
        raise DataError(
            f"{where} of {path} names {file}, which does not exist; paths start at the folder of "
            "the list"
        )
    return file


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file in UTF-8; save it as such") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check it") from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, str)) and bool(re.fullmatch(r"-?\d+", str(value)))
