"""A fold in a process of its own, as the cross-validation sees it: its messages and its end."""

import json
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from voxseg.engine.fold import FoldTask
from voxseg.engine.free_memory import peak_gb, system_gb
from voxseg.engine.process import child_environment

_LOG = "log.txt"
_WHY = {
    "SIGSEGV": "a crash inside a library",
    "SIGBUS": "memory or disk behind a mapped file is gone",
    "SIGABRT": "a library gave up",
    "SIGILL": "an instruction that this processor lacks",
    "SIGTERM": "somebody ended it",
}


@dataclass(frozen=True)
class Failure:
    """Why a fold did not finish."""

    sentence: str
    code: int
    """Exit code that fits."""
    traceback: str = ""
    """Of an error that nobody expected."""

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may go better: bad usage and bad data stay what they are."""
        return self.code not in (2, 3)


class FoldProcess:
    """A running fold.

    Args:
        task: what to run.
        threads: CPU threads for it.
        inbox: gets ``(self, kind, content)`` for each message, at last with kind ``end``.
    """

    def __init__(
        self,
        task: FoldTask,
        threads: int,
        inbox: "queue.SimpleQueue[tuple[FoldProcess, str, Any]]",
    ) -> None:
        self.task = task
        self.failure: Failure | None = None
        self.peak_gb = 0.0
        """Largest resident memory seen so far; 0 where the system does not tell."""
        self._inbox = inbox
        task.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "voxseg.engine.fold_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=child_environment(threads),
                # Ctrl-C reaches the parent alone, which then asks each fold to stop, once.
                start_new_session=True,
            )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            self._popen.stdin.write(task.to_json() + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone already; its end tells why
        threading.Thread(target=self._listen, args=(self._popen.stdout,), daemon=True).start()

    @property
    def log(self) -> Path:
        """File with whatever the process printed."""
        return self.task.folder / _LOG

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def look(self) -> None:
        """Take note of the memory in use."""
        self.peak_gb = max(self.peak_gb, peak_gb(self.pid))

    def ask_to_stop(self) -> None:
        """Let it write a checkpoint after the step at hand, and end."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it at once, if it still runs, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()

    def finish(self) -> Failure | None:
        """Take leave of a process that has sent ``end``; None when its fold is finished."""
        code = self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        if self.failure is not None or code == 0:
            return self.failure
        return Failure(self._describe(code), 1)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            try:
                kind, content = next(iter(json.loads(line).items()))
            except ValueError:
                continue  # cut off by a sudden end, which tells more
            if kind == "failed":
                self.failure = Failure(**content)
            self._inbox.put((self, kind, content))
        self._inbox.put((self, "end", None))

    def _describe(self, code: int) -> str:
        """Say in words how a process ended that could not say so itself."""
        held = (
            f"; it had held up to {self.peak_gb:.1f} GB of {system_gb():.1f} GB"
            if self.peak_gb
            else ""
        )
        if code >= 0:
            return f"ended with code {code} and no word{held}; see {self.log}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        if name == "SIGKILL":
            return (
                f"was killed by signal 9 (SIGKILL), as by a system that runs out of memory{held}; "
                "try fewer --jobs or smaller patches"
            )
        why = f", {_WHY[name]}" if name in _WHY else ""
        return f"died of signal {-code} ({name}{why}){held}; see {self.log}"
