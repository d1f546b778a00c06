"""One HTML page about a run: warnings, facts, scores, plots, and three-plane pictures of cases.

The page stands alone: styles and pictures are inside, nothing is loaded (a content security policy
in it forbids that), and it needs no script, but for the viewers that cases may have. It prints:
what belongs together stays on one sheet.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from voxseg import __version__
from voxseg.export.case_picture import (
    ERROR_COLOURS,
    ERROR_NAMES,
    UNCERTAINTY_MAP,
    caption_of,
    draw_case,
)
from voxseg.export.labels import Colour, class_colours
from voxseg.export.photo_picture import PHOTO_ERRORS
from voxseg.export.report_parts import (
    ReportCase,
    ReportFigure,
    ReportLink,
    ReportSection,
    ReportTable,
)
from voxseg.export.viewer import MOST_MB, ViewerParts, case_blocks, viewer_parts
from voxseg.export.viewer_scene import MB, pack
from voxseg.files import write_text

__all__ = [
    "Report", "ReportCase", "ReportFigure", "ReportLink", "ReportSection", "ReportTable",
    "draw_case", "write_report",
]  # fmt: skip

_GRADIENT_STEPS = 9


@dataclass(frozen=True)
class Report:
    """What the page says, from top to bottom."""

    title: str
    class_names: Mapping[int, str]
    """Class value -> name, background included; classes above 0 are in the legend."""
    colours: Mapping[int, Colour] = field(default_factory=dict)
    """Class value -> colour in legend and pictures; empty takes ``class_colours``."""
    is_images: bool = False
    """Whether the cases are photographs."""
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Name -> value, in the order of the page."""
    warnings: Sequence[str] = ()
    """Sentences that stand at the top."""
    tables: Sequence[ReportTable] = ()
    sections: Sequence[ReportSection] = ()
    """Before the pictures."""
    cases: Iterable[ReportCase] = ()
    """Drawn one after the other, so a generator holds one case at a time."""
    cases_note: str = ""
    """Which cases are drawn, where not all are."""
    pictures_note: str = ""
    """What the pictures show; "" for masks over volumes or photographs."""
    error_colours: Mapping[str, Colour] = field(default_factory=dict)
    """Legend of errors; empty for those of masks."""
    closing: Sequence[ReportSection] = ()
    """After the pictures."""
    folded: Mapping[str, str] = field(default_factory=dict)
    """Title -> text that is folded away, and left out of print."""
    num_viewers: int = 0
    """How many cases have a viewer, which share the room that the page has for them."""


def write_report(path: Path, report: Report) -> Path:
    """Write ``report`` as one self-contained HTML file.

    Raises:
        ValueError: A case's arrays are not on one grid, or two places have one anchor.
        VoxsegError: The file cannot be written.
    """
    from jinja2 import Environment

    template = resources.files("voxseg.export").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    environment.tests["link"] = lambda cell: isinstance(cell, ReportLink)
    colours = report.colours or class_colours(report.class_names)
    parts = viewer_parts() if report.num_viewers else None
    room = MOST_MB * MB - parts.num_bytes if parts else 0.0
    errors = (
        PHOTO_ERRORS
        if report.is_images
        else {ERROR_NAMES[kind]: colour for kind, colour in ERROR_COLOURS.items()}
    )
    errors = dict(report.error_colours) or errors
    # Unlike a loop's variable, map keeps no case while the next one is made.
    cases = list(
        map(partial(_drawn, colours=colours, room=room / max(1, report.num_viewers)), report.cases)
    )
    rows = {row for case in cases for row in case["rows"]}
    page = environment.from_string(template).render(
        report=report,
        cases=cases,
        anchors=_anchors(report, cases),
        legend=[(report.class_names[k], _hex(c)) for k, c in colours.items()],
        error_legend=[(name, _hex(c)) for name, c in errors.items()],
        has_errors="errors" in rows,
        gradient=_gradient() if "uncertainty" in rows else "",
        is_drawn=any(case["png"] for case in cases),
        policy=_policy(parts),
        parts=parts,
        version=__version__,
    )
    write_text(path, page)
    return path


def _policy(parts: ViewerParts | None) -> str:
    """Content security policy: no scripts, or those of the viewer and no other."""
    scripts = f"script-src {parts.script_policy}; " if parts else ""
    return (
        f"default-src 'none'; img-src data:; {scripts}style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _drawn(case: ReportCase, colours: Mapping[int, Colour], room: float) -> dict[str, Any]:
    """What the page needs of a case; its arrays are let go."""
    if case.picture:
        rows = {"errors"} if case.errors else set()
        return {**_words(case), "caption": case.caption, "png": case.picture, "rows": rows}
    arrays = case.arrays
    has_errors = case.errors and {"prediction", "truth"} <= set(arrays)
    viewer = pack(case.viewer, room) if case.viewer else None
    return {
        **_words(case),
        "viewer": case_blocks(viewer, case.anchor) if viewer else "",
        "viewer_notes": viewer.notes if viewer else (),
        "caption": caption_of(case),
        "png": draw_case(case, colours) if arrays else b"",
        "rows": {*arrays, *(("errors",) if has_errors else ())},
    }


def _words(case: ReportCase) -> dict[str, Any]:
    """What stands around the picture."""
    return {
        "name": case.case_id,
        "anchor": case.anchor,
        "headline": case.headline,
        "tables": case.tables,
        "figures": case.figures,
    }


def _anchors(report: Report, cases: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names that links can lead to; a link to anything else stays plain text."""
    named = [section.anchor for section in (*report.sections, *report.closing)]
    named = [name for name in (*named, *(case["anchor"] for case in cases)) if name]
    if len(set(named)) < len(named):
        raise ValueError(f"every anchor must be given once, got {sorted(named)}")
    return set(named)


def _gradient() -> str:
    """Colours of the uncertainty from 0 to 1, as CSS wants them."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    chosen = colormaps[UNCERTAINTY_MAP]
    steps = [to_hex(chosen(step / (_GRADIENT_STEPS - 1))) for step in range(_GRADIENT_STEPS)]
    return ", ".join(steps)


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
