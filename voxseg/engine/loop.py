"""The training loop: one fold; it can be stopped at any moment and resumed.

A run's state is its step number: patches depend on (seed, step) alone, so that a resumed run goes
on with the bits an unbroken one would have. A checkpoint is written after each epoch, and on Ctrl-C
or SIGTERM after the step at hand.

Several processes (``Compute.ranks``) take the same steps, each on its share of the same batch. What
a step or an epoch decides is the same in all of them, and so are the weights; the first one writes.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, final

import torch

from voxseg.data.patches import Batch
from voxseg.data.prepare import Prepared
from voxseg.engine.ahead import Ahead
from voxseg.engine.checkpoint import load_checkpoint, save_checkpoint
from voxseg.engine.config import Config, to_tables
from voxseg.engine.device import Compute
from voxseg.engine.network import (
    SegmentationNetwork,
    build_network,
    initialise_from,
    network_axes,
    network_channels,
)
from voxseg.engine.optimise import averaged
from voxseg.engine.progress import InterruptedRunError, Progress, TrainResult, TrainState
from voxseg.engine.run_log import RunLog
from voxseg.engine.sampling import build_sampler, patch_size
from voxseg.engine.steps import Losses, TrainingStep, require_finite
from voxseg.engine.stop import StopRequest
from voxseg.engine.supervision import training_weights
from voxseg.engine.sync_norm import average_statistics, synchronise_norms
from voxseg.engine.validation import score_name, validate
from voxseg.engine.workers import Workers, patch_worker_count


@final
class TrainingRun:
    """One training run over prepared cases.

    Args:
        config: resolved; ``labels.values`` must be filled.
        cases: training subjects, prepared, with labels.
        validation: subjects on which the best weights are chosen; may be empty.
        run: the run folder.
        compute: device, precision, memory layout, processes.
        init_from: a checkpoint whose shared weights the network starts from.
        notify: called after each step.
        say: called with a sentence when something is worth a line.
    """

    def __init__(
        self,
        config: Config,
        cases: Sequence[Prepared],
        validation: Sequence[Prepared],
        run: Path,
        compute: Compute,
        *,
        init_from: Path | None = None,
        notify: Callable[[Progress], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._run, self._compute = config, run, compute
        self._ranks = ranks = compute.ranks
        self._validation, self._notify, self._say = validation, notify, say
        settings = config.train
        channels, dims = len(cases[0].image), cases[0].image.ndim - 1
        self._in_channels = network_channels(config.data, channels, dims)
        dims = network_axes(config.data, dims)
        self._patch = patch_size(settings.patch_voxels, dims, cases)
        self._batch_voxels = settings.batch_size * math.prod(self._patch)
        torch.manual_seed(settings.seed)
        network = build_network(
            config.model, self._in_channels, config.num_outputs, dims, config.task.kind
        )
        if init_from is not None:
            sizes = (self._in_channels, config.num_outputs)
            loaded = ranks.first(lambda: initialise_from(network, init_from, *sizes))
            say(f"started from {init_from}: {loaded}")
        compute.place(network)
        ranks.copy_first(network.state_dict().values())
        if ranks.size > 1 and settings.sync_batchnorm:
            synchronise_norms(network, ranks)
        weight = ranks.first(lambda: training_weights(config, cases))
        self._steps = TrainingStep(network, config, compute, weight)
        self._network, self._average = network, self._steps.average
        self._losses = Losses(ranks, late=compute.device.type == "cuda")
        self._state = TrainState()
        self._class_dice: tuple[float, ...] = ()
        self._sampler = build_sampler(config, cases, self._patch, (ranks.rank, ranks.size))

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self._run / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint to predict with."""
        return self._run / "checkpoints" / "best.pt"

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch: loss, learning rate, Dice where it was validated, seconds."""
        return self._state.history

    def resume(self) -> bool:
        """Take up ``last.pt`` if there is one; say whether."""
        content = self._ranks.first(
            lambda: load_checkpoint(self.last) if self.last.is_file() else None
        )
        if content is None:
            return False
        self._network.load_state_dict(content["raw"])
        if self._average is not None:
            self._average.load_state_dict(content["average"])
        self._steps.optimiser.load_state_dict(content["optimiser"])
        self._steps.scaler.load_state_dict(content["scaler"])
        self._state = TrainState(**content["state"])
        torch.set_rng_state(content["rng"])
        settings = self._config.train  # epochs, budget or patience may have been raised since
        self._state.finished = self._over(settings.epochs * settings.steps_per_epoch) or self._stale
        return True

    def fit(self, stop: StopRequest) -> TrainResult:
        """Train to the end of the epochs, the time budget or the patience."""
        settings, state = self._config.train, self._state
        total = settings.epochs * settings.steps_per_epoch
        with (
            RunLog(self._run, writes=self._ranks.is_first) as log,
            self._batches(total) as batches,
        ):
            clock = _Clock(state.elapsed)
            before = clock.seconds  # the time it takes to make a batch counts too
            for batch in batches:
                self._step(batch, self._progress(total, state.elapsed))
                state.step += 1
                state.elapsed = self._ranks.firsts(clock.seconds)
                speed = self._batch_voxels / max(clock.seconds - before, 1e-9)
                self._tell(speed, total)
                over = self._over(total)
                asked = self._ranks.any(stop.requested)
                if over or state.step % settings.steps_per_epoch == 0:
                    self._end_epoch(log, over, clock)
                elif asked:
                    self._settle()
                    self._save_last()
                if asked and not state.finished:
                    raise self._ranks.agreed(
                        InterruptedRunError(
                            f"stopped after step {state.step} of {total}; {self.last} is written, "
                            "go on with the same command and --resume"
                        )
                    )
                if state.finished:
                    break
                before = clock.seconds
        best = self._best_row()
        return TrainResult(
            best.get("dice", math.nan),
            best.get("iou", math.nan),
            tuple(state.history[-1].get("best_class_dice", ())) if state.history else (),
            state.step,
            state.elapsed,
            self.best,
            best.get("score", math.nan),
            score_name(self._config),
        )

    def _batches(self, total: int) -> Ahead[int, Batch]:
        size, state = self._config.train.batch_size, self._state
        device, on_machine = self._compute.device, self._ranks.launch.local_size
        workers = Workers(
            partial(self._sampler.batch, size=size),
            range(total if state.finished else state.step, total),
            patch_worker_count(self._config.train.workers, device, on_machine),
            describe=lambda step: f"cutting patches of {self._sampler.names(step, size)}",
            folder=self._run / "prepared",
            say=self._say,
        )
        if device.type != "cuda":
            return Ahead(workers, lambda batch: batch)
        # Memory from which a GPU takes a batch without the host's waiting.
        return Ahead(workers, lambda batch: batch.each(torch.Tensor.pin_memory))

    def _step(self, batch: Batch, progress: float) -> None:
        number = self._state.step
        self._losses.add(number, self._steps(batch, number, progress))

    def _settle(self) -> list[float]:
        """Make the weights fit to be used or kept, or refuse them; give the losses so far."""
        losses = self._losses.settle()
        self._join_statistics()
        require_finite(self._network, self._state.step, self._ranks)
        return losses

    @property
    def _stale(self) -> bool:
        return 0 < self._config.train.patience <= self._state.stale

    def _progress(self, total: int, seconds: float) -> float:
        done = self._state.step / total
        budget = self._config.train.max_minutes * 60
        return min(1.0, max(done, seconds / budget if budget else 0.0))

    def _over(self, total: int) -> bool:
        settings, state = self._config.train, self._state
        late = settings.max_minutes > 0 and state.elapsed >= settings.max_minutes * 60
        return late or state.step >= total

    def _end_epoch(self, log: RunLog, over: bool, clock: "_Clock") -> None:
        settings, state = self._config.train, self._state
        losses = self._settle()
        epoch = math.ceil(state.step / settings.steps_per_epoch)
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": state.step,
            "loss": sum(losses) / max(len(losses), 1),
            "learning_rate": self._steps.optimiser.param_groups[0]["lr"],
        }
        due = over or epoch % settings.validate_every == 0
        is_best, rank = False, -math.inf
        if due and self._validation:
            network = averaged(self._network, self._average).eval()
            found = validate(
                cast("SegmentationNetwork", network), self._validation, self._compute, self._config
            )
            row |= {**found.facts, "score": found.score, "rank": found.rank}
            state.score, rank = found.score, found.rank
            is_best = rank > state.best
            state.stale = 0 if is_best else state.stale + 1
        if is_best or not self._validation:
            state.best = max(state.best, rank)
            if self._ranks.is_first:
                save_checkpoint(self.best, self._content())
            self._class_dice = tuple(row.get("class_dice", ()))
        state.finished = over or self._stale
        state.elapsed = self._ranks.firsts(clock.seconds)
        row["seconds"] = state.elapsed
        earlier = state.history[-1].get("best_class_dice", []) if state.history else []
        row["best_class_dice"] = list(self._class_dice) or earlier
        state.history.append(row)
        self._save_last()
        log.add(row)

    def _best_row(self) -> dict[str, Any]:
        """The epoch whose weights are kept; empty if none was validated."""
        validated = [row for row in self._state.history if "rank" in row]
        return max(validated, key=lambda row: float(row["rank"]), default={})

    def _content(self) -> dict[str, Any]:
        network = averaged(self._network, self._average)
        return {
            "model": network.state_dict(),
            "config": to_tables(self._config),
            "in_channels": self._in_channels,
            "spatial_dims": len(self._patch),
            "step": self._state.step,
            "score": self._state.score,
        }

    def _join_statistics(self) -> None:
        """Before the network is used or kept: let processes with norms of their own agree."""
        if not self._config.train.sync_batchnorm:
            average_statistics(self._network, self._ranks)
            if self._average is not None:
                average_statistics(self._average, self._ranks)

    def _save_last(self) -> None:
        if not self._ranks.is_first:
            return
        average = self._average
        save_checkpoint(
            self.last,
            {
                **self._content(),
                "raw": self._network.state_dict(),
                "average": None if average is None else average.state_dict(),
                "optimiser": self._steps.optimiser.state_dict(),
                "scaler": self._steps.scaler.state_dict(),
                "state": vars(self._state),
                "rng": torch.get_rng_state(),
            },
        )

    def _tell(self, speed: float, total: int) -> None:
        settings, state = self._config.train, self._state
        progress = max(self._progress(total, state.elapsed), 1e-9)
        self._notify(
            Progress(
                epoch=math.ceil(state.step / settings.steps_per_epoch),
                epochs=settings.epochs,
                step=state.step,
                steps=total,
                loss=self._losses.last,
                voxels_per_second=speed,
                seconds_left=state.elapsed * (1 - progress) / progress,
                score=state.score,
                score_name=score_name(self._config),
            )
        )


class _Clock:
    """Seconds of a run, over all its parts."""

    def __init__(self, earlier: float) -> None:
        self._start = time.monotonic() - earlier

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
