"""Run the folds of a cross-validation, several at a time, each in a process of its own.

A fold that fails is tried again from its last checkpoint, and the others go on. What became of each
stands in ``folds.json`` at any time.
"""

import contextlib
import json
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from voxseg.documents import write_document
from voxseg.engine.fold import FoldTask, run_fold
from voxseg.engine.fold_process import Failure, FoldProcess
from voxseg.engine.progress import InterruptedRunError, Progress
from voxseg.engine.stop import stop_on_signals
from voxseg.errors import ExitCode, UsageError, VoxsegError
from voxseg.schemas import FOLDS

STATES = "folds.json"
"""In the cross-validation's folder: what became of each fold."""
_SECONDS_BETWEEN_LOOKS = 0.2


class FailedFoldsError(VoxsegError):
    """Some folds failed for good; the others are finished and kept."""

    exit_code = ExitCode.SOME_FAILED


@dataclass(frozen=True)
class Effort:
    """How the folds are run."""

    jobs: int = 0
    """Folds at a time, each in its own process; 0: one after the other in this process, where the
    first error ends the cross-validation (for debuggers and tests)."""
    retries: int = 1
    """Further attempts at a fold that failed, each from its last checkpoint."""

    def __post_init__(self) -> None:
        if self.jobs < 0 or self.retries < 0:
            raise UsageError(
                f"--jobs and --retries must not be negative, got {self.jobs} and {self.retries}"
            )


def run_folds(
    tasks: Sequence[FoldTask],
    effort: Effort,
    notify: Callable[[Progress], None],
    say: Callable[[str], None],
) -> None:
    """Run every fold that is not finished.

    With several jobs, the CPU's threads are shared out among them, and "auto" or "cuda" stand for
    the next of several GPUs.

    Raises:
        InterruptedRunError: asked to stop; every fold wrote a checkpoint.
        FailedFoldsError: folds failed for good, the others are finished.
        VoxsegError: every fold failed.
    """
    if not effort.jobs:
        for task in tasks:
            if not task.is_finished:
                say(task.name)
                run_fold(task, notify, say)
        return
    _Crew(tasks, effort, notify, say).work()


class _Crew:
    """Running folds and those that wait."""

    def __init__(
        self,
        tasks: Sequence[FoldTask],
        effort: Effort,
        notify: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self._effort, self._notify, self._say = effort, notify, say
        self._tasks = tasks
        self._waiting = deque(task for task in tasks if not task.is_finished)
        self._jobs = max(1, min(effort.jobs, len(self._waiting)))
        self._threads = max(1, torch.get_num_threads() // self._jobs)
        self._running: dict[FoldProcess, int] = {}
        """Process -> its place, 0 to jobs - 1."""
        self._inbox: queue.SimpleQueue[tuple[FoldProcess, str, Any]] = queue.SimpleQueue()
        self._failures: dict[str, Failure] = {}
        self._states = _States(tasks)

    def work(self) -> None:
        """Run until nothing waits; on every way out no process is left."""
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals())
            stack.callback(self._kill_all)
            asked = False
            while self._running or (self._waiting and not stop.requested):
                if not stop.requested:
                    self._fill_places()
                elif not asked:
                    asked = True
                    self._say("stopping: each fold writes a checkpoint after the step at hand")
                    for process in self._running:
                        process.ask_to_stop()
                self._listen(stop.requested)
            if stop.requested:
                raise InterruptedRunError(
                    "stopped; checkpoints are written, go on with the same command and --resume"
                )
        if self._failures:
            raise self._explain()

    def _fill_places(self) -> None:
        while self._waiting and len(self._running) < self._jobs:
            task = self._waiting.popleft()
            place = min(set(range(self._jobs)) - set(self._running.values()))
            started = replace(task, device=_device(task.device, place, self._jobs))
            process = FoldProcess(started, self._threads, self._inbox)
            self._running[process] = place
            self._states.start(task)
            attempt = self._states.attempts(task)
            self._say(task.name if attempt == 1 else f"{task.name}, attempt {attempt}")

    def _listen(self, stopping: bool) -> None:
        """Take one message, or after a while none."""
        for process in self._running:
            process.look()
        try:
            process, kind, content = self._inbox.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            return
        if process not in self._running:
            return  # a last word of a fold that was ended
        several = self._jobs > 1
        name = process.task.name
        if kind == "say":
            self._say(f"{name}: {content}" if several else content)
        elif kind == "progress":
            self._notify(Progress(**{**content, "name": name if several else ""}))
        elif kind == "end":
            del self._running[process]
            self._end(process, stopping)

    def _end(self, process: FoldProcess, stopping: bool) -> None:
        task, failure = process.task, process.finish()
        if failure is None and not task.is_finished:
            failure = Failure(f"ended without its scores; see {process.log}", 1)
        if failure is None:
            self._failures.pop(task.name, None)
            self._states.end(task, "finished", process.peak_gb, "")
        elif stopping:
            self._states.end(task, "stopped", process.peak_gb, "")
        else:
            self._states.end(task, "failed", process.peak_gb, failure.sentence)
            self._fail(task, failure)

    def _fail(self, task: FoldTask, failure: Failure) -> None:
        if failure.traceback:
            self._say(f"{task.name}:\n{failure.traceback.rstrip()}")
        again = failure.may_pass and self._states.attempts(task) <= self._effort.retries
        what = "; it is tried again from its last checkpoint" if again else ""
        self._say(f"{task.name} failed: {failure.sentence}{what}")
        if again:
            original = next(one for one in self._tasks if one.name == task.name)
            self._waiting.append(original)
        else:
            self._failures[task.name] = failure

    def _explain(self) -> VoxsegError:
        name, failure = next(iter(self._failures.items()))
        if not any(task.is_finished for task in self._tasks):
            error = VoxsegError(f"no fold could be finished; {name}: {failure.sentence}")
            error.exit_code = failure.code
            return error
        return FailedFoldsError(
            f"{', '.join(self._failures)} failed ({failure.sentence}); the others are finished "
            "and kept: cure it and go on with --resume"
        )

    def _kill_all(self) -> None:
        for process in self._running:
            process.kill()


class _States:
    """What became of each fold, kept in ``folds.json`` of its cross-validation."""

    def __init__(self, tasks: Iterable[FoldTask]) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._runs: dict[Path, list[str]] = {}
        self._started: dict[str, float] = {}
        for task in tasks:
            earlier = _earlier(task.run / STATES).get(task.number, {})
            state = "finished" if task.is_finished else "waiting"
            row = {"fold": task.number, "state": state, "attempts": 0, "seconds": 0.0,
                   "peak_gb": 0.0, "error": ""}  # fmt: skip
            if task.is_finished:
                row |= {key: earlier[key] for key in row if key in earlier} | {"state": state}
            self._rows[task.name] = row
            self._runs.setdefault(task.run, []).append(task.name)
        for run in self._runs:
            self._write(run)

    def attempts(self, task: FoldTask) -> int:
        """How often this command has started it."""
        return int(self._rows[task.name]["attempts"])

    def start(self, task: FoldTask) -> None:
        """It runs."""
        self._started[task.name] = time.monotonic()
        row = self._rows[task.name]
        row |= {"state": "running", "attempts": row["attempts"] + 1}
        self._write(task.run)

    def end(self, task: FoldTask, state: str, peak_gb: float, error: str) -> None:
        """It has ended."""
        row = self._rows[task.name]
        row["state"], row["error"] = state, error
        row["seconds"] = round(row["seconds"] + time.monotonic() - self._started[task.name], 1)
        row["peak_gb"] = round(max(row["peak_gb"], peak_gb), 2)
        self._write(task.run)

    def _write(self, run: Path) -> None:
        rows = [self._rows[name] for name in self._runs[run]]
        write_document(run / STATES, FOLDS, {"folds": rows})


def _earlier(path: Path) -> dict[int, dict[str, Any]]:
    """Rows of an earlier command; they only inform, so a damaged file is as good as none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["folds"]
        return {int(row["fold"]): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _device(name: str, place: int, jobs: int) -> str:
    """Give each of several jobs the next GPU, where the user named none by number."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if jobs > 1 and count > 1 and name in ("auto", "cuda", "gpu"):
        return f"cuda:{place % count}"
    return name
