"""One worker process: make what the job file says, key by key, and send each to the parent.

Started by ``voxseg.engine.workers`` as ``python -m voxseg.engine.worker JOB SKIP STRIDE``. It ends
when its standard input ends, so it never outlives the parent, however that died.
"""

import faulthandler
import io
import os
import pickle
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxseg.errors import VoxsegError


@dataclass(frozen=True)
class Made:
    """What ``make`` returned."""

    item: Any


@dataclass(frozen=True)
class Failed:
    """What ``make`` raised."""

    summary: str
    """Type and message, one line."""
    trace: str
    """The worker's own traceback."""
    error: VoxsegError | None
    """The error itself, if it is one that a user can cure."""


def summary(error: BaseException) -> str:
    """Give type and message of an error in one line."""
    return " ".join(traceback.format_exception_only(error)[0].split())


def main() -> None:
    """Run as a worker; the process ends here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    faulthandler.enable()
    # What anyone prints must not get between the results.
    results = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job, skip, stride = sys.argv[1:]
    try:
        _work(Path(job), int(skip), int(stride), results)
    except BrokenPipeError:
        pass  # nobody wants the rest
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # no clean-up that the thread above could hold up


def _work(job: Path, skip: int, stride: int, results: io.FileIO) -> None:
    # Only now, as Ctrl-C and the parent's end are looked after; it takes seconds.
    import torch

    from voxseg.engine.wire import pack, send

    torch.set_num_threads(1)
    make, keys = pickle.loads(job.read_bytes())
    for key in keys[skip::stride]:
        try:
            blocks = pack(Made(make(key)))
        except Exception as error:
            cured = error if isinstance(error, VoxsegError) else None
            blocks = pack(Failed(summary(error), traceback.format_exc(), cured))
        send(results, blocks)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    # By its full name, so that the parent can unpickle what is sent.
    from voxseg.engine.worker import main as run

    run()
