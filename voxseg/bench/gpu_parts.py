"""The parts of ``make gpu``: what each runs, and for how long at most."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import voxseg
from voxseg.ops import nvrtc

ROOT = Path(voxseg.__file__).parents[1]
TESTS = ("tests/ops", "tests/layers", "tests/models")

_FOUND_ERRORS = "9"
_CUDA_FOLDERS = ("CUDA_HOME", "CUDA_PATH")


@dataclass(frozen=True)
class Setting:
    """What all parts of a run share."""

    device: str
    small: bool
    """Every size shrunk."""
    folder: Path
    """Gets what each part says and measures."""


@dataclass(frozen=True)
class Part:
    """One process."""

    name: str
    seconds: int
    """The most that it may take. All together stay below ten minutes."""
    command: Callable[[Setting], list[str]]
    """Gives its words; none where it cannot run."""
    is_check: bool = False
    """Whether its last line is the result, and not a file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs beside those that there are."""


def _benchmark(name: str, seconds: int) -> Part:
    return Part(name, seconds, lambda setting: _measure([name], setting, name))


def _measure(parts: list[str], setting: Setting, name: str, *, small: bool = False) -> list[str]:
    words = [sys.executable, "-m", "voxseg.bench.gpu_part", *parts, "--device", setting.device]
    words += ["--output", str(setting.folder / f"{name}.json")]
    return [*words, "--small"] if small or setting.small else words


def _tests(_: Setting) -> list[str]:
    folders = [folder for folder in TESTS if (ROOT / folder).is_dir()]
    # Warnings of packages that voxseg was not tested with are no failures of its kernels.
    options = ["-q", "-m", "cuda", "-W", "default", "-p", "no:cacheprovider", "--tb", "short"]
    return [sys.executable, "-m", "pytest", *options, *folders]


def _sanitizer(tool: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        program = _find_sanitizer()
        if program is None or not setting.device.startswith("cuda"):
            return []
        words = [program, "--tool", tool, "--error-exitcode", _FOUND_ERRORS]
        # Kernels of torch are not ours to check, and checked ones are slow.
        words += ["--kernel-name", ",".join(f"kne={name}" for name in _kernels())]
        if tool == "memcheck":
            # torch and NVIDIA's bindings ask a driver for what it may lack; that is no error.
            words += ["--report-api-errors", "no"]
        return words + _measure(["pool", "slic"], setting, tool, small=True)

    return command


def _kernels() -> list[str]:
    return sorted(name for op in nvrtc.FILES for name in nvrtc.signatures(nvrtc.source(op)))


def _find_sanitizer() -> str | None:
    """``compute-sanitizer``, which need not be on the PATH."""
    homes = [os.environ[name] for name in _CUDA_FOLDERS if os.environ.get(name)]
    folders = [os.environ.get("PATH", os.defpath)]
    folders += [str(Path(home) / "bin") for home in (*homes, "/usr/local/cuda")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


# The caching allocator would hide an access that is out of bounds by a little.
_UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

PARTS = (
    _benchmark("machine", 70),
    _benchmark("pool", 70),
    _benchmark("slic", 40),
    _benchmark("voxresnet", 50),
    # Other packages' plugins are not wanted here: one that warns would fail everything.
    Part("tests", 85, _tests, True, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
    Part("memcheck", 55, _sanitizer("memcheck"), True, _UNCACHED),
    Part("racecheck", 55, _sanitizer("racecheck"), True, _UNCACHED),
    _benchmark("train-reduced", 40),
    _benchmark("train-full", 45),
    _benchmark("figure", 60),
)
"""Most telling ones first."""
