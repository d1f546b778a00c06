"""``volumes.csv``: one row for each case and figure, to be opened by any table program."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from voxseg.engine.evaluate_files import csv_text
from voxseg.engine.outcomes import DISCLAIMER, CaseOutcome, Measured, Uncertainty, Volumes
from voxseg.export.labels import LabelTable
from voxseg.files import write_text

VOLUMES = "volumes.csv"


def write_volumes(path: Path, outcomes: Sequence[CaseOutcome], table: LabelTable) -> None:
    """Write all figures of all cases; where there is none, an older table is removed.

    Columns: ``case``; ``kind`` and ``name`` of the figure, ``side`` of a class; ``labels``, the
    values of its classes with a blank between them; ``value`` in ``unit``; ``soft_ml`` where tissue
    maps were written; ``interval`` (conformal, members, or empty) with ``low``, ``high`` and
    ``level``; ``held_out_cases`` and ``members`` that it is from; ``bias_percent``; ``note``. A
    field that is not known is empty.

    Raises:
        VoxsegError: The file cannot be written.
    """
    rows = [_rounded(row) for one in outcomes for row in _rows(one, table)]
    if rows:
        write_text(path, csv_text(rows))
    else:
        path.unlink(missing_ok=True)  # its cases are no longer those of predict.json


def _rounded(row: dict[str, object]) -> dict[str, object]:
    """Leave digits out that no volume has: a millionth is far below a voxel."""
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def _rows(outcome: CaseOutcome, table: LabelTable) -> Iterator[dict[str, object]]:
    figures: tuple[Volumes | Measured, ...] = (*outcome.volumes, *outcome.measures)
    for figure in figures:
        yield {
            "case": outcome.case_id,
            **(_of_class(figure, table) if isinstance(figure, Volumes) else _of_several(figure)),
            **_of_interval(figure.uncertainty),
            "note": " ".join(text for text in (DISCLAIMER, outcome.volume_note) if text),
        }


def _of_class(volume: Volumes, table: LabelTable) -> dict[str, object]:
    return {
        "kind": "class",
        "name": volume.name,
        "side": table[volume.label].side if volume.label in table else "",
        "labels": volume.label,
        "value": volume.ml,
        "unit": "ml",
        "soft_ml": volume.soft_ml,
    }


def _of_several(measured: Measured) -> dict[str, object]:
    return {
        "kind": measured.kind,
        "name": measured.name,
        "side": "",
        "labels": " ".join(map(str, measured.labels)),
        "value": measured.value,
        "unit": measured.unit,
        "soft_ml": None,
    }


def _of_interval(found: Uncertainty) -> dict[str, object]:
    return {
        "interval": found.interval,
        "low": found.low,
        "high": found.high,
        "level": found.level,
        "held_out_cases": found.held_out_cases or None,
        "members": found.members or None,
        "bias_percent": found.bias_percent,
    }
