"""Optimiser, learning rate and averaged weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from voxseg.engine.config import TrainConfig

_POLY_POWER = 0.9
_BETA1 = 0.9
_FINAL_AUXILIARY_WEIGHT = 1e-3  # where the authors of VoxResNet let it end


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay leaves out biases and normalisation."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(_BETA1, config.beta2))


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
        return config.learning_rate * math.pow(0.1, progress * config.epochs // config.step_epochs)
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
