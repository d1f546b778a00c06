"""Classes that are known by name: what a data set's label values mean, and which do not count."""

from dataclasses import dataclass

Colour = tuple[int, int, int]


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
