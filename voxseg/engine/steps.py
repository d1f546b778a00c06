"""A training step, and the losses of an epoch's steps.

On a GPU the host only asks for work and goes on. Whatever reads a number back makes it wait until
all that was asked for is done, and the GPU then waits for the host: nothing in a step reads one.
The loss comes to the host on its own, and is looked at one step later.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from voxseg.data.patches import Batch
from voxseg.engine.config import Config
from voxseg.engine.device import Compute
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.optimise import (
    average_model,
    build_optimiser,
    learning_rate,
    set_learning_rate,
)
from voxseg.engine.ranks import Ranks
from voxseg.engine.supervision import Supervision
from voxseg.errors import VoxsegError


@final
class TrainingStep:
    """What one step does to the weights: loss, gradient, optimiser, average.

    Args:
        network: placed where ``compute`` says.
        config: resolved.
        compute: device, precision, memory layout, processes.
        weight: see ``Supervision``.
    """

    def __init__(
        self, network: SegmentationNetwork, config: Config, compute: Compute, weight: Tensor | None
    ) -> None:
        self._settings, self._ranks = config.train, compute.ranks
        self.network = network
        self.average = average_model(network, config.train.ema_decay)
        self.optimiser = build_optimiser(network, config.train)
        self.scaler = torch.amp.GradScaler(enabled=compute.precision is torch.float16)
        self._supervision = Supervision(config, compute, weight)
        self._parameters = list(network.parameters())

    def __call__(self, batch: Batch, number: int, progress: float) -> Tensor:
        """Take step ``number`` of the run, at ``progress`` in [0, 1] of it.

        Returns:
            The loss before the step, of this process's share of the batch, on the device. It may
            not be finite, and then the weights are not either: see ``Losses`` and
            ``require_finite``.
        """
        settings = self._settings
        set_learning_rate(self.optimiser, learning_rate(settings, progress))
        loss = self._supervision(self.network, batch, number, progress)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self._ranks.add_gradients(self._parameters)
        if settings.clip_norm:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return loss.detach()


@final
class Losses:
    """The losses of an epoch's steps, in their order; each is refused unless it is finite.

    Args:
        ranks: the processes whose losses add up.
        late: read each loss when the next one is added, so that the host does not wait for the
            step that it has just asked for; right for GPUs.
    """

    def __init__(self, ranks: Ranks, *, late: bool) -> None:
        self._ranks, self._late = ranks, late
        self.last = math.nan
        """The latest that is known; NaN before the first, which is read at once."""
        self._values: list[float] = []
        self._pending: _Pending | None = None

    def add(self, step: int, loss: Tensor) -> None:
        """Take the loss of ``step``.

        Raises:
            VoxsegError: it is not finite, or that of the step before was not.
        """
        due: _Pending | None = _Pending(step, *_to_host(loss))
        if self._late and not math.isnan(self.last):
            due, self._pending = self._pending, due
        if due is not None:
            self._read(due)

    def settle(self) -> list[float]:
        """Read what is still to come, give the losses since the last time, and forget them.

        Raises:
            VoxsegError: one is not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            self._read(pending)
        values, self._values = self._values, []
        return values

    def _read(self, pending: "_Pending") -> None:
        if pending.arrives is not None:
            pending.arrives.synchronize()
        value = self._ranks.total(float(pending.value))
        if not math.isfinite(value):
            raise self._ranks.agreed(
                VoxsegError(
                    f"the loss is {value} at step {pending.step}; lower train.learning_rate, "
                    "or set train.precision to float32"
                )
            )
        self._values.append(value)
        self.last = value


@dataclass(frozen=True)
class _Pending:
    """A loss on its way to the host."""

    step: int
    value: Tensor
    arrives: torch.cuda.Event | None


def _to_host(loss: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start to copy a number to the host; it is there when the event has come."""
    if loss.device.type != "cuda":
        return loss.detach(), None
    value = torch.empty((), dtype=loss.dtype, pin_memory=True)
    value.copy_(loss.detach(), non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
    event.record()
    return value, event


def require_finite(network: nn.Module, step: int, ranks: Ranks) -> None:
    """Refuse weights and statistics that are not finite, before they are used or kept.

    A gradient can overflow where the loss does not.

    Raises:
        VoxsegError: in all processes, if one of them holds such a number.
    """
    values = [t for t in network.state_dict().values() if t.is_floating_point()]
    largest = torch.stack([t.abs().amax() for t in values if t.numel()]).float()
    if ranks.any(not bool(largest.isfinite().all())):
        raise ranks.agreed(
            VoxsegError(
                f"the network's weights are not finite after step {step}; lower "
                "train.learning_rate, or set train.precision to float32"
            )
        )
