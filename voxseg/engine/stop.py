"""Stop when asked: Ctrl-C and SIGTERM set a flag that long work looks at between two steps."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Remember the request; a second one ends the process at once, as Python does."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def stop_on_signals(limit: float | None = None) -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM inside the block; outside the main thread nothing is caught.

    Args:
        limit: for one process of several, which may be waiting for another one inside a library,
            where Python runs no signal handler: the seconds it has to leave the block when it was
            asked to stop. After them, or at a second request, it is ended from a thread.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {s: signal.signal(s, stop) for s in _SIGNALS}
    try:
        with contextlib.nullcontext() if limit is None else _ended_after(limit):
            yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ended_after(limit: float) -> Iterator[None]:
    """Let a thread read which signals came: Python writes their numbers as soon as they come."""
    reads, writes = socket.socketpair()
    with reads, writes:
        writes.setblocking(False)
        earlier = signal.set_wakeup_fd(writes.fileno())
        thread = threading.Thread(target=_end_late, args=(reads, limit), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier)
            writes.close()
            thread.join()


def _end_late(reads: socket.socket, limit: float) -> None:
    if not _next_request(reads):
        return
    reads.settimeout(limit)
    try:
        if not _next_request(reads):
            return
    except TimeoutError:
        pass
    sys.stderr.write("voxseg: ended while it was waiting for the other processes\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _next_request(reads: socket.socket) -> bool:
    """Wait for SIGINT or SIGTERM; False when the block was left."""
    while received := reads.recv(1):
        if received[0] in _SIGNALS:
            return True
    return False
