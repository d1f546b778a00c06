"""A small street in photographs, as a benchmark keeps it: classes, objects, pixels left out."""

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.label_sets import LabelClass, LabelSet
from voxseg.export.images import write_label_png

SHAPE = (24, 32)
VOID = 3
STREETS = LabelSet(
    "cityscapes of these tests",
    (
        LabelClass(7, "road", (128, 64, 128), "flat"),
        LabelClass(11, "building", (70, 70, 70), "construction"),
        LabelClass(24, "person", (220, 20, 60), "human", has_instances=True),
        LabelClass(26, "car", (0, 0, 142), "vehicle", has_instances=True),
    ),
    ignore=(VOID, 4),
)


def street(number):
    """Truth and objects of one photograph."""
    instances = np.full(SHAPE, 11)
    instances[14:] = 7
    instances[10:16, 3 + number : 6 + number] = 24000
    instances[12:20, 14:28] = 26000
    instances[13:17, 8:12] = 26001
    instances[20:, :6] = VOID
    return np.where(instances >= 1000, instances // 1000, instances), instances


def photograph(truth):
    """Colours by class."""
    colours = {**STREETS.colours, VOID: (0, 0, 0)}
    return np.array([colours[value] for value in truth.ravel()], np.uint8).reshape(*SHAPE, 3)


def write_streets(folder, shifts):
    """Photographs, truths and objects by case; predictions that are so many pixels off."""
    from PIL import Image

    cases = []
    for number, (case, shift) in enumerate(shifts.items()):
        truth, instances = street(number)
        places = {part: folder / part / f"{case}.png" for part in ("image", "truth", "objects")}
        places["image"].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(truth)).save(places["image"])
        write_label_png(places["truth"], truth)
        write_label_png(places["objects"], instances)
        write_label_png(folder / "pred" / f"{case}.png", np.roll(truth, shift, axis=1))
        cases.append(Case(case, (places["image"],), places["truth"], places["objects"]))
    return Dataset("streets", tuple(cases), STREETS.names, label_set=STREETS)
