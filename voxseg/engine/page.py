"""What is said of a page that was written, and whether one may be, before any work is done."""

from dataclasses import dataclass
from pathlib import Path

from voxseg.errors import UsageError


@dataclass(frozen=True)
class Page:
    """What was written."""

    path: Path
    num_cases: int
    drawn: tuple[str, ...]
    """Cases with pictures."""
    warnings: tuple[str, ...]
    viewers: tuple[str, ...] = ()
    """Cases that can be opened in a viewer."""


def check_page(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written or would replace one, before any work is done.

    None is no page.

    Raises:
        UsageError: It is a folder, or exists and ``overwrite`` is not set.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the page, as {path / 'report.html'}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; use --overwrite, or name another page")
