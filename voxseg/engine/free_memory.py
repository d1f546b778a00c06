"""How much memory there is left: of the machine, of this process's cgroup and limits, of a GPU."""

import os
import sys
from pathlib import Path

import torch

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNKNOWN_GB = 4.0  # where the system does not tell; a laptop has this much


def free_gb(device: torch.device) -> float:
    """Memory that is free on ``device``, in GB.

    For a CPU the least of what Linux calls available, what the process's cgroups (version 1 or 2,
    containers and batch systems use them) leave, and what its limit of address space leaves.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    found = [_available(), *_cgroups_leave(), _address_space_leaves()]
    known = [value for value in found if value is not None]
    return max(min(known), 0) / 1e9 if known else _UNKNOWN_GB


def resident_gb() -> float:
    """Memory that this process holds now, in GB; 0 where the system does not tell."""
    value = _field(_PROC / "self" / "status", "VmRSS:")
    return (value or 0) / 1e9


def peak_gb(pid: int) -> float:
    """Most memory that a running process has held so far, in GB; 0 where nobody tells."""
    return (_field(_PROC / str(pid) / "status", "VmHWM:") or 0) / 1e9


def system_gb() -> float:
    """Memory of the machine, in GB; 0 where the system does not tell."""
    return (_field(_PROC / "meminfo", "MemTotal:") or 0) / 1e9


def _available() -> int | None:
    return _field(_PROC / "meminfo", "MemAvailable:")


def _address_space_leaves() -> int | None:
    if sys.platform == "win32":  # has no such limits
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _field(_PROC / "self" / "status", "VmSize:")
    if soft == resource.RLIM_INFINITY or used is None:
        return None
    return soft - used


def _cgroups_leave() -> list[int]:
    """What the limit of each cgroup above this process leaves.

    A page cache that can be dropped (inactive files) does not count as used.
    """
    text = _read(_PROC / "self" / "cgroup") or ""
    rows = [line.split(":", 2) for line in text.splitlines() if line.count(":") > 1]
    left: list[int] = []
    for number, controllers, path in rows:
        if number == "0" and not controllers:
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = Path(os.path.normpath(path.lstrip("/") or "."))
        # In a container the path may be that of the host, and the limit lies at the root.
        for folder in dict.fromkeys((inner, *inner.parents, Path())):
            left += _group_leaves(root / folder, *names)
    return left


def _group_leaves(folder: Path, limit: str, usage: str, dropped: str) -> list[int]:
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return []
    return [most - used + (_field(folder / "memory.stat", dropped, unit=1) or 0)]


def _field(path: Path, name: str, unit: int = 1024) -> int | None:
    for line in (_read(path) or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1]) * unit
    return None


def _number(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
