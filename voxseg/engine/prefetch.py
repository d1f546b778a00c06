"""Make items ahead of their use, in threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(make: Callable[[int], Item], keys: Iterable[int], workers: int) -> Iterator[Item]:
    """Yield ``make(key)`` for each key in order; ``workers`` threads work ahead, 0 for none.

    Threads, not processes: nothing is copied, nothing can be left behind, and an error in ``make``
    is raised where the item is taken.
    """
    if not workers:
        yield from (make(key) for key in keys)
        return
    remaining = iter(keys)
    with ThreadPoolExecutor(workers, thread_name_prefix="voxseg-prefetch") as pool:
        waiting: deque[Future[Item]] = deque(
            pool.submit(make, key) for key in islice(remaining, 2 * workers)
        )
        try:
            while waiting:
                item = waiting.popleft().result()
                waiting.extend(pool.submit(make, key) for key in islice(remaining, 1))
                yield item
        finally:
            for future in waiting:
                future.cancel()
