"""``voxseg cache``."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from voxseg.documents import document
from voxseg.schemas import CACHE

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.cache import Entry


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries.")] = False,
    kind: Annotated[
        Literal["supervoxels", "kernels", "all"], typer.Option("--kind", help="Which of them.")
    ] = "all",
    as_json: options.Json = False,
) -> None:
    """Show what is kept to spare computing it again, or remove it with --clear.

    The folder is VOXSEG_CACHE, by default ~/.cache/voxseg; beyond VOXSEG_CACHE_GB gigabytes (10)
    what was not used for longest is removed.
    """
    from voxseg import cache as kept
    from voxseg.errors import UsageError
    from voxseg.files import cache_folder

    folder, limit = cache_folder(), kept.limit_bytes()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the cache {folder} is not a folder; set VOXSEG_CACHE to one")
    chosen = [one for one in kept.KINDS if kind in ("all", one.name)]
    removed = kept.clear(chosen) if clear else []
    kinds = {one.name: _facts(kept.entries(one)) for one in chosen}
    if as_json:
        facts: dict[str, Any] = {"folder": str(folder), "limit_bytes": limit, "kinds": kinds}
        if clear:
            facts["removed"] = {"files": len(removed), "bytes": sum(e.size for e in removed)}
        terminal.print_json(document(CACHE, facts))
        return
    if clear:
        freed = _size(sum(entry.size for entry in removed))
        terminal.out.print(f"removed {len(removed)} files, {freed}", markup=False)
    terminal.out.print(f"{folder}, at most {_size(limit)}", markup=False)
    columns = ("kind", "entries", "size", "oldest use", "newest use")
    rows = [
        (name, f["entries"], _size(f["bytes"]), _time(f["oldest_use"]), _time(f["newest_use"]))
        for name, f in kinds.items()
    ]
    terminal.out.print(terminal.table("voxseg cache", columns, rows))


def _facts(entries: "list[Entry]") -> dict[str, Any]:
    times = [datetime.fromtimestamp(e.used, UTC).isoformat(timespec="seconds") for e in entries]
    return {
        "entries": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "oldest_use": times[0] if times else None,
        "newest_use": times[-1] if times else None,
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _time(text: str | None) -> str | None:
    """Turn an ISO time into a short one of the user's own zone."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
