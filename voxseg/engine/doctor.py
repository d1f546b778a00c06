"""What voxseg finds on this system, and what to do about what it lacks."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numba
import torch

from voxseg import cache
from voxseg.engine.free_memory import free_gb
from voxseg.engine.manifest import git_commit, versions
from voxseg.errors import UsageError
from voxseg.files import cache_folder
from voxseg.ops import nvrtc
from voxseg.ops.nvrtc import KernelError
from voxseg.ops.superpixel_plan import plain

_OPTIONAL = {
    "nilearn": ("the demo's MNI152 template", "pip install 'voxseg[brain]'"),
    "highdicom": ("DICOM series in, DICOM Segmentations out", "pip install 'voxseg[dicom]'"),
    "cuda.bindings": ("CUDA kernels compiled at first use", "pip install 'voxseg[cuda]'"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    cure: str = ""
    """What to do, "" when nothing needs doing."""


def examine() -> list[Finding]:
    """Look at everything; never fails."""
    found = [Finding(name, version) for name, version in versions().items()]
    commit = git_commit()
    if commit:
        found.append(Finding("git commit", commit[:12]))
    return [*found, *_compute(), *_kernels(), *_folders(), *_extras()]


def _compute() -> list[Finding]:
    cpu = torch.device("cpu")
    found = [
        Finding("CPU threads", f"torch {torch.get_num_threads()}, numba {numba.get_num_threads()}"),
        Finding("free memory", f"{free_gb(cpu):.1f} GB"),
        Finding("memory settings", _memory_settings()),
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            free = free_gb(torch.device("cuda", index))
            name = torch.cuda.get_device_name(index)
            found.append(Finding(f"cuda:{index}", f"{name}, sm_{major}{minor}, {free:.1f} GB free"))
    elif torch.version.cuda:
        cure = "check the driver with nvidia-smi"
        found.append(Finding("CUDA", f"torch has CUDA {torch.version.cuda}, but no device", cure))
    else:
        cure = "for a GPU, install a CUDA build of torch"
        found.append(Finding("CUDA", "this torch is built for the CPU", cure))
    return found


def _memory_settings() -> str:
    huge = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"
    return "huge pages asked for" if huge else "as Python starts"


def _kernels() -> list[Finding]:
    try:
        found = [Finding("NVRTC", nvrtc.nvrtc_version())]
    except KernelError as error:
        if not torch.cuda.is_available():
            return [Finding("NVRTC", "not found (compiles CUDA kernels; not needed without a GPU)")]
        return [Finding("NVRTC", "not found", str(error))]
    if plain():
        return [*found, Finding("CUDA kernels", "not used: VOXSEG_KERNELS=torch")]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found += [_kernel_state(op, index) for op in nvrtc.FILES]
    return found


def _kernel_state(op: str, index: int) -> Finding:
    what = f"kernels of {op}"
    try:
        nvrtc.kernels(op, torch.device("cuda", index))
    except KernelError as error:
        return Finding(what, f"do not run on cuda:{index}", str(error))
    return Finding(what, f"compiled and loaded on cuda:{index}")


def _folders() -> list[Finding]:
    folder = cache_folder()
    if not os.access(_existing(folder), os.W_OK):
        cure = "set VOXSEG_CACHE to a folder that can be"
        return [Finding("cache", f"{folder} cannot be written", cure)]
    try:
        limit = cache.limit_bytes() / 1e9
    except UsageError as error:
        return [Finding("cache", f"{folder} has no size limit", str(error))]
    size = sum(entry.size for kind in cache.KINDS for entry in cache.entries(kind)) / 1e9
    free = shutil.disk_usage(_existing(folder)).free / 1e9
    return [Finding("cache", f"{folder} ({size:.2f} of {limit:g} GB used, {free:.0f} GB free)")]


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _extras() -> list[Finding]:
    found = []
    for module, (purpose, cure) in _OPTIONAL.items():
        present = _is_installed(module)
        state = f"installed ({purpose})" if present else f"missing ({purpose})"
        found.append(Finding(module, state, "" if present else cure))
    return found


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False
