"""Run a program for so many seconds at most, and end all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DUMP = "Fatal Python error"
_GRACE_SECONDS = 5
"""What a killed process gets to be gone; one that hangs in a driver may never be."""

# Linux ends the program with the one that waits for it, should that be killed: nothing is left
# behind that keeps a GPU busy.
_TIED = """
import ctypes, os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # gigabytes that would take their time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int | None
    """Its exit code, negative for a signal; None if it had to be stopped."""
    seconds: float
    lines: Sequence[str]
    """What it said, without empty lines."""

    @property
    def failure(self) -> str:
        """What went wrong, in a line; "" if nothing did."""
        if self.code == 0:
            return ""
        said = self._before_dump
        last = f": {said[-1].strip()}" if said else ""
        if self.code is None:
            return f"not done after {self.seconds:.0f} s{last}"
        if self.code < 0:
            return f"ended by {_signal_name(-self.code)}{last}"
        return self.lines[-1].strip() if self.lines else f"exit code {self.code}"

    @property
    def _before_dump(self) -> Sequence[str]:
        """Lines before those in which a Python that is ended by a signal says where it was."""
        ends = (at for at, line in enumerate(self.lines) if line.startswith(_DUMP))
        return self.lines[: next(ends, len(self.lines))]


def run_limited(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    seconds: float,
) -> Ended:
    """Run a program and wait for it.

    Args:
        command: The program and its words.
        folder: Where it runs.
        environment: All of its variables.
        log: File that gets all that it says, while it runs.
        seconds: When it is killed, with the processes that it started.
    """
    tied = [sys.executable, "-c", _TIED] if sys.platform == "linux" else []
    start = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*tied, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that they can be ended together
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            _ask_where(process)
        finally:
            _end_all(process)
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return Ended(code, time.monotonic() - start, lines)


def _ask_where(process: "subprocess.Popen[bytes]") -> None:
    """Let a Python with PYTHONFAULTHANDLER=1 say where it hangs, which ends it."""
    process.send_signal(signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)


def _end_all(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
