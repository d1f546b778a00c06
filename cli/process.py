"""Prepare the program's own process: memory that PyTorch can use without waiting for it.

On Linux with glibc, a large tensor is fresh memory from the system each time, and taking it costs
more than many ops that fill it. Two settings, made before torch is imported, spare that:

- ``THP_MEM_ALLOC_ENABLE=1`` lets torch ask for huge pages. It costs no memory to speak of.
- ``mallopt`` lets glibc keep freed memory for the next tensor instead of returning it at once:
  large blocks come from the heap, and the heap gives back what is free at its top beyond a limit.
  That limit is a sixteenth of the machine's memory, at most 1 GiB, so the process holds at most
  that much more than it uses, plus the holes that any heap has.

They are the command line's; importing voxseg as a library changes nothing. ``VOXSEG_MEMORY=default``
in the environment leaves the process as Python started it.
"""

import ctypes
import os
import sys

from voxseg.errors import UsageError

SWITCH = "VOXSEG_MEMORY"
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_MOST_KEPT = 2**30
_TOP_PAD = 2**26


def prepare() -> None:
    """Apply the settings, unless VOXSEG_MEMORY=default; does nothing where there is no glibc.

    Variables that the user set win: THP_MEM_ALLOC_ENABLE stays as it is, and MALLOC_* variables
    mean that the heap is tuned already.

    Raises:
        UsageError: VOXSEG_MEMORY is neither ``tuned`` nor ``default``.
    """
    wanted = os.environ.get(SWITCH, "tuned")
    if wanted not in ("tuned", "default"):
        raise UsageError(f"{SWITCH} must be tuned or default, got {wanted!r}: unset it")
    libc = _glibc()
    if wanted == "default" or libc is None:
        return
    os.environ.setdefault(HUGE_PAGES, "1")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, most_kept())
    libc.mallopt(_M_TOP_PAD, _TOP_PAD)


def most_kept() -> int:
    """How many bytes of free memory the heap may hold at its top."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MOST_KEPT, physical // 16)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process if it is glibc: others have no mallopt, or ignore it."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
