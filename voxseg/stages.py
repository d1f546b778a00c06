"""How long the stages of a piece of work take, wherever in it they are.

A stage within another one is taken off the outer one, so that all stages together are at most the
whole. Where nobody measures, a stage costs nothing. On a GPU a stage counts what the host waits
for: one that ends with a result on the host counts all of its work.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def enter(self, name: str) -> None:
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        self._count()
        self._open.pop()

    def _count(self) -> None:
        """Give the time since the last change to the innermost stage."""
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


_CLOCK: ContextVar[_Clock | None] = ContextVar("stages", default=None)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Give the seconds of each stage that is met inside, by name; they are right at the end.

    Of two that lie in one another, the inner one counts.
    """
    clock = _Clock()
    token = _CLOCK.set(clock)
    try:
        yield clock.seconds
    finally:
        _CLOCK.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what is done inside to the stage ``name``; also a decorator of functions."""
    clock = _CLOCK.get()
    if clock is None:
        yield
        return
    clock.enter(name)
    try:
        yield
    finally:
        clock.leave()
