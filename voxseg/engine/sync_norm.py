"""Batch normalisation over the batches of all processes, on CPUs too.

Here and not among the layers: a network and its checkpoint do not depend on how many processes
train it, so the models know nothing of this. PyTorch's ``SyncBatchNorm`` works on GPUs only.

Source: S. Ioffe and C. Szegedy, *Batch Normalization*, 2015, arXiv:1502.03167; means and variances
are joined as in Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing
sample variances*, 1979, which loses no digits where a mean is large.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.engine.ranks import Ranks


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch normalisation whose statistics are those of all processes' samples together.

    Parameters, statistics and their names are those of the layer that it replaces. In evaluation
    mode it talks to nobody. Shape: (B, C, *S) -> (B, C, *S); B may differ by process.

    Args:
        norm: the layer it replaces, with running statistics.
        ranks: the processes.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, ranks: Ranks) -> None:
        if not norm.track_running_stats:
            raise ValueError("only a batch norm with running statistics can be synced")
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        if norm.affine:
            self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)
        self._ranks = ranks

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, *S), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, and in training update the running statistics as the plain layer does."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        mean, variance, count = _joint_statistics(input.detach(), self._ranks)
        self._remember(mean, variance, count)
        weight: Tensor = self.weight if self.affine else torch.ones_like(mean)
        bias: Tensor = self.bias if self.affine else torch.zeros_like(mean)
        normalised = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, weight, bias, (mean, variance, count), self.eps, self._ranks
        )
        return cast(Tensor, normalised)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        unbiased = variance * count / (count - 1).clamp_min(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def synchronise_norms(network: nn.Module, ranks: Ranks) -> None:
    """Replace every batch normalisation inside ``network`` by one over all processes, in place."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, SyncedBatchNorm(child, ranks))
        else:
            synchronise_norms(child, ranks)


def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Give norms that were not synchronised one set of running statistics: the processes' mean."""
    ranks.average(network.buffers())


def _joint_statistics(values: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of all processes' samples, and how many there are."""
    axes = [axis for axis in range(values.ndim) if axis != 1]
    wide = values if values.dtype == torch.float64 else values.float()
    mean = wide.mean(axes, keepdim=True)
    # In two passes: as exact as torch.var_mean, and several times as fast on a CPU.
    variance = (wide - mean).square_().mean(axes)
    channels = values.shape[1]
    count = mean.new_tensor([values.numel() // channels])
    rows = ranks.rows(torch.cat([mean.view(channels), variance, count]))
    means, variances, counts = torch.split(rows, [channels, channels, 1], 1)
    total = counts.sum()
    joint = (means * counts).sum(0) / total
    variance = ((variances + (means - joint) ** 2) * counts).sum(0) / total
    return joint, variance, total


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor, Tensor],
        eps: float,
        ranks: Ranks,
    ) -> Tensor:
        mean, variance, count = statistics
        ctx.save_for_backward(values, weight, mean, variance, count)
        ctx.eps, ctx.ranks = eps, ranks
        return functional.batch_norm(values, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance, count = ctx.saved_tensors
        (gradient,) = gradients
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = (1, -1, *[1] * (values.ndim - 2))
        inverse = torch.rsqrt(variance + ctx.eps)
        centred = values - mean.view(shape)
        for_bias = gradient.sum(axes, dtype=mean.dtype)
        for_weight = (gradient * centred).sum(axes) * inverse
        # Mean and variance depend on every sample of every process: they take the gradient's mean,
        # and its part along the normalised values, away.
        offset, along = ctx.ranks.add(torch.stack([for_bias, for_weight])) / count
        slope = (inverse * along).view(shape)
        for_values = torch.addcmul(gradient - offset.view(shape), centred, slope, value=-1)
        for_values = for_values.mul_((weight * inverse).view(shape)).to(values.dtype)
        return for_values, for_weight, for_bias, None, None, None
