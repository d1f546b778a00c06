"""Classes that are known by name: what a data set's label values mean, and which do not count.

Source: the label definitions that Cityscapes, PASCAL VOC, CamVid (in SegNet's form) and GTA-5 are
published with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]

VOID = 255
"""What most benchmarks write into pixels that do not count."""


@dataclass(frozen=True)
class LabelClass:
    """One class that is trained and scored."""

    value: int
    """In the label files."""
    name: str
    colour: Colour
    """Red, green, blue in 0 to 255, as the data set paints it."""
    category: str = ""
    """A coarser class that the benchmark scores besides; "" for none."""
    has_instances: bool = False
    """Whether single objects of the class are told apart (for instance-level IoU)."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of the network's outputs."""

    name: str
    classes: tuple[LabelClass, ...]
    ignore: tuple[int, ...] = ()
    """Values of label files that count neither in training nor in scores."""

    @property
    def values(self) -> tuple[int, ...]:
        """Label values of the classes."""
        return tuple(one.value for one in self.classes)

    @property
    def names(self) -> dict[int, str]:
        """Names by label value."""
        return {one.value: one.name for one in self.classes}

    @property
    def colours(self) -> dict[int, Colour]:
        """Colours by label value."""
        return {one.value: one.colour for one in self.classes}


@dataclass(frozen=True)
class LabelChoice:
    """Which label values are classes, which do not count, and what to tell of it."""

    values: tuple[int, ...]
    """In the order of the network's outputs."""
    ignore: tuple[int, ...]
    sentence: str
    """What was decided; "" where nothing had to be."""


def label_values(found: Sequence[int], label_set: LabelSet | None = None) -> LabelChoice:
    """Decide which values of the masks of photographs are classes.

    With a label set its classes are, whether they occur or not. Without one, all values are, in
    ascending order, but 255: beside 0 alone it is the one foreground class, as drawing programs
    save black-and-white masks; beside others it marks what does not count, as benchmarks do.

    Args:
        found: Values that occur in any mask of the data set.
        label_set: Of the data set, if it is known.

    Returns:
        Values that are neither classes nor ignored (those that a label set lacks) are in neither.
    """
    values = sorted(set(found))
    if label_set is not None:
        ignored = [value for value in label_set.ignore if value in values]
        counts = "value {} does not count" if len(ignored) == 1 else "values {} do not count"
        rest = f"; {counts.format(_listed(ignored))}" if ignored else ""
        words = f"classes: the {len(label_set.classes)} of {label_set.name}{rest}"
        return LabelChoice(label_set.values, label_set.ignore, words)
    if values in ([VOID], [0, VOID]):
        words = f"the masks hold 0 and {VOID} only: {VOID} is taken as the one foreground class"
        return LabelChoice((0, VOID), (), words)
    if VOID in values:
        classes = tuple(value for value in values if value != VOID)
        words = (
            f"the masks hold {VOID} beside {len(classes)} other values: it is taken as unlabelled "
            "and does not count"
        )
        return LabelChoice(classes, (VOID,), words)
    return LabelChoice(tuple(values), (), "")


def spread_colour(value: int) -> Colour:
    """Return the colour that PASCAL VOC's palette gives a value from 0 to 255.

    Bits 0, 3 and 6 of the value are the highest bits of red, 1, 4 and 7 of green, 2 and 5 of blue,
    so that neighbouring values have colours far apart.
    """
    red, green, blue = (
        sum((value >> (3 * place + part) & 1) << (7 - place) for place in range(8))
        for part in range(3)
    )
    return red, green, blue


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


_CITYSCAPES_CLASSES = (
    (7, "road", (128, 64, 128), "flat"),
    (8, "sidewalk", (244, 35, 232), "flat"),
    (11, "building", (70, 70, 70), "construction"),
    (12, "wall", (102, 102, 156), "construction"),
    (13, "fence", (190, 153, 153), "construction"),
    (17, "pole", (153, 153, 153), "object"),
    (19, "traffic light", (250, 170, 30), "object"),
    (20, "traffic sign", (220, 220, 0), "object"),
    (21, "vegetation", (107, 142, 35), "nature"),
    (22, "terrain", (152, 251, 152), "nature"),
    (23, "sky", (70, 130, 180), "sky"),
    (24, "person", (220, 20, 60), "human"),
    (25, "rider", (255, 0, 0), "human"),
    (26, "car", (0, 0, 142), "vehicle"),
    (27, "truck", (0, 0, 70), "vehicle"),
    (28, "bus", (0, 60, 100), "vehicle"),
    (31, "train", (0, 80, 100), "vehicle"),
    (32, "motorcycle", (0, 0, 230), "vehicle"),
    (33, "bicycle", (119, 11, 32), "vehicle"),
)
CITYSCAPES = LabelSet(
    "Cityscapes",
    tuple(
        LabelClass(value, name, colour, category, category in ("human", "vehicle"))
        for value, name, colour, category in _CITYSCAPES_CLASSES
    ),
    # -1 is the licence plate, which files of 8 bits do not hold.
    ignore=(-1, *range(7), 9, 10, 14, 15, 16, 18, 29, 30),
)
"""The 19 classes that the benchmark trains and scores, by label id, in 7 categories."""

GTA5 = LabelSet("GTA-5", CITYSCAPES.classes, (*CITYSCAPES.ignore, 34))
"""Cityscapes' classes; 34 is the licence plate there."""

VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
VOC = LabelSet(
    "PASCAL VOC",
    tuple(LabelClass(value, name, spread_colour(value)) for value, name in enumerate(VOC_NAMES)),
    ignore=(VOID,),
)
"""Background and 20 classes; void (255) lies along the borders of objects."""

CAMVID = LabelSet(
    "CamVid",
    tuple(
        LabelClass(value, name, colour)
        for value, (name, colour) in enumerate(
            (
                ("sky", (128, 128, 128)),
                ("building", (128, 0, 0)),
                ("pole", (192, 192, 128)),
                ("road", (128, 64, 128)),
                ("pavement", (0, 0, 192)),
                ("tree", (128, 128, 0)),
                ("sign", (192, 128, 128)),
                ("fence", (64, 64, 128)),
                ("car", (64, 0, 128)),
                ("pedestrian", (64, 64, 0)),
                ("bicyclist", (0, 128, 192)),
            )
        )
    ),
    ignore=(11,),
)
"""The 11 classes of SegNet; 11 is unlabelled."""
