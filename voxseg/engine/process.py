"""Prepare the program's own process: memory and threads that torch does not wait for.

On Linux with glibc a large tensor is fresh memory each time, and taking it from the system page by
page costs more than many ops that fill it. Two settings, made before torch is imported, spare that:

- ``THP_MEM_ALLOC_ENABLE=1`` lets torch ask for huge pages; it costs no memory to speak of.
- ``mallopt`` lets glibc take blocks of up to 32 MiB from its heap and keep them when they are freed
  instead of returning them at once. What is free at the heap's top goes back beyond 1/32 of the
  machine's memory, at most 512 MiB: that, 64 MiB of reserve and holes between smaller blocks are
  what the process may hold more than it uses. Larger blocks still go back at once. To keep those
  too is a little faster still, but was seen to hold several times the memory in use.

``OMP_WAIT_POLICY=PASSIVE`` besides lets a thread that waits for another sleep instead of spin:
where other programs keep the cores busy, two spinning threads train many times slower than one.

Only programs make them, voxseg's own and the processes that it starts; importing voxseg as a
library changes nothing.
``VOXSEG_MEMORY=default`` in the environment leaves the process as Python started it.
"""

import ctypes
import os
import sys
from pathlib import Path

from voxseg.errors import UsageError

SWITCH = "VOXSEG_MEMORY"
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
WAITING = "OMP_WAIT_POLICY"

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# From glibc's malloc.h; 32 MiB is the most that it accepts as a threshold.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_IN_HEAP = 2**25
_TOP_PAD = 2**26
_MOST_KEPT = 2**29


def prepare() -> None:
    """Apply the settings, unless VOXSEG_MEMORY=default; memory is left alone without glibc.

    What the user set wins: values of THP_MEM_ALLOC_ENABLE and OMP_WAIT_POLICY stay, and any
    MALLOC_* variable or GLIBC_TUNABLES leaves the heap alone.

    Raises:
        UsageError: VOXSEG_MEMORY is neither ``tuned`` nor ``default``.
    """
    wanted = os.environ.get(SWITCH, "tuned")
    if wanted not in ("tuned", "default"):
        raise UsageError(f"{SWITCH} must be tuned or default, got {wanted!r}: change or unset it")
    if wanted == "default":
        return
    os.environ.setdefault(WAITING, "PASSIVE")
    libc = _glibc()
    if libc is None:
        return
    os.environ.setdefault(HUGE_PAGES, "1")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP)
    libc.mallopt(_M_TRIM_THRESHOLD, most_kept())
    libc.mallopt(_M_TOP_PAD, _TOP_PAD)


def child_environment(threads: int) -> dict[str, str]:
    """Environment of a Python process that finds what this one finds, with so many CPU threads."""
    # The whole path in its order: a part of it alone would go before the standard library.
    found = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": found}


def most_kept() -> int:
    """How many bytes of free memory the heap may hold at its top."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MOST_KEPT, physical // 32)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process if it is glibc; others have no mallopt, or one that is idle."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
