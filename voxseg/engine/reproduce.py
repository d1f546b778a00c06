"""Run again what a manifest describes, and hold the metrics of both against each other.

The settings and the split are those beside the manifest; the data must be the same to the byte.
What may still differ (versions, device, a time budget) is said first.
"""

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxseg.data.layouts import find_cases
from voxseg.documents import document, refuse_newer
from voxseg.engine.crossval import crossval
from voxseg.engine.dealing import Dealing
from voxseg.engine.device import choose_device
from voxseg.engine.folds import Effort
from voxseg.engine.manifest import data_hashes, describe_device, git_commit, versions
from voxseg.engine.progress import Progress
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import DataError, UsageError
from voxseg.schemas import MANIFEST, METRICS, REPRODUCE, TRAIN_METRICS

_KINDS = ("train", "crossval")


@dataclass(frozen=True)
class Difference:
    """One figure of ``metrics.json`` in both runs; None where a run has no such figure."""

    name: str
    earlier: float | None
    now: float | None

    @property
    def size(self) -> float:
        """Absolute difference; infinite where one of them is missing."""
        if self.earlier is None or self.now is None:
            return 0.0 if self.earlier is self.now else math.inf
        return abs(self.earlier - self.now)


@dataclass(frozen=True)
class Reproduction:
    """What came out of it."""

    figures: int
    """How many were compared."""
    differences: tuple[Difference, ...]
    """Those that differ at all, the largest first."""
    notes: tuple[str, ...]
    """Why figures may differ, a sentence each."""

    def is_within(self, tolerance: float) -> bool:
        """Whether no figure differs by more than this."""
        return all(difference.size <= tolerance for difference in self.differences)

    def to_json(self, tolerance: float) -> dict[str, Any]:
        """Everything as plain values, judged by a tolerance."""
        content = {
            "reproduced": self.is_within(tolerance),
            "tolerance": tolerance,
            "figures": self.figures,
            "differences": [vars(difference) for difference in self.differences],
            "notes": list(self.notes),
        }
        return document(REPRODUCE, content)


def reproduce(
    manifest: Path,
    output: Path,
    *,
    data: Path | None = None,
    device: str | None = None,
    notify: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Repeat a training or a cross-validation.

    Args:
        manifest: ``manifest.json`` of a run, or the run's folder.
        output: the new run's folder; must be new or empty.
        data: where the data lie now; the manifest's folder when None.
        device: the manifest's kind of device when None.
        notify: called after each training step.
        say: called with one sentence for what is worth a line.

    Raises:
        UsageError: no manifest, one of something else, or an output in use.
        DataError: a file of the data is missing or is not what it was.
    """
    path = manifest / "manifest.json" if manifest.is_dir() else manifest
    content = _read(path)
    run = path.parent
    folder = data or Path(content["data_folder"])
    labels = Path(content["label_folder"]) if content.get("label_folder") and not data else None
    _check_data(content["data"], folder, labels)
    device = device or str(content.get("device", {}).get("type", "auto"))
    settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    notes = tuple(_notes(content, settings, device))
    for note in notes:
        say(f"note: {note}")
    init_from = content.get("init_from")
    request = TrainRequest(
        data=folder,
        run=output,
        labels=labels,
        settings=settings,
        split=run / "split.json",
        init_from=Path(init_from) if init_from else None,
        device=device,
    )
    if content["kind"] == "train":
        train(request, notify, say)
    else:
        seeds = len(content.get("seeds", [0]))
        crossval(
            request,
            Dealing(),
            notify,
            say,
            effort=Effort(jobs=content.get("jobs", 0)),
            seeds=seeds,
            postprocess=content.get("postprocess", False),
        )
    return compare_metrics(run / "metrics.json", output / "metrics.json", notes)


def compare_metrics(earlier: Path, now: Path, notes: tuple[str, ...] = ()) -> Reproduction:
    """Hold every number of two ``metrics.json`` against each other."""
    before, after = (dict(_figures(_read_json(path))) for path in (earlier, now))
    names = list(dict.fromkeys([*before, *after]))
    found = [Difference(name, before.get(name), after.get(name)) for name in names]
    differing = [difference for difference in found if difference.size > 0]
    return Reproduction(
        len(names), tuple(sorted(differing, key=lambda d: (-d.size, d.name))), notes
    )


def _read(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict) or content.get("kind") not in _KINDS:
        raise UsageError(f"{path} is no manifest of a training or a cross-validation")
    if "data_folder" not in content:
        raise UsageError(
            f"{path} does not say where its data lay; it was written by a version before"
        )
    if not content.get("finished"):
        raise UsageError(f"the run of {path} was not finished; finish it with --resume first")
    missing = [n for n in ("config.toml", "split.json") if not (path.parent / n).is_file()]
    if missing:
        raise UsageError(f"{missing[0]} is missing beside {path}; a run's folder belongs together")
    return content


def _read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a run's folder") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    for form in (MANIFEST, METRICS, TRAIN_METRICS):
        refuse_newer(content, form, path)
    return content


def _check_data(hashes: Mapping[str, Mapping[str, str]], folder: Path, labels: Path | None) -> None:
    cases = [case for case in find_cases(folder, labels).cases if case.case_id in hashes]
    found = data_hashes(cases)
    for case, files in hashes.items():
        for name, content in files.items():
            now = found.get(case, {}).get(name)
            if now is None:
                raise DataError(f"{folder} lacks {name} of the case {case}; use --data")
            if now != content:
                raise DataError(
                    f"{name} of the case {case} in {folder} is not what it was when the run was "
                    "made; restore it, or train anew"
                )


def _notes(content: Mapping[str, Any], settings: Mapping[str, Any], device: str) -> Iterator[str]:
    now = versions()
    for name, version in content.get("versions", {}).items():
        if now.get(name) != version:
            yield f"{name} was {version} and is {now.get(name, 'missing')}"
    commit = git_commit()
    if content.get("git_commit") and content["git_commit"] != commit:
        yield f"voxseg was at commit {content['git_commit'][:12]} and is at {commit[:12] or 'none'}"
    earlier = content.get("device")
    if earlier and earlier != describe_device(choose_device(device)):
        yield f"the device was {earlier} and is {describe_device(choose_device(device))}"
    processes = content.get("processes", 1)
    if processes != 1:
        yield (
            f"the run was made by {processes} processes and is repeated by one: figures may differ "
            "in their last digits"
        )
    minutes = settings.get("train", {}).get("max_minutes", 0)
    if minutes:
        yield (
            f"the run had a budget of {minutes:g} minutes: how many steps fit into it, and with "
            "them all figures, depend on how busy the machine is"
        )


def _figures(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Go through the numbers of nested JSON values, with names like ``summary.0.dice_mean``."""
    if isinstance(content, bool) or content is None or isinstance(content, str):
        return
    if isinstance(content, int | float):
        yield name, float(content)
        return
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield from _figures(value, f"{name}.{key}" if name else str(key))
