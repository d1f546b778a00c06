"""One HTML page about a checked data set: verdict, findings, pairs, and how its cases compare.

The page stands alone and holds no picture of a subject: figures are bars of plain HTML, so that it
prints and can be read without scripts.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from voxseg.files import write_text
from voxseg.schemas import CHECK

_FORMS = (CHECK, 1)  # 1: its name before forms had names
_MOST_CLASSES = 12
_FIRST_OF_KIND = 3  # the rest of a kind is folded away: twenty files often have one habit
_WILD = 3  # times the middle case's 99.5th percentile, where the axis of intensities ends
_MOST_PICTURES = 200  # rows of pairs; thousands would make a page of many megabytes
_SEVERITIES = ("error", "warning", "note")


def write_check_page(path: Path, document: Mapping[str, Any]) -> Path:
    """Write what a check found as one self-contained page.

    Args:
        path: Where; its folder is made if needed.
        document: As ``check_document`` makes it, or as read from ``voxseg check --json``.

    Raises:
        ValueError: The document is of another form than ``voxseg.check/1``.
        VoxsegError: The file cannot be written.
    """
    from jinja2 import Environment

    if document.get("schema") not in _FORMS:
        raise ValueError(f"the document must have schema {CHECK}, got {document.get('schema')!r}")
    text = resources.files("voxseg.export").joinpath("check_report.html")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = figure
    environment.filters["by"] = _by
    folder = f"{document['data']}/"
    environment.filters["short"] = lambda sentence: sentence.replace(folder, "")
    is_of_pictures = document.get("kind") == "photographs"
    is_scaled = any(file["scaling"] for file in _files(document))
    page = environment.from_string(text.read_text(encoding="utf-8")).render(
        document=document,
        is_of_pictures=is_of_pictures,
        pairs=_shown_pairs(document) if is_of_pictures else document["pairs"],
        columns=2 if is_of_pictures else 5 + is_scaled,
        name=Path(str(document["data"])).name or str(document["data"]),
        groups=group_findings(document["findings"]),
        first=_FIRST_OF_KIND,
        is_scaled=is_scaled,
        pixels=_pixels(document) if is_of_pictures else [],
        intensities=[] if is_of_pictures else _intensities(document["cases"]),
        classes={} if is_of_pictures else _classes(document),
        spacings=[] if is_of_pictures else _spacings(document["pairs"]),
    )
    write_text(path, page)
    return path


def group_findings(findings: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Sort findings by severity and put those of one kind together, first come first."""
    order = {finding["kind"]: place for place, finding in reversed(list(enumerate(findings)))}

    def key(finding: Mapping[str, Any]) -> tuple[int, int]:
        return _SEVERITIES.index(finding["severity"]), order[finding["kind"]]

    return [list(group) for _, group in groupby(sorted(findings, key=key), key)]


def figure(value: float) -> str:
    """Write a number with three digits or, from 1000 on, as a whole one."""
    if value == round(value) or abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:#.3g}".rstrip(".")


def _by(numbers: Sequence[float]) -> str:
    return " \u00d7 ".join(f"{number:.4g}" for number in numbers)


def _files(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    pairs = document["pairs"]
    return [file for pair in pairs for file in (*pair["images"], *([pair["label"]] * 1)) if file]


def _intensities(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Place each channel's percentiles on one axis, from 0 or the lowest to the usual top.

    The axis ends where all but the wildest cases do, or one odd scanner would press the others
    into a line; bars beyond it are cut and marked.
    """
    channels = []
    for c in range(max((len(case["percentiles"]) for case in cases), default=0)):
        rows = [
            (case["case_id"], case["percentiles"][c])
            for case in cases
            if c < len(case["percentiles"])
        ]
        tops = sorted(high for _, (_, _, high) in rows)
        limit = _WILD * abs(tops[len(tops) // 2])
        end = max(top for top in tops if top <= limit) if limit else tops[-1]
        start = min(0.0, *(low for _, (low, _, _) in rows))
        channels.append(
            {
                "number": c,
                "start": start,
                "end": end,
                "rows": [
                    {
                        "case_id": case_id,
                        "values": values,
                        "places": [_share(value, start, end) for value in values],
                        "is_cut": values[2] > end,
                    }
                    for case_id, values in rows
                ],
            }
        )
    return channels


def _classes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes with their volumes by case, as shares of the class's largest volume."""
    mark, names = document["fingerprint"], document["class_names"]
    found = [value for value in (mark["label_ml"] if mark else {}) if value != "0"]
    shown = sorted(found, key=int)[:_MOST_CLASSES]
    tops = {value: mark["label_ml"][value][2] for value in shown}
    return {
        "left_out": len(found) - len(shown),
        "columns": [
            {
                "value": value,
                "name": names.get(value, ""),
                "volumes": mark["label_ml"][value],
                "cases": mark["label_cases"][value],
            }
            for value in shown
        ],
        "rows": [
            {
                "case_id": case["case_id"],
                "cells": [
                    {
                        "ml": case["label_ml"].get(value),
                        "share": _share(case["label_ml"].get(value, 0.0), 0, tops[value]),
                    }
                    for value in shown
                ],
            }
            for case in document["cases"]
            if case["label_ml"]
        ],
    }


def _pixels(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the label values of photographs with their part of all pixels."""
    mark = document["fingerprint"]
    counts = mark["label_voxels"] if mark else {}
    total, most = sum(counts.values()), max(counts.values(), default=0)
    ignored = {str(value) for value in document.get("ignored_values", ())}
    return [
        {
            "value": value,
            "name": document["class_names"].get(value, "does not count" * (value in ignored)),
            "percent": 100 * count / total,
            "share": _share(count, 0, most),
            "cases": mark["label_cases"][value],
        }
        for value, count in counts.items()
    ]


def _shown_pairs(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of a large set of photographs, keep those about which there is something to say."""
    pairs: list[Mapping[str, Any]] = document["pairs"]
    if len(pairs) <= _MOST_PICTURES:
        return pairs
    return [pair for pair in pairs if pair["status"] != "ok"]


def _spacings(pairs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Count the images of each spacing and direction, most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for pair in pairs:
        for file in pair["images"][:1]:
            if file["shape"]:
                key = (_by(file["spacing_mm"]), file["orientation"])
                counts[key] = counts.get(key, 0) + 1
    most = max(counts.values(), default=1)
    return [
        {"spacing": spacing, "orientation": way, "count": count, "share": 100 * count / most}
        for (spacing, way), count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def _share(value: float, start: float, end: float) -> float:
    """Return where a value lies between two others, in percent, no further than they."""
    if end <= start:
        return 0.0
    return round(100 * min(1.0, max(0.0, (value - start) / (end - start))), 2)
