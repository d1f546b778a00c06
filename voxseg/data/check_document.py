"""What a check found as plain values: what ``voxseg check --json`` prints and the page is made of.

The form, schema 1. Values may be added under new names; a change of meaning raises ``schema``.

- ``schema`` 1, ``voxseg`` version, ``data`` path, ``layout`` in words, ``notes`` sentences about
  the pairing, ``class_names`` {label value: name}, ``num_unlabelled`` images set apart.
- ``errors``, ``warnings``: how many findings; ``errors`` above 0 is exit code 3.
- ``pairs``: a row for each case: ``case_id``, ``status`` (ok, warning, error, no label),
  ``images`` [file], ``label`` file or null. A file has ``path``, ``shape`` and ``spacing_mm`` in
  the order it is stored, ``orientation`` (RAS: axes run right, front, up), ``handedness`` (left,
  right), ``form`` (sform, qform, none: where the affine is from), ``dtype``, ``scaling`` [slope,
  intercept] or null. All but the path are empty where the header cannot be read.
- ``findings``: ``severity`` (error, warning, note), ``kind`` (a fixed word), ``case_id`` ("" for
  the whole set), ``path`` or null, ``cause``, ``cure``, ``fix`` ("safe": ``--fix`` mends it,
  "value": with ``--fix-nan``, "" otherwise).
- ``cases``: for each readable case ``shape`` and ``spacing`` (mm) in RAS+ order, ``voxel_ml``,
  ``percentiles`` (0.5, 50, 99.5 of nonzero voxels, by channel), ``labelled_percentiles`` (of
  voxels whose label is not 0), ``foreground_share``, ``foreground_ml``, ``foreground_shape``,
  ``label_voxels`` and ``label_ml`` {label value: number}.
- ``fingerprint``: the same over the set, as ``Fingerprint`` says; ``label_ml`` is [mean, smallest,
  largest]. Null if no case could be read.
- ``fix``: null, or ``folder``, ``cases`` (``case_id``, ``outcome`` (fixed, copied, left out),
  ``files``, ``changes``, ``remaining`` sentences), ``errors`` and ``warnings`` of the copies.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxseg import __version__
from voxseg.data.cases import Dataset
from voxseg.data.check import CheckReport, FileFacts
from voxseg.data.check_findings import FIXABLE, FIXABLE_WITH_VALUE, Finding

SCHEMA = 1


def check_document(data: Path, dataset: Dataset, report: CheckReport) -> dict[str, Any]:
    """Return what was found as values that JSON can hold; ``fix`` is null.

    Args:
        data: What was checked.
        dataset: As it was found there.
        report: Of its check.
    """
    return {
        "schema": SCHEMA,
        "voxseg": __version__,
        "data": str(data),
        "layout": dataset.layout,
        "notes": list(dataset.notes),
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
            }
            for pair in report.pairs
        ],
        "findings": [_finding(finding) for finding in report.findings],
        "cases": [_plain({**asdict(one), "label_ml": one.label_ml}) for one in report.cases],
        "fingerprint": _plain(asdict(report.fingerprint)) if report.fingerprint else None,
        "fix": None,
    }


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
