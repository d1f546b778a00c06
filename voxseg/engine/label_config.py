"""The section of a configuration about labels; apart from the others, for it needs no torch."""

import re
from dataclasses import dataclass

from voxseg.export.labels import Side, Tissue

_COLOUR = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which values the label files hold."""

    values: tuple[int, ...] = ()
    """Background first; empty takes every value found in the training labels."""
    names: tuple[str, ...] = ()
    """A name for each value; empty takes the data set's, or "class N"."""
    colours: tuple[str, ...] = ()
    """#rrggbb of each value; empty takes the data set's or the table's, or our own."""
    ignore: tuple[int, ...] = ()
    """Values of voxels that count neither in training nor in scores."""
    table: str = ""
    """Names, colours and codes of the classes: a label table that ships with voxseg (it is not
    used, and that is said, where the data have other labels), or a file. What it says is kept
    below, one for each value."""
    note: str = ""
    """A sentence that belongs beside volumes."""
    codes: tuple[str, ...] = ()
    """Category~type~modifier~region~modifier, each scheme^value^meaning."""
    sides: tuple[Side, ...] = ()
    """"left", "right" or ""."""
    structures: tuple[str, ...] = ()
    """What a class is without its side."""
    tissues: tuple[Tissue, ...] = ()
    """"csf", "grey_matter", "white_matter" or ""."""
    intracranial: tuple[bool, ...] = ()
    """Whether a class counts to the intracranial volume."""

    def __post_init__(self) -> None:
        both = sorted(set(self.values) & set(self.ignore))
        if both:
            raise ValueError(f"labels.values and labels.ignore both list {both}")
        wrong = [one for one in self.colours if not _COLOUR.fullmatch(one)]
        if wrong:
            raise ValueError(f"labels.colours must be like #00ff7f, got {wrong[0]!r}")

    @property
    def palette(self) -> dict[int, tuple[int, int, int]] | None:
        """Red, green, blue in 0 to 255 by value; None without colours."""
        if not self.colours:
            return None
        parts = [bytes.fromhex(colour[1:]) for colour in self.colours]
        return {v: (rgb[0], rgb[1], rgb[2]) for v, rgb in zip(self.values, parts, strict=True)}
