"""The processes of one training run (ranks): what they add up, agree on and do one for all.

All of them take the same steps. Whatever decides the course of a run (time, requests to stop, a
loss that is not finite, errors) is therefore the same number in all: the first process's, or the
sum. A process that went its own way would leave the others waiting in a collective for ever.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from voxseg.engine.launch import Launch, read_launch
from voxseg.engine.stop import stop_on_signals
from voxseg.errors import UsageError, VoxsegError

Value = TypeVar("Value")

# A process that ends is noticed at once, by its connections; this is for one that hangs. Others
# may rightly wait long, while the first one checks the data or a share is prepared.
_LONGEST_WAIT = timedelta(hours=2)
_TIME_TO_SPEAK = 1.0
"""Seconds in which a process that ends because of another one lets that one print its error."""


class OtherRankError(VoxsegError):
    """Another process ends the run and tells why; this one ends with its code and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


class LostRankError(VoxsegError):
    """A collective failed: another process is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; on its own, every method is the identity."""

    launch: Launch = field(default_factory=Launch)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.launch.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.launch.size

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.launch.rank == 0

    def own_device(self, name: str) -> str:
        """Make "auto" and "cuda" the GPU of this process.

        Raises:
            UsageError: one GPU is named for several processes, or a device they cannot share.
        """
        if self.size == 1:
            return name
        kind = name.replace("gpu", "cuda")
        if kind == "auto":
            return f"cuda:{self.launch.local_rank}" if torch.cuda.is_available() else "cpu"
        if kind == "cuda":
            return f"cuda:{self.launch.local_rank}"
        if kind != "cpu":
            raise UsageError(
                f"--device {name} is one device for {self.size} processes; use cuda, of which each "
                "takes its own, or cpu"
            )
        return kind

    def add(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes, differentiably.

        Backward sums the gradient over the processes: what each of them returns from its own graph
        then are the gradients of the sum of all processes' losses.
        """
        return tensor if self.size == 1 else cast(Tensor, _Add.apply(tensor))  # type: ignore[no-untyped-call]

    def rows(self, row: Tensor) -> Tensor:
        """Collect one row (n,) of each process into (size, n), without a gradient."""
        rows = row.new_zeros((self.size, *row.shape))
        rows[self.rank] = row
        return rows if self.size == 1 else _all_reduce(rows)

    def total(self, value: float) -> float:
        """Sum a number over the processes."""
        if self.size == 1:
            return value
        return float(_all_reduce(torch.tensor(value, dtype=torch.float64)))

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        return self.total(float(flag)) > 0

    def firsts(self, value: float) -> float:
        """Take the first process's number."""
        return self.total(value if self.is_first else 0.0)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes, in place.

        Sum, not mean: each process's loss is its part of the whole batch's loss. One buffer after
        the backward pass, instead of DistributedDataParallel's buckets during it: networks here
        have a few million weights at most, so that there is little to hide, and DDP's division by
        the number of processes is wrong for unequal shares.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size > 1 and gradients:
            _replace(gradients, _all_reduce(_flat(gradients)))

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors by their mean over the processes."""
        chosen = [t for t in tensors if t.is_floating_point()]
        if self.size > 1 and chosen:
            _replace(chosen, _all_reduce(_flat(chosen)) / self.size)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by the first process's."""
        if self.size > 1:
            for tensor in tensors:
                with _lost_rank_named():
                    dist.broadcast(tensor, src=0)

    def gather(self, value: Value) -> list[Value]:
        """Collect a plain value of each process, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _lost_rank_named():
            dist.all_gather_object(values, value)
        return values

    def first(self, work: Callable[[], Value]) -> Value:
        """Let the first process work alone and give all of them its answer, a plain value.

        If it fails, its error is raised there, and an ``OtherRankError`` in the others.
        """
        if self.size == 1:
            return work()
        answer: Any = None
        failure: Exception | None = None
        if self.is_first:
            try:
                answer = work()
            except Exception as error:  # raised again below, when all know
                failure = error
        box: list[Any] = [(answer, _code(failure))]
        with _lost_rank_named():
            dist.broadcast_object_list(box, src=0)
        if failure is not None:
            raise failure
        answer, code = box[0]
        if code is not None:
            raise OtherRankError(code)
        return cast(Value, answer)

    def together(self, work: Callable[[], Value]) -> Value:
        """Let every process work; if it fails in one, the first process tells and all end."""
        if self.size == 1:
            return work()
        answer: Value | None = None
        failure: VoxsegError | None = None
        try:
            answer = work()
        except VoxsegError as error:
            failure = error
        found = self.gather(None if failure is None else (str(failure), failure.exit_code))
        failed = [(rank, one) for rank, one in enumerate(found) if one is not None]
        if failed:
            rank, (sentence, code) = failed[0]
            raise self.agreed(_error(sentence if rank == 0 else f"rank {rank}: {sentence}", code))
        return cast(Value, answer)

    def agreed(self, error: VoxsegError) -> VoxsegError:
        """Give what to raise for an error that all processes raise: one of them tells.

        They come here together: none leaves while the first one still writes a checkpoint.
        """
        self.total(0.0)
        return error if self.is_first else OtherRankError(error.exit_code)


ALONE = Ranks()
"""A process on its own."""


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started with this one; without it, stay alone.

    Gloo on CPUs, NCCL between GPUs; what decides a run's course is always on CPUs. All processes
    must see the same files.

    Raises:
        VoxsegError: the others cannot be reached.
    """
    launch = read_launch()
    if launch.size == 1:
        yield ALONE
        return
    if not dist.is_available():
        raise UsageError("this torch cannot train in several processes; start without torchrun")
    with_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if with_nccl else "gloo", timeout=_LONGEST_WAIT
        )
    except (RuntimeError, ValueError) as error:
        raise VoxsegError(f"cannot join the other processes ({_line(error)})") from error
    try:
        yield Ranks(launch)
    except (OtherRankError, LostRankError):
        _let_speak()
        raise
    finally:
        dist.destroy_process_group()


def _let_speak() -> None:
    """Stay while the process that failed prints why: torchrun ends all when one is gone.

    It may have asked this one to end already, whose own words must not be cut off either.
    """
    with stop_on_signals():
        time.sleep(_TIME_TO_SPEAK)


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_reduce(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduce(gradients[0].clone())


def _all_reduce(tensor: Tensor) -> Tensor:
    with _lost_rank_named():
        dist.all_reduce(tensor)
    return tensor


@contextlib.contextmanager
def _lost_rank_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"another process of this run is gone; its own error says why ({_line(error)})"
        ) from error


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _replace(tensors: list[Tensor], flat: Tensor) -> None:
    parts = torch.split(flat, [t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _error(sentence: str, code: int) -> VoxsegError:
    error = VoxsegError(sentence)
    error.exit_code = code
    return error


def _code(error: Exception | None) -> int | None:
    if error is None:
        return None
    return error.exit_code if isinstance(error, VoxsegError) else VoxsegError.exit_code


def _line(error: Exception) -> str:
    """First line of an error, without the place in C++ that some begin with."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line)[:120]
