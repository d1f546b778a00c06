"""Optimiser, learning rate and averaged weights."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from voxseg.engine.config import TrainConfig
from voxseg.errors import UsageError

_POLY_POWER = 0.9
_BETA1 = 0.9
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
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(_BETA1, config.beta2))


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


def average_model(model: nn.Module, decay: float) -> AveragedModel | None:
    """Exponential average of weights and buffers, faster over the first updates; None for 0.

    Early on the decay is (1 + n) / (10 + n): the average forgets the random start at once.
    """
    if not decay:
        return None

    @torch.no_grad()
    def update(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        share = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(current), share)
        else:
            for average, value in zip(averages, current, strict=True):
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def averaged(model: nn.Module, average: AveragedModel | None) -> nn.Module:
    """Return the network to validate and keep: the averaged one where there is one."""
    return model if average is None else average.module
