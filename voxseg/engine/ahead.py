"""Items fetched in a thread, one or two before they are needed.

While a step computes, the next batch comes through its worker's pipe and, for a GPU, into memory
from which it is copied without the host's waiting. What is fetched, and in which order, is the same
as without the thread.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar, final

from voxseg.engine.workers import Workers

Key = TypeVar("Key")
Item = TypeVar("Item")

_PATIENCE = 5.0  # seconds for a worker to end on its own; then it is killed, and the thread ends
_LOOK = 0.5  # seconds between two looks at whether the items are still wanted


@final
class Ahead(Generic[Key, Item]):
    """Yield the items of ``workers``; a context manager that opens and closes them, used once.

    Without worker processes there is no thread either: it would take the step's own cores.

    Args:
        workers: not yet opened.
        receive: called in the thread with each item, and gives what is yielded.
    """

    def __init__(self, workers: Workers[Key, Item], receive: Callable[[Item], Item]) -> None:
        self._workers, self._receive = workers, receive
        self._found: queue.Queue[_Found[Item]] = queue.Queue(maxsize=1)
        self._wanted = True
        self._thread = threading.Thread(target=self._fetch, name="voxseg-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._workers.__enter__()
        if self._workers.pids:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wanted = False
        try:
            if self._thread.is_alive():
                # Asked first, so that no pipe is closed while the thread reads from it.
                self._workers.stop()
                with contextlib.suppress(queue.Empty):
                    self._found.get_nowait()
                self._thread.join(_PATIENCE)
        finally:
            self._workers.close()

    def __iter__(self) -> Iterator[Item]:
        if self._thread.ident is None:
            for item in self._workers:
                yield self._receive(item)
            return
        while True:
            found = self._found.get()
            if found.error is not None:
                raise found.error
            if not found.items:
                return
            yield found.items[0]

    def _fetch(self) -> None:
        try:
            for item in self._workers:
                if not self._put(_Found((self._receive(item),))):
                    return
            self._put(_Found())
        except BaseException as error:
            self._put(_Found(error=error))

    def _put(self, found: "_Found[Item]") -> bool:
        """Hand over, as soon as the one before is taken; whether it is still wanted."""
        while self._wanted:
            try:
                self._found.put(found, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False


@final
class _Found(Generic[Item]):
    """An item, the end (no item) or what the thread met."""

    def __init__(self, items: tuple[Item, ...] = (), error: BaseException | None = None) -> None:
        self.items, self.error = items, error
