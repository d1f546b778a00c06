"""What the classes of a mask are: names, colours, and codes that other programs understand.

Source: a code is a triplet of DICOM (PS3.3, section 8): who defines it, its value, its meaning.
What a segment is takes the five that DICOM Segmentation and 3D Slicer ask for: category, type with
modifier, anatomic region with modifier. A code is the table's to give; none is guessed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from voxseg.errors import DataError

Colour = tuple[int, int, int]
"""Red, green, blue in 0 to 255."""
Side = Literal["", "left", "right"]
Tissue = Literal["", "csf", "grey_matter", "white_matter"]

HIGHEST_VALUE = 65535  # two bytes, as masks of other programs have
_SIDES = {"7771000": "left", "24028007": "right"}  # SNOMED CT's qualifiers
_SPACE = re.compile(r"\s+")
_FORBIDDEN = str.maketrans({"~": "-", "^": "-", "|": "/", "\\": "/", '"': "'"})

_PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
)
_SHADES = (1.0, 0.6, 0.8, 0.4)  # past the palette, the same hues darker


def class_colours(labels: Iterable[int]) -> dict[int, Colour]:
    """Give every class above 0 a colour, by its rank among them.

    Seven colours are safe for colour-blind readers (Okabe and Ito, *Color universal design*, 2008);
    from the eighth class on, hues come again in darker shades, and from the twenty-ninth the same
    colours.
    """
    colours: dict[int, Colour] = {}
    for rank, label in enumerate(sorted({label for label in labels if label > 0})):
        turn, place = divmod(rank, len(_PALETTE))
        shade = _SHADES[turn % len(_SHADES)]
        red, green, blue = (round(shade * part) for part in _PALETTE[place])
        colours[label] = (red, green, blue)
    return colours


@dataclass(frozen=True)
class Code:
    """A concept of a terminology, as ("SCT", "5366008", "Hippocampus")."""

    scheme: str
    """Who defines it: "SCT" is SNOMED CT, "DCM" is DICOM, "99NAME" a private scheme."""
    value: str
    meaning: str

    def __post_init__(self) -> None:
        for part in (self.scheme, self.value, self.meaning):
            if not part or part != part.translate(_FORBIDDEN) or _SPACE.sub(" ", part) != part:
                raise ValueError(
                    "a code is scheme, value and meaning, each one line without ^ ~ | \\ and "
                    f"quotation marks, got {(self.scheme, self.value, self.meaning)}"
                )

    def __str__(self) -> str:
        return f"{self.scheme}^{self.value}^{self.meaning}"


@dataclass(frozen=True, kw_only=True)
class Codes:
    """What a segment is, in codes; None where the table says nothing."""

    category: Code | None = None
    """As ("SCT", "91723000", "Anatomical Structure"); goes together with ``type``."""
    type: Code | None = None
    type_modifier: Code | None = None
    """As ("SCT", "7771000", "Left")."""
    region: Code | None = None
    """The part of the body that it lies in, where ``type`` does not say it (as of a tumour)."""
    region_modifier: Code | None = None

    def __post_init__(self) -> None:
        if (self.category is None) != (self.type is None):
            raise ValueError("category and type go together; give both, or neither")
        for whole, part in (("type", "type_modifier"), ("region", "region_modifier")):
            if getattr(self, part) and not getattr(self, whole):
                raise ValueError(f"{part} says more about {whole}; give {whole} as well")

    @property
    def side(self) -> Side:
        """Left or right, where a modifier says so."""
        for code in (self.type_modifier, self.region_modifier):
            if code is not None and code.scheme == "SCT" and code.value in _SIDES:
                return "left" if _SIDES[code.value] == "left" else "right"
        return ""

    def __str__(self) -> str:
        """Write category~type~modifier~region~modifier, each scheme^value^meaning; "" for none."""
        parts = [getattr(self, one.name) for one in fields(self)]
        return "~".join("" if part is None else str(part) for part in parts) if any(parts) else ""


def codes_from_text(text: str) -> Codes:
    """Read what ``str`` of codes wrote.

    Raises:
        ValueError: It is something else.
    """
    if not text:
        return Codes()
    parts = text.split("~")
    names = [one.name for one in fields(Codes)]
    if len(parts) != len(names):
        raise ValueError(f"codes are {len(names)} parts between ~, got {text!r}")
    found: dict[str, Code] = {}
    for name, part in zip(names, parts, strict=True):
        if part:
            triplet = part.split("^")
            if len(triplet) != 3:
                raise ValueError(f"{name} is scheme^value^meaning, got {part!r}")
            found[name] = Code(*triplet)
    return Codes(**found)


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class of a mask."""

    value: int
    """In the mask, 1 to 65535; 0 is the background and in no table."""
    name: str
    colour: Colour
    codes: Codes = Codes()
    side: Side = ""
    """Which half of the body; by default what the codes say."""
    structure: str = ""
    """What it is without its side ("hippocampus"), to set left and right beside each other and to
    add up what belongs together; "" stands alone."""
    tissue: Tissue = ""
    """What of the brain it is, for tissue maps; "" for none of them."""
    is_intracranial: bool = False
    """Whether it counts to the estimate of the intracranial volume."""

    def __post_init__(self) -> None:
        if not 1 <= self.value <= HIGHEST_VALUE:
            raise ValueError(
                f"label values are 1 to {HIGHEST_VALUE} (0 is background), got {self.value}"
            )
        if not self.name or self.name != tidy_name(self.name):
            raise ValueError(
                f'label {self.value} needs a name on one line without " ~ ^ | \\, got {self.name!r}'
            )
        if len(self.colour) != 3 or not all(0 <= part <= 255 for part in self.colour):
            raise ValueError(
                f"the colour of label {self.value} ({self.name}) must be three numbers in 0 to 255 "
                f"or #rrggbb, got {self.colour}"
            )
        if not self.side and self.codes.side:
            object.__setattr__(self, "side", self.codes.side)
        elif self.codes.side and self.side != self.codes.side:
            raise ValueError(
                f"label {self.value} ({self.name}) is {self.side}, but its codes say "
                f"{self.codes.side}; correct one of them"
            )


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The classes of a kind of mask, ascending by value."""

    labels: tuple[Label, ...]
    name: str = ""
    """Of the table itself."""
    note: str = ""
    """A sentence that belongs beside its volumes, as what a class leaves out."""

    def __post_init__(self) -> None:
        for what, found in (
            ("value", [str(one.value) for one in self.labels]),
            ("name", [one.name.casefold() for one in self.labels]),
        ):
            twice = next((one for one in found if found.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"the {what} {twice} stands there twice; each label needs its own")
        ordered = tuple(sorted(self.labels, key=lambda one: one.value))
        object.__setattr__(self, "labels", ordered)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, value: int) -> Label:
        """Give the label of a value; a KeyError where there is none."""
        return {one.value: one for one in self.labels}[value]

    def __contains__(self, value: object) -> bool:
        return any(one.value == value for one in self.labels)

    @property
    def names(self) -> dict[int, str]:
        """Names by value."""
        return {one.value: one.name for one in self.labels}

    @property
    def colours(self) -> dict[int, Colour]:
        """Colours by value."""
        return {one.value: one.colour for one in self.labels}

    def covering(self, values: Iterable[int], where: str) -> "LabelTable":
        """Return the table if it has every value above 0 of ``values``.

        Raises:
            DataError: It has not; ``where`` names the mask.
        """
        missing = sorted({int(v) for v in values if v > 0} - {one.value for one in self.labels})
        if missing:
            known = ", ".join(str(one.value) for one in self.labels[:10])
            raise DataError(
                f"{where} holds the label {missing[0]}, and the label table "
                f"{self.name or '(unnamed)'} has {known}{' ...' * (len(self) > 10)}; add it there, "
                "or choose another table"
            )
        return self


def plain_table(
    names: Mapping[int, str], colours: Mapping[int, Colour] | None = None, *, name: str = ""
) -> LabelTable:
    """Make a table without codes from names; values of 0 and below are left out.

    Names that cannot stand are made so: a missing one becomes "class N", one that stands twice gets
    its value behind it. Colours are ``class_colours`` where none is given.
    """
    own = class_colours(names) | dict(colours or {})
    labels: list[Label] = []
    taken: set[str] = set()
    for value in sorted(value for value in names if value > 0):
        tidy = tidy_name(names[value]) or f"class {value}"
        if tidy.casefold() in taken:
            tidy = f"{tidy} ({value})"
        taken.add(tidy.casefold())
        labels.append(Label(value=value, name=tidy, colour=own[value]))
    return LabelTable(labels=tuple(labels), name=name)


def with_values(table: LabelTable, values: Iterable[int]) -> LabelTable:
    """Keep the labels of these values."""
    kept = set(values)
    return replace(table, labels=tuple(one for one in table.labels if one.value in kept))


def tidy_name(name: str) -> str:
    """Return a name on one line, without the signs that formats of masks use between names."""
    return _SPACE.sub(" ", name.translate(_FORBIDDEN)).strip()
