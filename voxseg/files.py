"""Files are written whole or not at all: under a temporary name in the same folder, then moved."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from voxseg.errors import VoxsegError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there when the block ends without an error.

    The temporary name keeps the suffixes, for writers choose a format by them. The folder is made
    when it is missing.

    Raises:
        VoxsegError: the folder or the file cannot be written; nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=f"-{path.name}")
        os.close(handle)
    except OSError as error:
        raise VoxsegError(_sentence(path, error)) from None
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise VoxsegError(_sentence(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Where what can be computed again is kept; the folder may not exist yet.

    ``VOXSEG_CACHE``, else ``voxseg`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    own = os.environ.get("VOXSEG_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "voxseg"


def _sentence(path: Path, error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"cannot write {path}: part of its folder is a file; choose another output"
    return (
        f"cannot write {path}: {error.strerror or error}; free some space or choose another output"
    )


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
