"""``voxseg schemas``."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from rich.table import Table

from voxseg.documents import document
from voxseg.errors import UsageError
from voxseg.schemas import SCHEMAS, read_schema, schema_names

from . import console as terminal
from . import options

_WRITTEN_BY = "written by "


def schemas(
    name: Annotated[
        str | None, typer.Argument(help="One of them, to print its fields.", metavar="[NAME]")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the forms of voxseg's JSON documents, or print the fields of one.

    With NAME and --json: its JSON Schema (draft 2020-12), to validate documents with.
    """
    if name is None:
        _list(as_json)
        return
    schema = _find(name)
    if as_json:
        terminal.print_json(schema)
        return
    table = terminal.table(
        f"{schema['$id']}: {schema['title']}",
        ("field", "type", "required", "what it is"),
        _fields(schema, schema),
    )
    terminal.out.print(_left(table))
    terminal.out.print(schema["description"], markup=False)
    terminal.out.print(schema["$comment"], markup=False)


def _list(as_json: bool) -> None:
    rows = []
    for name in schema_names():
        schema = read_schema(name)
        written_by = schema["$comment"].removeprefix(_WRITTEN_BY)
        title = schema["title"]
        rows.append({"name": name, "id": schema["$id"], "title": title, "written_by": written_by})
    if as_json:
        terminal.print_json(document(SCHEMAS, {"schemas": rows}))
        return
    table = terminal.table(
        "JSON documents",
        ("schema", "what it is", "written by"),
        [(row["id"], row["title"], row["written_by"]) for row in rows],
    )
    terminal.out.print(_left(table))


def _left(table: Table) -> Table:
    """Set all columns to the left, and cut no name: it is broken into lines where it must be."""
    for column in table.columns:
        column.justify, column.overflow = "left", "fold"
    return table


def _find(name: str) -> dict[str, Any]:
    """Read a schema by its name, ``voxseg.`` in front and version behind or not."""
    try:
        return read_schema(name)
    except ValueError as error:
        short = name.removeprefix("voxseg.").partition("/")[0]
        close = get_close_matches(short, schema_names(), n=1)
        if short in schema_names():
            raise UsageError(f"{error}; leave the version away") from None
        hint = f"did you mean {close[0]}?" if close else "'voxseg schemas' lists them"
        raise UsageError(f"there is no schema {name!r}; {hint}") from None


def _fields(schema: dict[str, Any], part: dict[str, Any], at: str = "") -> Iterator[list[str]]:
    """A row for each field, those of inner objects too, with names like ``cases[].dice``."""
    part = _resolved(schema, part)
    required = part.get("required", [])
    for pattern, values in part.get("patternProperties", {}).items():
        yield from _field(schema, values, f"{at}{pattern.strip('^$')}", "")
    for name, values in part.get("properties", {}).items():
        yield from _field(schema, values, f"{at}{name}", "yes" if name in required else "")
    for name, key in (("*.", "additionalProperties"), ("[].", "items")):
        if isinstance(part.get(key), dict):
            inner = at.removesuffix(".") + name if key == "items" else at + name
            yield from _fields(schema, part[key], inner)


def _field(
    schema: dict[str, Any], values: dict[str, Any], at: str, required: str
) -> Iterator[list[str]]:
    found = _resolved(schema, values)
    text = values.get("description", found.get("description", ""))
    yield [at, _type(found), required, text]
    yield from _fields(schema, found, f"{at}.")


def _resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into ``$defs``; of "something or null" take the something."""
    while "$ref" in part or "anyOf" in part:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
        else:
            part = part["anyOf"][0] | {"description": part["description"]}
    return part


def _type(part: dict[str, Any]) -> str:
    if "const" in part:
        return str(part["const"])
    kinds = part.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
