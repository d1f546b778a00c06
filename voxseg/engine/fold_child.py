"""The process of one fold: ``python -m voxseg.engine.fold_child``, started by ``fold_process``.

The task comes as a line on stdin; what happens goes back as JSON lines on stdout, one object with
one key: ``say``, ``progress``, ``failed`` or ``done``. Whatever else libraries print goes to
stderr, which is the fold's log. stdin stays open as long as the parent lives: at its end this
process ends at once, so that a killed cross-validation leaves nothing behind.
"""

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from voxseg.engine import process
from voxseg.errors import VoxsegError

if TYPE_CHECKING:
    from voxseg.engine.progress import Progress

_SECONDS_BETWEEN_PROGRESS = 0.1


def main() -> int:
    """Run the fold; the exit code is that of the command line."""
    process.prepare()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tell = _Teller(channel)
    try:
        # Only now: the memory settings must be made before torch is imported.
        from voxseg.engine.fold import FoldTask, run_fold

        run_fold(FoldTask.from_json(line), tell.progress, lambda text: tell("say", text))
    except VoxsegError as error:
        tell("failed", {"sentence": str(error), "code": error.exit_code, "traceback": ""})
        return error.exit_code
    except Exception as error:
        text = traceback.format_exc()
        sys.stderr.write(text)
        sentence = f"{type(error).__name__}: {error}"
        tell("failed", {"sentence": sentence, "code": 1, "traceback": text})
        return 1
    tell("done", True)
    return 0


class _Teller:
    """Write messages to the parent; progress not more often than an eye can follow."""

    def __init__(self, channel: IO[str]) -> None:
        self._channel = channel
        self._latest = 0.0

    def __call__(self, kind: str, content: Any) -> None:
        self._channel.write(json.dumps({kind: content}) + "\n")
        self._channel.flush()

    def progress(self, state: "Progress") -> None:
        now = time.monotonic()
        if now - self._latest >= _SECONDS_BETWEEN_PROGRESS or state.step == state.steps:
            self._latest = now
            self("progress", asdict(state))


def _end_with_parent() -> None:
    """Wait for the end of stdin, which comes when the parent closes it or is no more."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
