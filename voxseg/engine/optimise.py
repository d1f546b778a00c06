"""Optimiser, learning rate and averaged weights."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from voxseg.engine.config import TrainConfig
from voxseg.errors import UsageError

_POLY_POWER = 0.9
_BETA1 = 0.9
_FUSED = ("cpu", "cuda")  # devices whose optimisers go through the weights once
_ROUNDING = 1e-6  # of an epoch: a step's share of the run is rounded
_FINAL_AUXILIARY_WEIGHT = 1e-3  # where the authors of VoxResNet let it end


class HeadedNetwork(Protocol):
    """A network that says which of its parameters are the head's, which no ImageNet file has."""

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """Go through the head's parameters."""


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay leaves out biases and normalisation.

    A group's ``rate`` is its learning rate as a multiple of the run's, see ``set_learning_rate``.

    Raises:
        UsageError: the head is to have a rate of its own, and the network knows of no head.
    """
    head = _head(model) if (config.head_rate, config.head_bias_rate) != (1, 1) else set()
    groups: list[dict[str, Any]] = []
    for weight_rate, bias_rate, is_head in (
        (1.0, 1.0, False),
        (config.head_rate, config.head_bias_rate, True),
    ):
        own = [p for p in model.parameters() if (p in head) == is_head]
        weights = [p for p in own if p.ndim > 1]
        others = [p for p in own if p.ndim <= 1]
        groups += [
            {"params": weights, "weight_decay": config.weight_decay, "rate": weight_rate},
            {"params": others, "weight_decay": 0.0, "rate": bias_rate},
        ]
    groups = [group for group in groups if group["params"]]
    # In one pass over the weights, and as one piece of work for a GPU instead of many.
    fused = all(p.device.type in _FUSED for p in model.parameters())
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            fused=fused,
        )
    betas = (_BETA1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its multiple of ``rate``."""
    for group in optimiser.param_groups:
        # Checkpoints of earlier versions hold no multiples.
        group["lr"] = rate * group.get("rate", 1.0)


def _head(model: nn.Module) -> set[nn.Parameter]:
    if not hasattr(model, "head_parameters"):
        raise UsageError(
            "train.head_rate and train.head_bias_rate are for networks with a head on a trunk "
            f"(pixelnet, sunet), and {type(model).__name__} says of none; leave them out"
        )
    return set(cast("HeadedNetwork", model).head_parameters())


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Learning rate at ``progress`` in [0, 1] of the run."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    left = 1 - (progress - config.warmup) / max(1 - config.warmup, 1e-9)
    left = min(max(left, 0.0), 1.0)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
    if config.schedule == "poly":
        return config.learning_rate * math.pow(left, _POLY_POWER)
    if config.schedule == "step":
        epoch = progress * config.epochs + _ROUNDING
        falls = epoch // config.step_epochs
        if config.step_at:
            falls = sum(epoch >= at for at in config.step_at)
        return config.learning_rate * math.pow(0.1, falls)
    return config.learning_rate


def auxiliary_weight(config: TrainConfig, progress: float) -> float:
    """Deep supervision's weight at ``progress`` in [0, 1] of the run."""
    start = config.auxiliary_weight
    if start <= _FINAL_AUXILIARY_WEIGHT:
        return start
    return start + (_FINAL_AUXILIARY_WEIGHT - start) * progress


class WeightAverage(AveragedModel):
    """Exponential average of weights and buffers, faster over the first updates.

    Early on the decay is (1 + n) / (10 + n): the average forgets the random start at once. torch's
    own update sends the number of updates to the GPU and reads it back, twice a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take up the state of ``model`` after one more step."""
        n = int(self.n_averaged)  # on the CPU wherever the weights are
        share = 1 - min(self._decay, (1 + n) / (10 + n))
        followed: tuple[list[Tensor], list[Tensor]] = [], []
        copied: tuple[list[Tensor], list[Tensor]] = [], []
        for average, value in zip(_state(self.module), _state(model), strict=True):
            moves = n > 0 and average.is_floating_point()
            mine, its = followed if moves else copied
            mine.append(average)
            its.append(value)
        if followed[0]:
            torch._foreach_lerp_(*followed, share)
        if copied[0]:
            torch._foreach_copy_(*copied)
        self.n_averaged += 1


def _state(model: nn.Module) -> Iterator[Tensor]:
    """Go through weights and buffers."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        yield tensor.detach()


def average_model(model: nn.Module, decay: float) -> WeightAverage | None:
    """Average the weights of ``model`` from now on; None for a ``decay`` of 0."""
    return WeightAverage(model, decay) if decay else None


def averaged(model: nn.Module, average: AveragedModel | None) -> nn.Module:
    """Return the network to validate and keep: the averaged one where there is one."""
    return model if average is None else average.module
