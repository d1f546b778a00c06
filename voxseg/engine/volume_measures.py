"""What a label table makes of the volumes of its classes: sums, left against right, shares."""

from collections.abc import Mapping
from dataclasses import dataclass

from voxseg.engine.outcomes import MeasureKind, Unit
from voxseg.export.labels import Label, LabelTable, Side
from voxseg.metrics.volumes import FROM_ZERO, asymmetry_percent, share_percent

INTRACRANIAL = "intracranial estimate (labelled tissue)"
_BOUNDS: dict[str, tuple[float, float]] = {
    "difference": (-float("inf"), float("inf")),
    "asymmetry": (-200.0, 200.0),
    "fraction": (0.0, 100.0),
}


@dataclass(frozen=True)
class Measure:
    """One figure of the volumes of a case."""

    kind: MeasureKind
    name: str
    labels: tuple[int, ...]
    """Classes that are added up; of a difference those on the left."""
    others: tuple[int, ...] = ()
    """Of a difference those on the right, of a share the whole."""

    @property
    def unit(self) -> Unit:
        """Of its value."""
        return "%" if self.kind in ("asymmetry", "fraction") else "ml"

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and most that it can be."""
        return _BOUNDS.get(self.kind, FROM_ZERO)

    @property
    def is_signed(self) -> bool:
        """Whether it may be below 0, so that an error in % of it means nothing."""
        return self.bounds[0] < 0

    def value(self, ml: Mapping[int, float]) -> float:
        """Give it for volumes in ml by class; a class that is not there has 0. NaN: undefined."""
        first, second = (sum(ml.get(k, 0.0) for k in ks) for ks in (self.labels, self.others))
        if self.kind == "difference":
            return first - second
        if self.kind == "asymmetry":
            return asymmetry_percent(first, second)
        if self.kind == "fraction":
            return share_percent(first, second)
        return first


def measures_of(table: LabelTable) -> tuple[Measure, ...]:
    """List what is measured beside single classes, in the order of the table.

    Of each structure with several classes their sum; where it has both sides also each side of
    several classes, left minus right, and the asymmetry. Of a table with intracranial classes
    their sum, and of several each one's share.
    """
    groups: dict[str, list[Label]] = {}
    for label in table:
        if label.structure:
            groups.setdefault(label.structure, []).append(label)
    found = [one for name, labels in groups.items() for one in _structure(name, labels)]
    inside = [label for label in table if label.is_intracranial]
    whole = tuple(label.value for label in inside)
    if whole:
        found.append(Measure("intracranial", INTRACRANIAL, whole))
    if len(inside) > 1:
        found += [
            Measure("fraction", f"{label.name}, share of intracranial", (label.value,), whole)
            for label in inside
        ]  # fmt: skip
    return tuple(found)


def _structure(name: str, labels: list[Label]) -> list[Measure]:
    if len(labels) < 2:
        return []
    sides: dict[Side, tuple[int, ...]] = {
        side: tuple(one.value for one in labels if one.side == side)
        for side in ("left", "right")
    }  # fmt: skip
    found = []
    if all(sides.values()):
        found += [
            Measure("structure", f"{side} {name}", values)
            for side, values in sides.items()
            if len(values) > 1
        ]
    found.append(Measure("structure", name, tuple(one.value for one in labels)))
    if all(sides.values()):
        pair = sides["left"], sides["right"]
        found.append(Measure("difference", f"{name}, left minus right", *pair))
        found.append(Measure("asymmetry", f"{name}, asymmetry", *pair))
    return found
