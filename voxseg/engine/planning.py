"""Fill in what the user left open from what the data set is."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from voxseg.data.check import CheckReport, Fingerprint
from voxseg.data.label_sets import label_values
from voxseg.data.layouts import Dataset
from voxseg.engine.config import Config, build, merge
from voxseg.engine.labels import check_facts, table_settings
from voxseg.engine.task_settings import check_augmentation, task_labels, with_task
from voxseg.errors import DataError, UsageError

_SPACING_SPREAD = 1.1  # volumes whose voxels differ by more than a tenth are brought to one size
_LARGEST_PATCH = 64
_LARGEST_SLICE = 160
_LARGEST_CROP = 512
_PIXELS = 2000  # of a patch, that PixelNet is trained on: those of its paper
_SUPERPIXELS = 1000  # of a photograph, one of the counts that the superpixel paper tried
_SUPERVOXEL_EDGE = 5.0  # voxels: about 125 voxels a supervoxel keeps oracle Dice near 0.9 on brains


def complete(
    settings: dict[str, Any],
    dataset: Dataset,
    report: CheckReport,
    *,
    planned: bool,
    say: Callable[[str], None],
) -> Config:
    """Resolve ``settings`` for a data set.

    Label values come from the training labels unless given. With ``planned``, spacing, patch and
    supervoxel size come from the fingerprint where ``settings`` is silent, and are announced.
    """
    fingerprint = report.fingerprint
    if fingerprint is None:
        raise DataError("no case of the data set could be read; check the folder")
    settings = with_task(settings, dataset)
    plan = _plan_images if dataset.is_images else _plan
    tables = merge(plan(fingerprint, settings, say), settings) if planned else dict(settings)
    if planned and build(settings).model.network == "pixelnet":
        tables = merge({"train": {"pixels": _PIXELS}}, tables)
    tables = _with_plane(tables, dataset)
    config = build(tables)
    check_augmentation(config)
    if config.task.kind != "segmentation":
        return build(merge(tables, {"labels": task_labels(config, dataset)}))
    found = fingerprint.label_values
    if not config.labels.values:
        tables = merge(tables, {"labels": _labels(found, dataset, config.labels.ignore, say)})
        config = build(tables)
    unknown = sorted(set(found) - set(config.labels.values) - set(config.labels.ignore))
    if unknown:
        raise DataError(
            f"the label files hold values {unknown} that labels.values "
            f"{list(config.labels.values)} does not list; add them, or correct the files"
        )
    found_in_table = table_settings(config.labels, dataset, say)
    if found_in_table:
        tables = merge(tables, {"labels": found_in_table})
        config = build(tables)
    check_facts(config.labels)
    if not config.labels.names:
        names = [_name(v, dataset) for v in config.labels.values]
        tables = merge(tables, {"labels": {"names": names}})
        config = build(tables)
    if not config.labels.colours and dataset.label_set is not None:
        known = dataset.label_set.colours
        colours = [known.get(value, (0, 0, 0)) for value in config.labels.values]
        written = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours]
        config = build(merge(tables, {"labels": {"colours": written}}))
    if len(config.labels.names) != len(config.labels.values):
        raise UsageError(
            f"labels.names has {len(config.labels.names)} entries for "
            f"{len(config.labels.values)} labels.values; give one for each"
        )
    return config


def _labels(
    found: Sequence[int],
    dataset: Dataset,
    ignore: Sequence[int],
    say: Callable[[str], None],
) -> dict[str, list[int]]:
    """Choose classes and ignored values from what the label files hold."""
    if not dataset.is_images:
        values = tuple(value for value in found if value not in ignore)
        left_out = tuple(ignore)
    else:
        choice = label_values(found, dataset.label_set)
        values = tuple(value for value in choice.values if value not in ignore)
        left_out = tuple(ignore) or choice.ignore
        if choice.sentence:
            say(choice.sentence)
    if len(values) < 2:
        raise DataError(
            f"the labels hold only the value {values[0] if values else '(none)'}: there is "
            "nothing to tell apart; check the label files"
        )
    if not dataset.is_images:
        values = (0, *(value for value in values if value != 0))
    return {"values": list(values), "ignore": list(left_out)}


def _with_plane(tables: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Photographs are axial slices; volumes are cut for a network that sees slices alone."""
    config = build(tables)
    data = config.data
    if not dataset.is_images:
        if config.model.is_planar and data.plane == "none":
            raise UsageError(
                f"model.network {config.model.network} sees slices: say which with --plane axial, "
                "coronal, sagittal or all"
            )
        return tables
    if data.plane not in ("none", "axial") or data.neighbours:
        raise UsageError(
            "photographs have one plane and no neighbours; leave out --plane and data.neighbours"
        )
    return merge(tables, {"data": {"plane": "axial"}})


def _plan_images(
    fingerprint: Fingerprint, settings: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    height, width = fingerprint.median_shape[:2]
    crop = [int(min(_LARGEST_CROP, 32 * math.ceil(n / 32))) for n in (height, width)]
    plan: dict[str, dict[str, Any]] = {
        "data": {"normalise": "imagenet"},
        "model": {"network": "enet"},
        "supervoxels": {"method": "slic", "count": _SUPERPIXELS},
        "train": {
            "patch_voxels": crop,
            "batch_size": 8,
            "class_share": 0.0,
            "loss": "ce",
            "class_weights": "enet",
            "select": "iou",
        },
        "augment": {"flip_axes": [1], "resize": [0.5, 2.0], "affine_probability": 0.0},
    }
    if settings["task"]["kind"] != "segmentation":
        del plan["supervoxels"]
        kind = settings["task"]["kind"]
        plan["model"]["network"] = "sunet" if kind == "classification" else "enet"
        if settings.get("model", {}).get("network", plan["model"]["network"]) == "enet":
            plan["model"]["design"] = "V0"
        if kind == "classification":
            plan["augment"] = {"flip_axes": [1]}
        for name in ("loss", "class_weights", "select", "class_share"):
            del plan["train"][name]
    regions = f"about {_SUPERPIXELS} SLIC superpixels"
    chosen = merge(plan, settings)
    crop = list(build(chosen).train.patch_voxels)
    say(_chosen(chosen, regions, f"crops of {_by(crop)} pixels"))
    return plan


def _name(value: int, dataset: Dataset) -> str:
    if value in dataset.class_names:
        return dataset.class_names[value]
    return "background" if value == 0 else f"class {value}"


def _plan(
    fingerprint: Fingerprint, settings: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    middle = np.asarray(fingerprint.median_spacing)
    spread = np.asarray(fingerprint.max_spacing) / np.asarray(fingerprint.min_spacing)
    uneven = bool((spread > _SPACING_SPREAD).any())
    edge = round(float(_SUPERVOXEL_EDGE * np.prod(middle) ** (1 / len(middle))), 2)
    # A patch of slices that fits every plane, for one network may see all three.
    is_sliced = build(settings).data.plane != "none"
    shape = [min(fingerprint.median_shape)] * 2 if is_sliced else fingerprint.median_shape
    largest = _LARGEST_SLICE if is_sliced else _LARGEST_PATCH
    patch = [int(min(largest, 8 * math.ceil(n / 8))) for n in shape]
    spacing = [round(float(s), 3) for s in middle] if uneven else []
    plan = {
        "data": {"spacing_mm": spacing},
        "model": {"design": "V3"},
        "supervoxels": {"method": "slic", "size_mm": edge},
        "train": {"patch_voxels": patch},
    }
    resampled = f"resampled to {_by(spacing)} mm" if uneven else "each at its own spacing"
    cut = f"patches of {_by(patch)} voxels, volumes {resampled}"
    say(_chosen(merge(plan, settings), f"SLIC supervoxels of {edge:g} mm", cut))
    return plan


def _chosen(tables: dict[str, Any], regions: str, cut: str) -> str:
    """Say what was chosen, and which network it is for."""
    model = build(tables).model
    name = {"voxresnet": "VoxResNet", "enet": "ENet"}.get(model.network, model.network)
    if model.network == "voxresnet" and (model.stages, model.width_divisor) == (1, 8):
        name = f"Reduced (/8) {name}"
    pooled = f" {model.design}, {regions}" if model.pools else ""
    return f"no recipe named; chosen from the data: {name}{pooled}, {cut}"


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
