"""What a configuration says of its task, and what it leaves to the data set."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from voxseg.data.augment_settings import AugmentSettings
from voxseg.data.cases import Dataset, TaskKind
from voxseg.data.grid import IGNORED
from voxseg.engine.config import Config, LabelConfig, TrainConfig, build, merge
from voxseg.errors import UsageError

BOUNDARY_NAMES = ("no boundary", "boundary")

_ABOUT: dict[TaskKind, str] = {
    "segmentation": "classes of pixels or voxels",
    "boundaries": "boundaries",
    "normals": "surface normals",
    "classification": "classes of whole photographs",
}
_OF_CROPS, _OF_BOTH = ("crop_area", "jitter", "lighting"), ("flip_axes",)
_OF_SEGMENTATION = ("loss", "class_weights", "select")


def with_task(settings: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Take the task from what the labels are about, unless ``settings`` name it.

    Raises:
        UsageError: they name another one.
    """
    wanted = build(settings).task.kind if "kind" in settings.get("task", {}) else dataset.task
    if wanted != dataset.task:
        raise UsageError(
            f"task.kind is {wanted}, but the labels of the data set ({dataset.layout}) are "
            f"{_ABOUT[dataset.task]}; choose another recipe, or set task.kind={dataset.task}"
        )
    return merge(settings, {"task": {"kind": wanted}})


def check_augmentation(config: Config) -> None:
    """Refuse settings of patches for whole photographs, and the other way round.

    Raises:
        UsageError: the first of them.
    """
    is_whole = config.task.kind == "classification"
    fresh = AugmentSettings()
    for field in dataclasses.fields(fresh):
        is_given = getattr(config.augment, field.name) != getattr(fresh, field.name)
        if is_given and field.name not in _OF_BOTH and (field.name in _OF_CROPS) != is_whole:
            other = "classification" if field.name in _OF_CROPS else "other tasks than that"
            raise UsageError(
                f"augment.{field.name} is about {other}, and the task is {config.task.kind}"
            )


def task_labels(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Name the answers of a network of another task than segmentation, as ``LabelConfig``.

    Raises:
        UsageError: a setting is about segmentation alone.
    """
    kind = config.task.kind
    for name in _OF_SEGMENTATION:
        if getattr(config.train, name) != getattr(TrainConfig(), name):
            raise UsageError(f"train.{name} is about segmentation, and the task is {kind}")
    if config.labels != LabelConfig() and kind != "classification":
        raise UsageError(f"the section labels is about segmentation, and the task is {kind}")
    if config.data.plane != "axial" or not dataset.is_images:
        raise UsageError(f"the task {kind} is for photographs, and the data set holds volumes")
    if kind == "boundaries":
        return {"values": [0, 1], "names": list(BOUNDARY_NAMES), "ignore": [IGNORED]}
    if kind == "normals":
        return {}
    if config.model.network != "sunet":
        raise UsageError(
            f"model.network {config.model.network} does not classify whole photographs; choose "
            "sunet"
        )
    names = sorted({case.category for case in dataset.cases if case.category})
    given = list(config.labels.names)
    if given and not set(names) <= set(given):
        unknown = ", ".join(sorted(set(names) - set(given))[:3])
        raise UsageError(f"labels.names lacks the classes {unknown}; add them, or leave it out")
    names = given or names
    if len(names) < 2:
        raise UsageError("there is but one class, so there is nothing to tell apart; add another")
    return {"values": list(range(len(names))), "names": names}
