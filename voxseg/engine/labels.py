"""The label table of a run: names, colours and codes of its classes, kept in its configuration.

A run keeps them whole, so that its masks can be written for other programs wherever it lies.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from voxseg.data.cases import Dataset
from voxseg.engine.label_config import LabelConfig
from voxseg.errors import DataError
from voxseg.export.label_files import read_label_table, table_names
from voxseg.export.labels import (
    Label,
    LabelTable,
    codes_from_text,
    plain_table,
    with_values,
)


def label_table(config: LabelConfig, chosen: str | Path | None = None) -> LabelTable:
    """Give the table of the classes of a network.

    Args:
        config: Of the run.
        chosen: A table's name or file to take instead; it must have every class.

    Raises:
        UsageError: There is no such table.
        DataError: It lacks a class, or is no table.
    """
    if chosen is not None:
        table = read_label_table(chosen).covering(config.values, "a mask of this network")
        return with_values(table, config.values)
    names = dict(zip(config.values, config.names, strict=True))
    plain = plain_table(names, config.palette)
    if not config.codes:  # without a table, or with one that was not used
        return plain
    rows = {value: place for place, value in enumerate(config.values)}
    labels = [_with_facts(one, config, rows[one.value]) for one in plain]
    return LabelTable(labels=tuple(labels), name=config.table, note=config.note)


def _with_facts(label: Label, config: LabelConfig, row: int) -> Label:
    return dataclasses.replace(
        label,
        codes=codes_from_text(config.codes[row]),
        side=config.sides[row],
        structure=config.structures[row],
        tissue=config.tissues[row],
        is_intracranial=config.intracranial[row],
    )


def table_settings(
    config: LabelConfig, dataset: Dataset, say: Callable[[str], None]
) -> dict[str, Any]:
    """Turn ``labels.table`` into the settings that it stands for; none where it is not used.

    A table of one's own must have every class. One that ships with voxseg, as a recipe names it,
    is left out, and this is said, where the data have other classes or other names for them.
    """
    if not config.table:
        return {}
    table = read_label_table(config.table)
    values = [value for value in config.values if value > 0]
    if config.table in table_names():
        reason = _misfit(table, values, dataset)
        if reason:
            say(f"label table {config.table} is not used: {reason}")
            return {}
    else:
        table.covering(values, "the data set")
    return _settings(table, config)


def _misfit(table: LabelTable, values: Sequence[int], dataset: Dataset) -> str:
    """Say why a table that nobody chose for these data is not theirs; "" where it may be."""
    own = [one.value for one in table]
    if sorted(values) != own:
        return f"it is for labels {own}, and the data have {sorted(values)}"
    other = dataset.class_names
    for label in table:
        given = other.get(label.value, label.name)
        if given.casefold() not in label.name.casefold() and given.casefold() not in _words(label):
            return f"the data call label {label.value} {given!r}, and it says {label.name!r}"
    return ""


def _words(label: Label) -> set[str]:
    """Other names of the same: its tissue, its type, and the modifier of that."""
    codes = label.codes
    meanings = [code.meaning for code in (codes.type, codes.type_modifier) if code is not None]
    return {one.casefold() for one in (label.tissue, label.tissue.replace("_", " "), *meanings)}


def _settings(table: LabelTable, config: LabelConfig) -> dict[str, Any]:
    """Give a value for each of ``labels.values``; what stands there already is kept."""
    blank = Label(value=1, name="background", colour=(0, 0, 0))
    labels = {one.value: one for one in table}
    rows = [labels.get(value, blank) for value in config.values]
    found: dict[str, Any] = {
        "note": table.note,
        "codes": [str(one.codes) for one in rows],
        "sides": [one.side for one in rows],
        "structures": [one.structure for one in rows],
        "tissues": [one.tissue for one in rows],
        "intracranial": [one.is_intracranial for one in rows],
    }
    if not config.names:
        found["names"] = [one.name for one in rows]
    if not config.colours:
        found["colours"] = ["#{:02x}{:02x}{:02x}".format(*one.colour) for one in rows]
    return found


def check_facts(config: LabelConfig) -> None:
    """Refuse codes and facts that are not one for each value, or that cannot be read.

    Raises:
        DataError: So it is.
    """
    columns = ("codes", "sides", "structures", "tissues", "intracranial")
    for name in columns:
        found = getattr(config, name)
        if len(found) != (len(config.values) if config.codes else 0):
            raise DataError(
                f"labels.{name} has {len(found)} entries for {len(config.values)} labels.values; "
                "they are written together from labels.table: name one there instead"
            )
    for text in config.codes:
        try:
            codes_from_text(text)
        except ValueError as error:
            raise DataError(f"labels.codes: {error}") from None
