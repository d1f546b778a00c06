"""What a report says about the run itself, and about predictions that no truth judges."""

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxseg.data.reading import read_label
from voxseg.engine.evaluate import BACKGROUND
from voxseg.engine.outcomes import UNKNOWN, Measured, Uncertainty
from voxseg.engine.report_sources import ReportSource
from voxseg.engine.volume_words import uncertainty_from_json
from voxseg.errors import VoxsegError
from voxseg.metrics.summary import class_name

TITLES = {"crossval": "Cross-validation", "evaluate": "Evaluation", "predict": "Prediction"}
_OPTIONS = {"tta": "Averaged over flips", "low_memory": "Small windows"}
_KEPT = "kept as it was"


@dataclass(frozen=True)
class ClassVolume:
    """How large one class of one prediction is."""

    label: int
    name: str
    ml: float
    uncertainty: Uncertainty = UNKNOWN
    soft_ml: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One row of ``predict.json``, with volumes for masks that were kept as well."""

    case_id: str
    error: str
    seconds: float
    memory: str
    volumes: tuple[ClassVolume, ...]
    measures: tuple[Measured, ...] = ()
    note: str = ""
    """What the label table says beside volumes."""


def subtitle(source: ReportSource) -> str:
    """Say in a sentence what was done."""
    manifest = source.manifest
    if source.kind == "crossval":
        return (
            f"{len(source.folds)} folds, {len(source.files)} cases of "
            f"{manifest.get('data_folder', 'an unknown place')}. Each case was predicted by a "
            "network that had not seen it."
        )
    what = "Masks" if source.task == "segmentation" else "Predictions"
    if source.kind == "evaluate":
        return (
            f"{what} of {manifest.get('prediction', source.place)} against those of "
            f"{manifest.get('truth', 'an unknown place')}."
        )
    return f"{what} by {manifest.get('checkpoint', 'an unknown checkpoint')}. No truth was given."


def run_facts(source: ReportSource) -> dict[str, str]:
    """Name the network, the device and the versions, as far as they are known."""
    manifest = source.manifest
    found = dict(_settings_facts(source.settings))
    networks = manifest.get("networks", [])
    if networks:
        found["Networks"] = f"{len(networks)}" + (", averaged" if len(networks) > 1 else "")
        trained = {str(one["written"]) for one in networks if "written" in one}
        found["Trained"] = ", ".join(sorted(trained)) or "unknown"
        found["Checkpoint, SHA-256"] = ", ".join(str(one["sha256"])[:12] for one in networks)
    for name, value in manifest.get("options", {}).items():
        if value not in (False, None, ""):
            found[_OPTIONS.get(name, name)] = "yes" if value is True else str(value)
    device = manifest.get("device")
    if isinstance(device, Mapping):
        found["Device"] = ", ".join(f"{key} {value}" for key, value in device.items())
    if source.outcomes:
        seconds = math.fsum(float(row.get("seconds", 0)) for row in source.outcomes)
        found["Time"] = f"{seconds:.1f} s for {len(source.outcomes)} cases"
        done = {str(row.get("postprocessing") or "") for row in source.outcomes} - {""}
        found["Post-processing"] = "; ".join(sorted(done)) or "none"
    versions = manifest.get("versions", {})
    if versions:
        found["Versions"] = ", ".join(f"{key} {value}" for key, value in versions.items())
    for key, title in (
        ("git_commit", "Commit"), ("split_hash", "Split, SHA-256"), ("written", "Finished"),
    ):  # fmt: skip
        if manifest.get(key):
            found[title] = str(manifest[key])
    return found


def folded(source: ReportSource) -> dict[str, str]:
    """Give the manifest and the settings in full."""
    found = {}
    if source.manifest:
        found["Manifest"] = json.dumps(source.manifest, indent=2)
    if source.settings:
        found["Settings (config.toml)"] = source.settings
    return found


def measured(row: Mapping[str, Any], source: ReportSource) -> Outcome:
    """Read one row; measure the mask if ``predict`` did not, because it was there before."""
    case_id = str(row["case_id"])
    error = str(row.get("error", ""))
    volumes = tuple(
        ClassVolume(
            int(v["label"]),
            str(v["name"]),
            float(v["ml"]),
            uncertainty_from_json(v),
            v.get("soft_ml"),
        )
        for v in row.get("volumes", ())
    )
    measures = tuple(
        Measured(
            m["kind"], m["name"], m["unit"], tuple(m["labels"]), m["value"],
            uncertainty_from_json(m),
        )
        for m in row.get("measures", ())
    )  # fmt: skip
    known = source.files.get(case_id)
    if not volumes and not error and known and known.prediction and known.prediction.is_file():
        try:
            mask = read_label(known.prediction)
        except VoxsegError as broken:
            error = str(broken)
        else:
            voxel = math.prod(mask.spacing) / 1000
            values, counts = np.unique(mask.array, return_counts=True)
            found = dict(zip(values.tolist(), counts.tolist(), strict=True))
            labels = sorted({*source.label_names, *found} - {BACKGROUND})
            volumes = tuple(
                ClassVolume(k, class_name(k, source.label_names), found.get(k, 0) * voxel)
                for k in labels
            )
    memory = str(row.get("memory", ""))
    note = str(row.get("volume_note", ""))
    seconds = float(row.get("seconds", 0))
    return Outcome(case_id, error, seconds, memory, volumes, measures, note)


def names_of(outcomes: Iterable[Outcome], source: ReportSource) -> dict[int, str]:
    """Class names, background included."""
    found = {volume.label: volume.name for one in outcomes for volume in one.volumes}
    return {BACKGROUND: "background", **source.label_names, **found}


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """Say which cases failed, and which masks were there before."""
    outcomes = list(outcomes)
    found = [f"{one.case_id} failed: {one.error}" for one in outcomes if one.error]
    kept = [one.case_id for one in outcomes if one.memory == _KEPT and not one.error]
    if kept:
        what = "1 mask was" if len(kept) == 1 else f"{len(kept)} masks were"
        found.append(f"{what} there before and kept: {', '.join(kept[:5])}")
    return found


def absent_classes(outcomes: Iterable[Outcome]) -> list[str]:
    """Say which classes were not found in which cases."""
    absent: dict[str, list[str]] = {}
    for one in outcomes:
        for volume in one.volumes:
            if volume.ml == 0:
                absent.setdefault(volume.name, []).append(one.case_id)
    return [
        f"{name} is not found in {len(cases)} of the cases: {', '.join(cases[:5])}"
        for name, cases in absent.items()
    ]


def _settings_facts(settings: str) -> dict[str, str]:
    """Say in two lines what was trained, and how."""
    try:
        content = tomllib.loads(settings)
    except tomllib.TOMLDecodeError:
        return {}  # it is folded away as it is
    found = {}
    for section, title in (("model", "Network"), ("train", "Training")):
        table = content.get(section, {})
        shown = [f"{key} {value}" for key, value in table.items() if value not in ("", [], {})]
        if shown:
            found[title] = ", ".join(shown)
    if content.get("predict", {}).get("tta"):
        found[_OPTIONS["tta"]] = "yes"
    return found
