"""What the functions of the program have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.engine.options import Place
from voxseg.engine.page import Page

if TYPE_CHECKING:
    from voxseg.engine.report_sources import ReportSource


def silent(*_: object) -> None:
    """Tell nobody."""


def write_and_tell(
    source: "ReportSource",
    page: Place,
    say: Callable[[str], None],
    pictures: int | None = None,
    viewers: int = 0,
) -> Page:
    """Write the page about ``source`` and say what is on it."""
    from voxseg.engine.case_report import write_page

    written = write_page(source, Path(page), pictures=pictures, viewers=viewers)
    drawn = f"{len(written.drawn)} of {written.num_cases} cases drawn"
    drawn += f", {len(written.viewers)} in viewers" if viewers else ""
    say(f"page: {written.path} ({drawn}, {len(written.warnings)} warnings)")
    return written
