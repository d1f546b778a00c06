"""All that a machine with a GPU is asked for: tests, sanitizer, benchmarks, a short table.

``make gpu`` runs it, well within ten minutes. It needs torch with CUDA, numba, scikit-image and
NVIDIA's Python bindings; what else voxseg uses may be missing: without nibabel or tensorboard
training steps are not measured, and without MONAI they are, on patches that are not varied.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

import voxseg
from voxseg.bench.device import DeviceBench, run_device_bench, tiny
from voxseg.bench.report import BenchResult
from voxseg.documents import write_document
from voxseg.errors import VoxsegError
from voxseg.schemas import GPU

_ROOT = Path(voxseg.__file__).parents[1]
_TESTS = ("tests/ops", "tests/layers", "tests/models")
_TEST_SECONDS = 180
_SANITIZER_SECONDS = 90
_WHAT = ("pool", "slic", "voxresnet", "train")
_TRAIN_SECONDS = 3.0
"""A round of training steps; a network has about ten."""


def main(words: list[str] | None = None) -> int:
    """Run it all; the exit code says whether tests and sanitizer passed."""
    parser = argparse.ArgumentParser(prog="python -m voxseg.bench.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file; default: benchmarks/results/")
    parser.add_argument("--small", action="store_true", help="every kernel once, on small sizes")
    parser.add_argument("--what", nargs="+", choices=_WHAT, default=_WHAT, help="which benchmarks")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try it out")
    chosen = parser.parse_args(words)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        _say("error: torch sees no CUDA device; this needs a machine with a GPU")
        return 1
    if chosen.small:
        _benchmarks(tiny(DeviceBench()), device, chosen.what)
        return 0
    start = time.monotonic()
    checks = {"tests": _tests(), **_sanitizers(device)}
    results = _benchmarks(DeviceBench(), device, chosen.what)
    path = chosen.output or _ROOT / "benchmarks" / "results" / f"{_slug(device)}.json"
    _write(path, checks, results)
    for name, outcome in checks.items():
        _say(f"{name}: {outcome}")
    _say(f"{time.monotonic() - start:.0f} s; figures are in {path}")
    return 0 if all(_is_fine(outcome) for outcome in checks.values()) else 1


def _tests() -> str:
    environment = {**os.environ, "VOXSEG_REQUIRE_CUDA": "1"}
    folders = [folder for folder in _TESTS if (_ROOT / folder).is_dir()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *folders]
    return _run(command, environment, _TEST_SECONDS)


def _sanitizers(device: torch.device) -> dict[str, str]:
    """Run every kernel on small sizes under NVIDIA's checkers, where these are installed."""
    program = shutil.which("compute-sanitizer")
    if program is None or device.type != "cuda":
        return {"compute-sanitizer": "not installed"}
    small = [sys.executable, "-m", "voxseg.bench.gpu", "--small", "--device", str(device)]
    small += ["--what", "pool", "slic"]  # the network's other kernels are not ours to check
    # The caching allocator would hide an access that is out of bounds by a little.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    found = {}
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", *small]
        found[tool] = _run(command, environment, _SANITIZER_SECONDS)
    return found


def _run(command: list[str], environment: dict[str, str], seconds: int) -> str:
    """Run a check and give its last line; "failed" in front where it did not pass."""
    _say("running " + " ".join(command[:6]) + " ...")
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"failed: not done after {seconds} s"
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    if done.returncode:
        _say("\n".join(lines[-40:]))
        return f"failed: {lines[-1]}"
    return lines[-1]


def _is_fine(outcome: str) -> bool:
    return not outcome.startswith("failed")


def _benchmarks(
    bench: DeviceBench, device: torch.device, parts: Sequence[str]
) -> list[BenchResult]:
    results = []
    for what in parts:
        try:
            if what == "train":
                results.append(_training(bench, device))
            else:
                results.append(run_device_bench(what, bench, device, _say))
        except (VoxsegError, RuntimeError, ImportError) as error:
            _say(f"{what} failed: {error}")
            continue
        _table(results[-1])
    return results


def _training(bench: DeviceBench, device: torch.device) -> BenchResult:
    """Measure training steps; small ones beside the small benchmarks.

    Raises:
        ImportError: training reads files too, and nibabel is missing.
    """
    from voxseg.bench.train import TrainBench, run_train_bench
    from voxseg.bench.train import tiny as tiny_training

    wanted = TrainBench(seconds=_TRAIN_SECONDS, rounds=2)
    if bench == tiny(DeviceBench()):
        wanted = tiny_training(TrainBench(variants=False))
    return run_train_bench(wanted, device, _say)


def _table(result: BenchResult) -> None:
    _say(result.title)
    cells = [result.columns] + [[str(row[c]) for c in result.columns] for row in result.rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(result.columns))]
    for line in cells:
        _say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _write(path: Path, checks: dict[str, str], results: list[BenchResult]) -> None:
    content = {
        "command": "make gpu",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "checks": checks,
        "results": [result.to_json() for result in results],
    }
    write_document(path, GPU, content)


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _slug(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return "-".join(name.lower().split())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
