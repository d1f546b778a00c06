"""Processes that make items ahead of their use: in order, watched, and never waited for in vain.

A worker is a fresh Python (``voxseg.engine.worker``), not a fork and not a copy of the caller's
script: a script needs no ``if __name__ == "__main__"``. Worker ``i`` of N makes the items i, i + N,
i + 2 N, ... and sends each through its pipe, which holds it back until the item is taken: at most N
items wait. Arrays of a megabyte and more are mapped from files by all of them.

A pipe ends when its writer dies, so that a death is noticed at once. The worker is then started
again at the item it owed: what is delivered does not depend on how many workers there are, nor on
what became of them. It is up to ``make`` to give the same item for the same key anywhere.
"""

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar, cast, final

import torch

from voxseg.engine.process import child_environment
from voxseg.engine.wire import pickle_sharing, receive
from voxseg.engine.worker import Failed, summary
from voxseg.errors import VoxsegError
from voxseg.files import replacing

Key = TypeVar("Key")
Item = TypeVar("Item")

RESTARTS = 3
"""How many deaths of workers one set of them survives."""
_MOST_PATCH_WORKERS = 8
_PATIENCE = 5.0  # seconds for a worker to end once its pipes are closed, before it is killed
_MOST_SHOWN = 20_000  # characters of what a dead worker wrote


class WorkerOutput(Exception):  # noqa: N818  # not an error of its own: it explains another one
    """A worker's traceback, or what it wrote before it died: the cause of the error in the parent.

    Raised errors carry it as their cause, so that a traceback shows it.
    """

    def __str__(self) -> str:
        return f"in the worker:\n{self.args[0]}"


def worker_count(setting: int, device: torch.device) -> int:
    """Number of workers: ``setting``, or for -1 two beside a GPU and none on a CPU.

    On a CPU training takes all cores, and a worker would take them from it.
    """
    if setting >= 0:
        return setting
    return 2 if device.type == "cuda" else 0


def patch_worker_count(setting: int, device: torch.device, sharing: int = 1) -> int:
    """Number of workers that cut patches: ``setting``, or for -1 up to eight beside a GPU.

    A GPU can take a step of a small network in less time than one core needs for a tenth of its
    batch. Of this machine's cores, one is left for each process that trains.

    Args:
        setting: ``train.workers``.
        device: where the network is trained.
        sharing: processes that train on this machine.
    """
    if setting >= 0 or device.type != "cuda":
        return worker_count(setting, device)
    return max(1, min(_MOST_PATCH_WORKERS, _cores() // sharing - 1))


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@final
class Workers(Generic[Key, Item]):
    """Yield ``make(key)`` for each key, in order; a context manager, used once.

    Args:
        make: picklable by name (no lambda, nothing of the caller's script). In a worker, torch,
            Numba and OpenMP have one thread.
        keys: what to make; a range or a list.
        count: worker processes; 0 makes everything here.
        describe: what ``make(key)`` does, as "cutting a patch of case 3", for messages.
        folder: for files that the workers share; the caller removes it.
        say: told in one sentence when a worker died and was started again.

    Raises:
        VoxsegError: from the iterator. ``make`` failed: its own VoxsegError, or one sentence that
            names the item, with the original traceback as its cause; or workers cannot be started,
            or died more than ``RESTARTS`` times.
    """

    def __init__(
        self,
        make: Callable[[Key], Item],
        keys: Sequence[Key],
        count: int,
        *,
        describe: Callable[[Key], str],
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._make, self._keys, self._count = make, keys, min(count, len(keys))
        self._describe, self._folder, self._say = describe, folder, say
        self._next = 0
        self._deaths = 0
        self._stopping = False
        self._job: Path | None = None
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        if self._count:
            content = pickle_sharing((self._make, self._keys), self._folder)
            self._job = self._folder / f"job-{os.getpid()}-{id(self)}.pickle"
            with replacing(self._job) as temporary:
                temporary.write_bytes(content)
            try:
                for first in range(self._count):
                    self._processes.append(self._start(first))
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._next >= len(self._keys):
            raise StopIteration
        key = self._keys[self._next]
        item = self._receive(key) if self._count else self._make_here(key)
        self._next += 1
        return item

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, in the order of the workers."""
        return tuple(process.pid for process in self._processes)

    def stop(self) -> None:
        """Ask the workers to end; from any thread. One that waits for an item gets no more."""
        self._stopping = True
        for process in self._processes:
            process.ask_to_end()

    def close(self) -> None:
        """End the workers; what they were at is lost."""
        for process in self._processes:
            process.close_pipes()
        for process in self._processes:
            process.end()
        self._processes = []
        if self._job is not None:
            self._job.unlink(missing_ok=True)

    def _start(self, first: int) -> "_Process":
        assert self._job is not None
        try:
            return _Process([str(self._job), str(first), str(self._count)])
        except OSError as error:
            raise VoxsegError(
                f"cannot start a worker process ({error}); use fewer, or --workers 0 for none"
            ) from error

    def _make_here(self, key: Key) -> Item:
        try:
            return self._make(key)
        except VoxsegError:
            raise
        except Exception as error:
            raise VoxsegError(self._sentence(key, summary(error))) from error

    def _receive(self, key: Key) -> Item:
        index = self._next % self._count
        while not self._stopping:
            try:
                answer = self._processes[index].receive()
            except EOFError:
                if not self._stopping:
                    self._start_again(index, key)
                continue
            if not isinstance(answer, Failed):
                return cast(Item, answer.item)
            cause = WorkerOutput(answer.trace)
            if answer.error is not None:
                raise answer.error from cause
            raise VoxsegError(self._sentence(key, answer.summary)) from cause
        raise StopIteration

    def _sentence(self, key: Key, what: str) -> str:
        return f"{self._describe(key)} failed: {what}; --debug shows where"

    def _start_again(self, index: int, key: Key) -> None:
        process = self._processes[index]
        process.close_pipes()
        how, output = process.end()
        what = f"worker {index + 1} {how} while {self._describe(key)}"
        self._deaths += 1
        if self._deaths > RESTARTS:
            raise VoxsegError(
                f"{what}, and {RESTARTS} had died before; free some memory, or use fewer "
                "(--workers 0 needs none) and go on with --resume"
            ) from WorkerOutput(output or "it wrote nothing")
        self._say(f"{what}; started again ({self._deaths} of {RESTARTS})")
        self._processes[index] = self._start(self._next)


class _Process:
    """One worker and its pipes."""

    def __init__(self, arguments: list[str]) -> None:
        self._ended: tuple[str, str] | None = None
        self._output = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115  # closed in end()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "voxseg.engine.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._output,
                bufsize=0,
                env=child_environment(threads=1),
                process_group=0,  # a terminal's Ctrl-C does not reach it
            )
        except OSError:
            self._output.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self) -> Any:
        return receive(cast(io.FileIO, self._process.stdout))

    def ask_to_end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def end(self) -> tuple[str, str]:
        """Wait for the end, or bring it about; say how it ended and what it wrote."""
        if self._ended is None:
            try:
                code = self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code = self._process.wait()
            with self._output:
                self._output.seek(0)
                output = self._output.read().decode(errors="replace").strip()[-_MOST_SHOWN:]
            self._ended = _how(code, output), output
        return self._ended


def _how(code: int, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    last = f" ({(fatal or lines)[-1]})" if lines else ""
    if code == -signal.SIGKILL:
        return f"was killed by signal 9, often the system running out of memory,{last}"
    if code < 0:
        return f"was killed by signal {-code}{last}"
    return f"ended with code {code}{last}"
