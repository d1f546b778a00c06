"""Which of several processes this one is, as ``torchrun`` says in the environment.

Apart from ``ranks`` because the command line asks before it loads torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from voxseg.errors import UsageError


@dataclass(frozen=True)
class Launch:
    """One process of ``size``; the fields' own values stand for a process alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number on its machine, which is also the number of its GPU."""
    local_size: int = 1
    """Processes on its machine."""


def read_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without them a process is alone.

    Raises:
        UsageError: they contradict each other.
    """
    try:
        size = int(environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return Launch()
        rank = int(environ["RANK"])
        local_rank = int(environ["LOCAL_RANK"])
        local_size = int(environ.get("LOCAL_WORLD_SIZE", str(size)))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is set, but not all that torchrun sets with it ({error}); start with "
            "torchrun, or unset WORLD_SIZE"
        ) from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise UsageError(
            f"the environment calls this process number {rank} of {size}, {local_rank} of "
            f"{local_size} on its machine, which cannot be; start with torchrun"
        )
    return Launch(rank, size, local_rank, local_size)
