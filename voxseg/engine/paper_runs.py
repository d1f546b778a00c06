"""Rows of the paper's tables that lie in a folder as finished cross-validations.

A row may have been made by hand or on another machine: it is taken as it is where split, seed, data
and version are those of the others, and what is odd about it is said.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxseg.data.case_lists import parse_json
from voxseg.documents import refuse_newer
from voxseg.engine.paper_rows import PARTITIONS, Row, all_rows
from voxseg.errors import DataError
from voxseg.metrics.summary import FOREGROUND, WITH_BACKGROUND
from voxseg.schemas import MANIFEST, METRICS


@dataclass(frozen=True)
class Score:
    """Dice of a class, or a mean over classes, over the cases."""

    name: str
    label: int | None
    mean: float
    deviation: float
    """Over the cases, with n - 1."""


@dataclass(frozen=True, kw_only=True)
class FinishedRow:
    """A finished cross-validation."""

    row: Row
    folder: Path
    scores: tuple[Score, ...]
    updates: int
    """Of each fold; what it started from had its own before."""
    size_mm: float | None
    """Of its supervoxels; None where it has none."""
    version: str
    git_commit: str
    device: str
    cases: int
    notes: tuple[str, ...]

    def score(self, name: str) -> Score | None:
        """The score of a class or mean by its name."""
        return next((score for score in self.scores if score.name == name), None)

    @property
    def foreground(self) -> float:
        """Mean foreground Dice; NaN where it is undefined."""
        found = self.score(FOREGROUND)
        return found.mean if found else math.nan

    @property
    def with_background(self) -> float:
        """Mean Dice over all classes; NaN where it is undefined."""
        found = self.score(WITH_BACKGROUND)
        return found.mean if found else math.nan


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all rows of one table share."""

    split_hash: str
    seed: int
    data: Mapping[str, Mapping[str, str]]
    version: str
    """Of voxseg."""


def find_finished(folder: Path, conditions: Conditions) -> dict[str, FinishedRow]:
    """Read every finished row in a folder.

    Raises:
        DataError: a row was made under other conditions, is not what its name says, or is damaged.
    """
    found = {}
    for row in all_rows():
        manifest = _manifest(folder / row.name)
        if manifest is None:
            continue
        _check(folder / row.name, manifest, conditions)
        if manifest.get("finished") is True:
            found[row.name] = _read(row, folder / row.name, manifest)
    return found


def commit_of_unfinished(folder: Path) -> str | None:
    """Commit that an unfinished row was begun with; None where nothing was begun."""
    manifest = _manifest(folder)
    return None if manifest is None else str(manifest.get("git_commit", ""))


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    content = parse_json(path)
    refuse_newer(content, MANIFEST, path)
    if not isinstance(content, dict) or content.get("kind") != "crossval":
        raise DataError(f"{folder} is no cross-validation; move it out of the way")
    return content


def _check(folder: Path, manifest: Mapping[str, Any], conditions: Conditions) -> None:
    """Refuse what cannot stand in one table with the others."""
    cure = "move it out of the way, results are not mixed"
    if manifest.get("split_hash") != conditions.split_hash:
        raise DataError(f"{folder} has another split than split.json beside it; {cure}")
    if manifest.get("seeds") != [conditions.seed]:
        raise DataError(
            f"{folder} has the seeds {manifest.get('seeds')}, not {conditions.seed}; {cure}"
        )
    if manifest.get("data") != conditions.data:
        raise DataError(f"{folder} was made from other data; {cure}")
    version = manifest.get("versions", {}).get("voxseg")
    if version != conditions.version:
        raise DataError(
            f"{folder} was made with voxseg {version}, and this is {conditions.version}; {cure}"
        )


def _read(row: Row, folder: Path, manifest: Mapping[str, Any]) -> FinishedRow:
    try:
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        metrics = parse_json(folder / "metrics.json")
        refuse_newer(metrics, METRICS, folder / "metrics.json")
        scores = tuple(
            Score(one["class"], one["label"], _number(one["dice_mean"]), _number(one["dice_sd"]))
            for one in metrics["summary"]
        )
        updates, notes = _updates(folder, int(manifest["folds"]))
        _check_kind(row, folder, config)
        notes += _start_notes(row, manifest)
        return FinishedRow(
            row=row,
            folder=folder,
            scores=scores,
            updates=updates,
            size_mm=float(config["supervoxels"]["size_mm"]) if row.partition else None,
            version=str(manifest["versions"]["voxseg"]),
            git_commit=str(manifest["git_commit"]),
            device=str(manifest["device"]["name"]),
            cases=len({one["case"] for one in metrics["cases"]}),
            notes=tuple(notes),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} is damaged ({error!r}); move it out of the way to make it again"
        ) from None


def _check_kind(row: Row, folder: Path, config: Mapping[str, Any]) -> None:
    """Compare what a folder holds with its name."""
    wanted = row.settings({name: one.size_mm for name, one in PARTITIONS.items()})
    for key in ("design", "stages", "width_divisor", "reduce"):
        found, expected = config["model"].get(key), wanted["model"][key]
        if found != expected:
            raise DataError(
                f"{folder} has model.{key} {found}, which its name does not say (it would be "
                f"{expected}); give it its right name"
            )
    if row.partition and config["supervoxels"]["method"] != PARTITIONS[row.partition].method:
        raise DataError(
            f"{folder} has supervoxels by {config['supervoxels']['method']}, which its name does "
            "not say; give it its right name"
        )


def _updates(folder: Path, folds: int) -> tuple[int, list[str]]:
    steps = [parse_json(folder / f"fold-{n}" / "manifest.json")["steps"] for n in range(folds)]
    if len(set(steps)) == 1:
        return int(steps[0]), []
    return min(steps), [f"its folds had {min(steps)} to {max(steps)} updates"]


def _start_notes(row: Row, manifest: Mapping[str, Any]) -> list[str]:
    start = manifest.get("init_from")
    found = Path(start).name if start else ""
    if found == row.starts_from:
        return []
    return [f"it started from {found or 'scratch'}, not from {row.starts_from or 'scratch'}"]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
