"""What a check found as plain values: what ``voxseg check --json`` prints and the page is made of.

``voxseg/schemas/check.schema.json`` describes every field; ``voxseg schemas check`` prints it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxseg.data.cases import Dataset
from voxseg.data.check import CheckReport, FileFacts
from voxseg.data.check_findings import FIXABLE, FIXABLE_WITH_VALUE, Finding
from voxseg.documents import document
from voxseg.schemas import CHECK


def check_document(data: Path, dataset: Dataset, report: CheckReport) -> dict[str, Any]:
    """Return what was found as values that JSON can hold; ``fix`` is null.

    Args:
        data: What was checked.
        dataset: As it was found there.
        report: Of its check.
    """
    content = {
        "data": str(data),
        "layout": dataset.layout,
        "kind": "photographs" if dataset.is_images else "volumes",
        "notes": list(dataset.notes),
        "ignored_values": [] if dataset.label_set is None else list(dataset.label_set.ignore),
        "class_names": {str(value): name for value, name in dataset.class_names.items()},
        "num_unlabelled": len(dataset.unlabelled),
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "pairs": [
            {
                "case_id": pair.case_id,
                "status": report.status(pair),
                "images": [_file(facts) for facts in pair.images],
                "label": _file(pair.label) if pair.label else None,
                "category": pair.category,
            }
            for pair in report.pairs
        ],
        "findings": [_finding(finding) for finding in report.findings],
        "cases": [_plain({**asdict(one), "label_ml": one.label_ml}) for one in report.cases],
        "fingerprint": _plain(asdict(report.fingerprint)) if report.fingerprint else None,
        "fix": None,
    }
    return document(CHECK, content)


def _finding(finding: Finding) -> dict[str, Any]:
    kinds = (("safe", FIXABLE), ("value", FIXABLE_WITH_VALUE))
    fix = next((word for word, known in kinds if finding.kind in known), "")
    path = str(finding.path) if finding.path else None
    return {**asdict(finding), "path": path, "fix": fix}


def _file(facts: FileFacts) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(asdict(facts))
    plain["spacing_mm"] = plain.pop("spacing")
    return {**plain, "path": str(facts.path)}


def _plain(content: Any) -> Any:
    """Turn tuples into lists and label values into the strings that JSON has for keys."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content
