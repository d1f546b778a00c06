"""How the Numba twins are compiled and how many threads they use.

Source: none (machinery). Machine code is cached beside the sources or in the user's cache folder,
whichever Numba can write; where it can write neither, kernels are compiled anew in every process
and work all the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numba
import torch

_WORTH_THREADS = 2**15

Params = ParamSpec("Params")
Result = TypeVar("Result")


def kernel(
    *, parallel: bool = False
) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Compile a function with Numba at its first call, cached on disk where that is possible.

    Kernels keep Python's lock, so two Python threads never enter Numba's thread pool at once:
    one of its threading layers ends the process when they do.

    Args:
        parallel: spread ``numba.prange`` loops over threads.
    """

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        try:
            compiled = numba.njit(parallel=parallel, cache=True)(function)
        except RuntimeError:  # Numba found no folder that it can write
            compiled = numba.njit(parallel=parallel)(function)
        return compiled

    return decorate


@contextmanager
def torch_threads(num_elements: int | None = None) -> Iterator[None]:
    """Let Numba use as many threads as torch does, and restore its setting afterwards.

    Torch keeps its own: where both share OpenMP, Numba's threads, started at its first question,
    would set torch's number to that of the cores, and sums of torch round by that number.

    Args:
        num_elements: how many elements will be worked through; below 2**15 (some 20 us) one thread
            is used, since waking others takes as long, or far longer on a busy machine.
    """
    threads = torch.get_num_threads()
    before = numba.get_num_threads()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    is_small = num_elements is not None and num_elements < _WORTH_THREADS
    numba.set_num_threads(1 if is_small else min(threads, most))
    try:
        yield
    finally:
        numba.set_num_threads(before)
