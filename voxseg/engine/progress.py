"""How far a training is, what it keeps on the way, and how it ended."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxseg.errors import ExitCode, VoxsegError


@dataclass(frozen=True)
class Progress:
    """What a run tells its caller, after each step and each validation."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    voxels_per_second: float
    seconds_left: float
    score: float
    """Latest validated mean, of what ``score_name`` says; NaN before the first validation."""
    score_name: str
    """"Dice" of the foreground, "IoU" of all classes, or another task's score."""
    name: str = ""
    """Which of several trainings at once; empty for one alone."""


@dataclass
class TrainState:
    """What changes during a run and is kept in its checkpoints."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds of training and validation, over all parts of a resumed run."""
    best: float = -math.inf
    """Rank of the best validation: its score, or that with its sign changed where low is good."""
    score: float = math.nan
    """Of the latest validation."""
    stale: int = 0
    """Validations since the best one."""
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class InterruptedRunError(VoxsegError):
    """The run was asked to stop and wrote a checkpoint."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    best_dice: float
    """Mean foreground Dice of the kept weights over the validation cases; NaN without any."""
    best_iou: float
    """The same of the mean IoU over all classes."""
    class_dice: tuple[float, ...]
    """Per class, background first, pooled over the validation cases' voxels; empty without any."""
    steps: int
    seconds: float
    checkpoint: Path
    score: float
    """What the kept weights were chosen by, of the task; NaN without validation cases."""
    score_name: str
    """What it is called."""
