"""What a run was made of: versions, device, data and split hashes, times."""

import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import voxseg
from voxseg.data.hashes import file_hash
from voxseg.data.layouts import Case
from voxseg.documents import document, json_text
from voxseg.files import write_text
from voxseg.schemas import MANIFEST

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "scikit-image", "numba")


def versions() -> dict[str, str]:
    """Versions of voxseg, Python and the packages a result can depend on."""
    found = {"voxseg": voxseg.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def git_commit() -> str:
    """Commit of the checkout that voxseg runs from, or "" for an installed copy."""
    folder = Path(voxseg.__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_device(device: "torch.device") -> dict[str, Any]:
    """Name and size of a device."""
    import torch  # only here: scoring writes manifests too, and needs none of it

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return {"type": "cuda", "name": name, "cuda": torch.version.cuda}
    threads = torch.get_num_threads()
    return {
        "type": device.type,
        "name": platform.processor() or platform.machine(),
        "threads": threads,
    }


def data_hashes(cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """Content hash of every file of every case, by case and file name."""
    out = {}
    for case in cases:
        files = [*case.images, *([case.label] if case.label else [])]
        out[case.case_id] = {path.name: file_hash(path) for path in files}
    return out


def manifest_of(schema: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Put the parts that every run has before ``content``; ``schema`` names its form."""
    parts = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "git_commit": git_commit(),
        **content,
    }
    return document(schema, parts)


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest with the parts that every run has."""
    write_text(path, json_text(manifest_of(MANIFEST, content)) + "\n")
