"""All that a machine with a GPU is asked for: benchmarks, tests, sanitizer, a short table.

``make gpu`` runs it, within ten minutes. Each part is a process of its own with a limit of its own:
one that fails, hangs or is killed leaves the others alone. What is known is written after every
part, whole. It needs torch with CUDA, numba, scikit-image, matplotlib, tensorboard and NVIDIA's
Python bindings; nibabel may be missing, and MONAI, without which patches of training are not
varied.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from voxseg.bench.bars import judged
from voxseg.bench.gpu_parts import PARTS, ROOT, Part, Setting
from voxseg.bench.limited import run_limited
from voxseg.documents import write_document
from voxseg.files import replacing
from voxseg.schemas import GPU

_MINUTES = 9.5
_TOO_SHORT_SECONDS = 5
_LAST_LINES = 40
_LONGEST_LINE = 300
_STOPPED = 143  # what a shell gives for a program that SIGTERM ended


def main(words: list[str] | None = None) -> int:
    """Run it all; the exit code says whether every part passed."""
    names = tuple(part.name for part in PARTS)
    parser = argparse.ArgumentParser(prog="python -m voxseg.bench.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file; default: benchmarks/results/")
    parser.add_argument("--small", action="store_true", help="benchmarks alone, on small sizes")
    parser.add_argument("--what", nargs="+", choices=names, default=names, help="which parts")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="for all together")
    parser.add_argument("--commit", default="", help="of the source, where git cannot tell")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try it out")
    chosen = parser.parse_args(words)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        _say("error: torch sees no CUDA device; this needs a machine with a GPU")
        return 1
    parts = [part for part in PARTS if part.name in chosen.what]
    with ExitStack() as stack:
        path = chosen.output or ROOT / "benchmarks" / "results" / f"{_slug(device)}.json"
        if chosen.small:
            parts = [part for part in parts if not part.is_check]
            if chosen.output is None:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "small.json"
        # Figures of small sizes are no figures.
        on_gpu = device.type == "cuda" and not chosen.small
        known = _Known(path.absolute(), on_gpu, chosen.commit or _commit())
        return _run_all(
            parts, Setting(str(device), chosen.small, known.folder), known, chosen.minutes
        )


@dataclass
class _Known:
    """What is known so far."""

    path: Path
    on_gpu: bool
    commit: str
    checks: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where parts leave what they say and measure."""
        return self.path.parent / f"{self.path.stem}-parts"

    @property
    def bars(self) -> list[dict[str, Any]]:
        rows = {name: result["rows"] for name, result in self.results.items()}
        return judged(rows, self.on_gpu)

    def write(self, *, finished: bool) -> None:
        content = {
            "command": "make gpu",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": self.commit,
            "finished": finished,
            "parts": self.parts,
            "bars": self.bars,
            "checks": self.checks,
            "results": list(self.results.values()),
        }
        write_document(self.path, GPU, content)


def _run_all(parts: Sequence[Part], setting: Setting, known: _Known, minutes: float) -> int:
    start = time.monotonic()
    setting.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    for part in parts:
        left = 60 * minutes - (time.monotonic() - start)
        _take(part, setting, known, min(part.seconds, left))
        known.write(finished=False)
    known.write(finished=True)
    _summary(known)
    _say(f"{time.monotonic() - start:.0f} s; figures are in {known.path}")
    return int(any(_is_failure(part["outcome"]) for part in known.parts))


def _stop(*_: object) -> None:
    """End as after an error: the part that runs is ended with this program."""
    sys.exit(_STOPPED)


def _take(part: Part, setting: Setting, known: _Known, seconds: float) -> None:
    """Run one part and note what came of it."""
    command = part.command(setting)
    took = 0.0
    if not command:
        outcome = "not installed"
    elif seconds < _TOO_SHORT_SECONDS:
        outcome = "failed: not run, for no time was left"
    else:
        outcome, took = _run(part, command, setting, known, seconds)
    known.parts.append({"part": part.name, "outcome": outcome, "seconds": round(took, 1)})
    if part.is_check:
        known.checks[part.name] = outcome
    _say(f"{part.name}: {outcome} ({took:.0f} s)")
    result = known.results.get(part.name)
    if result:
        _table(result["title"], result["rows"])


def _run(
    part: Part, command: list[str], setting: Setting, known: _Known, seconds: float
) -> tuple[str, float]:
    measured = setting.folder / f"{part.name}.json"
    measured.unlink(missing_ok=True)
    _say(f"{part.name}, at most {seconds:.0f} s")
    ended = run_limited(
        command,
        folder=ROOT,
        environment=_environment(part, setting),
        log=setting.folder / f"{part.name}.txt",
        seconds=seconds,
    )
    if not part.is_check and measured.is_file():
        known.results[part.name] = json.loads(measured.read_text(encoding="utf-8"))
    picture = measured.with_suffix(".png")
    if picture.is_file():
        with replacing(known.path.with_suffix(".png")) as temporary:
            shutil.copyfile(picture, temporary)
    if ended.failure:
        _say("\n".join(line[:_LONGEST_LINE] for line in ended.lines[-_LAST_LINES:]))
        return f"failed: {ended.failure}", ended.seconds
    return (ended.lines[-1] if part.is_check and ended.lines else "done"), ended.seconds


def _environment(part: Part, setting: Setting) -> dict[str, str]:
    # One that crashes or hangs says where.
    found = {**os.environ, "PYTHONFAULTHANDLER": "1", **part.environment}
    if setting.device.startswith("cuda"):
        found["VOXSEG_REQUIRE_CUDA"] = "1"
    return found


def _is_failure(outcome: str) -> bool:
    return outcome.startswith("failed")


def _summary(known: _Known) -> None:
    """Say which bars were met, and what the checks said."""
    if not known.on_gpu:
        _say("nothing is held against the bars: these are not a GPU's figures")
    rows = [
        {
            "what": row["what"],
            "bar": row["bar"],
            "measured": "not measured" if row["measured"] is None else row["measured"],
            "floor": "" if row["floor"] is None else row["floor"],
            "met": {None: "", True: "yes", False: "no"}[row["met"]],
        }
        for row in known.bars
    ]
    _table("Figures to reach", rows)
    for part in known.parts:
        if part["part"] in known.checks or _is_failure(part["outcome"]):
            _say(f"{part['part']}: {part['outcome']}")


def _table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    _say(title)
    if not rows:
        return
    columns = list(rows[0])
    cells = [columns] + [["" if row[c] is None else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _say("  ".join(padded).rstrip())


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
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
