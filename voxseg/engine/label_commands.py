"""Label tables to look at and to copy: ``voxseg labels``."""

from pathlib import Path

from voxseg.errors import UsageError
from voxseg.export.label_files import read_label_table, table_names, write_label_toml
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import LabelTable


def labels(
    table: str | None, output: Path | None = None, *, overwrite: bool = False
) -> dict[str, LabelTable]:
    """Read a label table, and write it where that is wanted.

    Args:
        table: A table that ships with voxseg, or a file; None for all that ship.
        output: A ``.toml``, to be changed; or ``labels.csv``, which gets ``labels.ctbl`` beside it.
        overwrite: Whether a file that exists is replaced.

    Returns:
        The tables by name or file.

    Raises:
        UsageError: There is no such table, or ``output`` cannot be.
        DataError: A file is no label table.
    """
    if table is None:
        if output is not None:
            raise UsageError(f"name the table to write to {output}: {', '.join(table_names())}")
        return {name: read_label_table(name) for name in table_names()}
    found = read_label_table(table)
    if output is not None:
        _write(output, found, overwrite=overwrite)
    return {table: found}


def _write(output: Path, table: LabelTable, *, overwrite: bool) -> None:
    is_csv = output.name == "labels.csv"
    if not is_csv and output.suffix.lower() != ".toml":
        raise UsageError(f"{output} cannot be written: -o names a .toml file, or labels.csv")
    paths = [output, output.with_suffix(".ctbl")] if is_csv else [output]
    existing = next((path for path in paths if path.exists()), None)
    if existing is not None and not overwrite:
        raise UsageError(f"{existing} exists; use --overwrite, or another -o")
    if is_csv:
        write_label_table(output.parent, table)
    else:
        write_label_toml(output, table)
