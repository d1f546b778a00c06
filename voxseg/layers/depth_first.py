"""Run the stages of a split network depth first, within a memory budget.

Source: Jafari and Rother, *Split-Merge Pooling*, 2020, arXiv:2006.07742, section 3.1: sub-grids
are independent, so that one GPU can process them one after the other.

Departures: how many go through at a time is ours to say. All remaining stages are taken at once by
as many sub-grids as fit; if not even one fits, it takes one stage, and what that splits it into
goes on in the same way. What fits is measured on the meta device, with shapes and without numbers.
"""

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxseg.layers.split_merge import Offset, merge


@dataclass(frozen=True)
class Stage:
    """A part of a network: from one map to the next."""

    module: nn.Module
    """What it does."""
    plan: nn.Module
    """The same on the meta device, in eval mode."""
    windows: tuple[Offset, ...]
    """The windows that it splits by, first one first."""

    def merge(self, scores: Tensor) -> Tensor:
        """Merge scores of this stage's sub-grids back to the grid of its input."""
        for window in reversed(self.windows):
            scores = merge(scores, window)
        return scores


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types there
    """Count the bytes of tensors that were made in its context and still live.

    Args:
        device: type of the device whose tensors count.

    Attributes:
        live: now.
        peak: the most so far.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.device = device
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # What was there before is not ours, also where an operation returns it.
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        result = func(*args, **(kwargs or {}))
        for tensor in filter(_is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            if tensor.device.type != self.device:
                continue
            if id(storage) not in self._known and id(storage) not in given:
                self._known[id(storage)] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._freed, id(storage))
        return result

    def _freed(self, storage: int) -> None:
        self.live -= self._known.pop(storage)


def merged_scores(
    stages: Sequence[Stage],
    parts: Tensor,
    memory_budget: int | None = None,
    planning: contextlib.AbstractContextManager[Any] | None = None,
) -> Tensor:
    """Run all stages and merge their scores on the grid of ``parts``.

    Args:
        stages: in the order of the forward pass.
        parts: (n, C, *S).
        memory_budget: most bytes to hold at a time besides ``parts``; unlimited if not given.
        planning: held while the stages' plans run, if other threads use them too.

    Returns:
        (n, classes, *S).

    Raises:
        ValueError: not even one sub-grid at a time fits into the budget.
    """
    if memory_budget is None:
        return _at_once([stage.module for stage in stages], stages, parts)
    walk = _Walk(tuple(stages), planning or contextlib.nullcontext(), {})
    return walk.run(0, parts, memory_budget)


@dataclass(frozen=True)
class _Need:
    """Bytes for one sub-grid."""

    rest: int
    """At the worst moment of all remaining stages and merging, result included."""
    stage: int
    """At the worst moment of the next stage."""
    output: int
    """Of what the next stage gives."""
    scores: int
    """Of the merged scores."""


@dataclass(frozen=True)
class _Walk:
    stages: tuple[Stage, ...]
    planning: contextlib.AbstractContextManager[Any]
    known: dict[tuple[int, torch.Size], _Need]

    def run(self, first: int, parts: Tensor, spare: int) -> Tensor:
        """Return the merged scores of ``parts``, holding no more than ``spare`` bytes more."""
        need = self.need(first, parts)
        count = parts.shape[0]
        if count * need.rest <= spare:
            return self.rest(first, parts)
        left = spare - count * need.scores
        chunk = left // need.rest
        if chunk < 1:
            # While one sub-grid of the stage is merged, its parts' scores and steps live as well.
            is_last = first == len(self.stages) - 1
            least = need.rest if is_last else max(need.stage, 3 * need.scores)
            if is_last or left < least:
                raise ValueError(
                    f"the memory budget is too small: at least {least - left} bytes more are "
                    "needed to process one sub-grid at a time"
                )
        result: Tensor | None = None
        for start in range(0, count, max(chunk, 1)):
            part = parts[start : start + max(chunk, 1)]
            scores = self.rest(first, part) if chunk else self.deeper(first, part, left, need)
            if result is None:
                result = scores.new_empty(count, *scores.shape[1:])
            result[start : start + part.shape[0]] = scores
            del scores
        if result is None:
            raise ValueError("there must be at least one image")
        return result

    def rest(self, first: int, parts: Tensor) -> Tensor:
        rest = self.stages[first:]
        return _at_once([stage.module for stage in rest], rest, parts)

    def deeper(self, first: int, part: Tensor, left: int, need: _Need) -> Tensor:
        """Take ``part`` through one stage, and its sub-grids through the others one by one."""
        stage = self.stages[first]
        output = stage.module(part)
        scores = self.run(first + 1, output, left - need.output)
        del output
        return stage.merge(scores)

    def need(self, first: int, parts: Tensor) -> _Need:
        key = (first, parts.shape[1:])
        if key not in self.known:
            self.known[key] = self.measured(first, parts)
        return self.known[key]

    def measured(self, first: int, parts: Tensor) -> _Need:
        stages = self.stages[first:]
        one = torch.empty(1, *parts.shape[1:], dtype=parts.dtype, device="meta")
        with self.planning, torch.no_grad():
            # Autocast, which knows nothing of the meta device, changes the type between stages.
            for later in stages:
                later.plan.to(parts.dtype)
            with LiveBytes("meta") as stage:
                output = stages[0].plan(one)
            with LiveBytes("meta") as rest:
                scores = _at_once([stage.plan for stage in stages], stages, one)
        return _Need(rest.peak, stage.peak, _bytes(output), _bytes(scores))


def _at_once(modules: Sequence[nn.Module], stages: Sequence[Stage], parts: Tensor) -> Tensor:
    for module in modules:
        parts = module(parts)
    for stage in reversed(stages):
        parts = stage.merge(parts)
    return parts


def _bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * tensor.element_size()


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
