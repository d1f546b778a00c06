"""The files that scores are written to."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxseg.errors import UsageError

_OUTPUTS = ("metrics.csv", "metrics.json", "summary.csv")


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder whose scores would be lost, before any work is done."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; -o names a folder for the scores")
    existing = [name for name in _OUTPUTS if (folder / name).exists()]
    if existing and not overwrite:
        raise UsageError(f"{folder / existing[0]} exists; use --overwrite, or choose another -o")


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows with the columns of the first; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
