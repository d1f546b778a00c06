"""Colour tables that give a mask its class names and colours in 3D Slicer.

Source: Slicer's developer guide, module Colors: the CSV form (``labels.csv``, recent versions) and
the text form (``labels.ctbl``, all versions). Colours: Okabe and Ito, *Color universal design*,
2008, which people with the common colour deficiencies tell apart.
Terminology columns stay empty: a code is the user's to give, not ours to guess.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from voxseg.files import write_text

Colour = tuple[int, int, int]

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
_CODED = ("Category", "Type", "TypeModifier", "Region", "RegionModifier")
_CODE_PARTS = ("CodingScheme", "CodeValue", "CodeMeaning")
_COLUMNS = (
    "LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A",
    *(f"{kind}_{part}" for kind in _CODED for part in _CODE_PARTS),
)  # fmt: skip


def class_colours(labels: Iterable[int]) -> dict[int, Colour]:
    """Give every class above 0 a colour (red, green, blue in 0-255), by its rank among them.

    Seven colours are safe for colour-blind readers; from the eighth class on, hues come again in
    darker shades, and from the twenty-ninth the same colours.
    """
    colours: dict[int, Colour] = {}
    for rank, label in enumerate(sorted({label for label in labels if label > 0})):
        turn, place = divmod(rank, len(_PALETTE))
        shade = _SHADES[turn % len(_SHADES)]
        red, green, blue = (round(shade * part) for part in _PALETTE[place])
        colours[label] = (red, green, blue)
    return colours


def write_label_table(folder: Path, class_names: Mapping[int, str]) -> tuple[Path, Path]:
    """Write ``labels.csv`` and ``labels.ctbl`` into ``folder``.

    Args:
        folder: Made if needed; tables that are there are replaced.
        class_names: Class value -> name. Slicer has no negative classes, so these are left out, and
            0 is the background, which is transparent and only in the ``.ctbl``.

    Returns:
        The paths of the two files.

    Raises:
        VoxsegError: A file cannot be written.
    """
    colours = class_colours(class_names)
    paths = folder / "labels.csv", folder / "labels.ctbl"
    write_text(paths[0], _csv_table(class_names, colours))
    write_text(paths[1], _text_table(class_names, colours))
    return paths


def _csv_table(class_names: Mapping[int, str], colours: Mapping[int, Colour]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    codes = ("",) * (len(_CODED) * len(_CODE_PARTS))
    for label, colour in colours.items():
        writer.writerow((label, _name(class_names[label], label), *colour, 255, *codes))
    return text.getvalue()


def _text_table(class_names: Mapping[int, str], colours: Mapping[int, Colour]) -> str:
    background = _name(class_names.get(0, ""), 0).replace(" ", "_")
    lines = [f"0 {background} 0 0 0 0"]
    for label, (red, green, blue) in colours.items():
        name = _name(class_names[label], label).replace(" ", "_")
        lines.append(f"{label} {name} {red} {green} {blue} 255")
    head = ["# Color table file labels.ctbl", f"# {len(lines)} values"]
    return "\n".join([*head, *lines, ""])


def _name(name: str, label: int) -> str:
    """Return the name on one line and without the quotation marks that Slicer cannot read."""
    clean = " ".join(name.replace('"', "'").split())
    return clean or ("background" if label == 0 else f"class {label}")
