"""What can be computed again and is kept on disk: read only when whole, limited in size.

An entry is a file whose name says everything that decides its content. Its last 32 bytes are a hash
of name and content: what was cut short, changed on the disk or put under another name is not used.
Entries are written under a temporary name and moved, so several processes may keep the same one.
Beyond ``VOXSEG_CACHE_GB`` the entries that were not used for longest are removed; a process that
reads one at that moment has it open and goes on.

A folder that cannot be written, and a disk that is full, cost time and nothing else. Nothing is
ever removed but files with the names of entries, and temporary ones of theirs older than a day.
"""

import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from voxseg.errors import UsageError, VoxsegError
from voxseg.files import cache_folder, replacing

DEFAULT_GB = 10.0
"""Size limit where ``VOXSEG_CACHE_GB`` is not set."""
_HASH_BYTES = 32
_DAY = 86_400.0
_UNCHECKED = 0.02  # share of the limit that a process may add before it looks at the whole again


@dataclass(frozen=True)
class Kind:
    """One sort of entry."""

    name: str
    """Of its folder in the cache."""
    pattern: str
    """What the path of an entry in that folder looks like: a regular expression."""


SUPERVOXELS = Kind("supervoxels", r"([0-9a-f]{2})/\1[0-9a-f]{62}\.npy")
KERNELS = Kind("kernels", r"\w+-sm_\w+-[0-9a-f]{32}\.cubin")
KINDS = (SUPERVOXELS, KERNELS)


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    path: Path
    size: int
    """In bytes."""
    used: float
    """When it was last read or written, in seconds since 1970."""


@dataclass
class _Added:
    """What this process has kept since it last looked at the whole cache."""

    size: float = math.inf  # it never has


_added = _Added()


def recall(kind: Kind, name: str) -> bytes | None:
    """Give the content that was kept under ``name``; None if there is none, or it is damaged."""
    path = cache_folder() / kind.name / name
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content, found = stored[:-_HASH_BYTES], stored[-_HASH_BYTES:]
    if _hash(name, content) != found:
        return None
    with suppress(OSError):
        os.utime(path)  # the time of reading is not kept on many disks
    return content


def keep(kind: Kind, name: str, content: bytes) -> None:
    """Keep ``content`` under ``name``, and hold the cache to its limit.

    The whole is looked at when this process has added a fiftieth of the limit, not for each of
    thousands of small entries.

    Raises:
        UsageError: ``VOXSEG_CACHE_GB`` is not a size. Nothing else is an error.
    """
    limit = limit_bytes()
    path = cache_folder() / kind.name / name
    if len(content) + _HASH_BYTES <= limit:
        with suppress(VoxsegError), replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(_hash(name, content))
    _added.size += len(content) + _HASH_BYTES
    if _added.size > _UNCHECKED * limit:
        _added.size = 0
        trim(limit)


def limit_bytes() -> int:
    """How large the cache may be: ``VOXSEG_CACHE_GB``, in GB of 10**9 bytes.

    Raises:
        UsageError: it is not a size.
    """
    text = os.environ.get("VOXSEG_CACHE_GB", "").strip()
    try:
        size = float(text) if text else DEFAULT_GB
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise UsageError(
            f"VOXSEG_CACHE_GB must be a number of gigabytes, 0 or more, got {text!r}: change or "
            "unset it"
        )
    return int(size * 1e9)


def entries(kind: Kind) -> list[Entry]:
    """Find all entries of a kind, those that were not used for longest first."""
    return _matching(kind, re.compile(kind.pattern))


def trim(limit: int) -> None:
    """Remove what was not used for longest until ``limit`` bytes are left, and old leftovers."""
    found = sorted((e for kind in KINDS for e in entries(kind)), key=lambda entry: entry.used)
    excess = sum(entry.size for entry in found) - limit
    for entry in found:
        if excess <= 0:
            break
        with suppress(OSError):  # what another process removed is gone, too
            entry.path.unlink(missing_ok=True)
            excess -= entry.size
    for kind in KINDS:
        for left in _leftovers(kind):
            with suppress(OSError):
                left.path.unlink(missing_ok=True)


def clear(kinds: Iterable[Kind] = KINDS) -> list[Entry]:
    """Remove every entry of some kinds, and old leftovers; give what was removed.

    Raises:
        VoxsegError: something could not be removed; the rest is.
    """
    removed: list[Entry] = []
    problems: list[OSError] = []
    for kind in kinds:
        for entry in (*entries(kind), *_leftovers(kind)):
            try:
                entry.path.unlink(missing_ok=True)
                removed.append(entry)
            except OSError as error:
                problems.append(error)
        for folder in {entry.path.parent for entry in removed}:
            with suppress(OSError):  # not empty
                folder.rmdir()
    if problems:
        raise VoxsegError(
            f"{len(problems)} files of the cache cannot be removed, the first: {problems[0]}; "
            "check who may write there"
        )
    return removed


def _leftovers(kind: Kind) -> Iterator[Entry]:
    """Find temporary files of processes that were killed while they wrote an entry."""
    folder, _, file = kind.pattern.rpartition("/")
    pattern = re.compile(rf"{folder and folder + '/'}\.part-\w+-{file}")
    old = time.time() - _DAY
    return (entry for entry in _matching(kind, pattern) if entry.used < old)


def _matching(kind: Kind, pattern: re.Pattern[str]) -> list[Entry]:
    root = cache_folder() / kind.name
    found = []
    for folder, _, files in os.walk(root):
        inside = Path(folder).relative_to(root).as_posix()
        for file in files:
            if not pattern.fullmatch(file if inside == "." else f"{inside}/{file}"):
                continue
            with suppress(OSError):  # removed meanwhile
                path = Path(folder) / file
                facts = path.lstat()
                found.append(Entry(path, facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def _hash(name: str, content: bytes) -> bytes:
    digest = blake2b(name.encode(), digest_size=_HASH_BYTES)
    digest.update(b"\0")
    digest.update(content)
    return digest.digest()
