"""What became of each case of a prediction, and how it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from voxseg.data.cases import TaskKind
from voxseg.documents import document
from voxseg.schemas import PREDICT

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."
"""Said beside volumes, wherever they stand."""

Unit = Literal["ml", "%"]
IntervalKind = Literal["", "conformal", "members"]
MeasureKind = Literal[
    "class", "structure", "difference", "asymmetry", "intracranial", "fraction"
]  # fmt: skip


@dataclass(frozen=True)
class CaseOutcome:
    """What happened to one case."""

    case_id: str
    output: str
    seconds: float
    error: str
    """One sentence, or "" when all went well."""
    memory: str = ""
    """How it was run: whole, in slabs, tiles or windows, and what did not fit before that."""
    needed_gb: float | None = None
    """Most memory of the process, as estimated before it started; None where nothing was run."""
    free_gb: float | None = None
    """What was free then."""
    volumes: tuple["Volumes", ...] = ()
    """Of each class but background."""
    postprocessing: str = ""
    """What was done to the mask; "" for nothing."""
    task: TaskKind = "segmentation"
    """What the network was trained for."""
    category: str = ""
    """The most probable class of a whole photograph; "" of other tasks."""
    also: tuple[str, ...] = ()
    """Other files of the case that were asked for: for 3D Slicer, DICOM and so on."""
    measures: tuple["Measured", ...] = ()
    """What the label table makes of them: sums, sides, shares."""
    volume_note: str = ""
    """What the label table says beside volumes."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of some stages: read, prepare, supervoxels, network, write."""


@dataclass(frozen=True)
class Uncertainty:
    """How far a figure may be off; numbers have its unit."""

    interval: IntervalKind = ""
    """What ``low`` and ``high`` are. "conformal": where the true value is expected, by the errors
    of the cases that a cross-validation held out. "members": the range of several members (folds,
    flips), without post-processing, which says nothing of the truth. "": unknown."""
    low: float | None = None
    high: float | None = None
    level: float | None = None
    """Share of new cases whose true value lies between them; None of other intervals."""
    held_out_cases: int = 0
    """Cases that "conformal" and the bias are from."""
    members: int = 0
    """Members that "members" is from."""
    bias_percent: float | None = None
    """Median over held-out cases of predicted over true value, less 1; nothing is corrected by
    it. None where that is not known, or the value may be negative."""


UNKNOWN = Uncertainty()


@dataclass(frozen=True)
class Volumes:
    """How large one class is."""

    label: int
    name: str
    ml: float
    """Of the mask, after post-processing."""
    low_ml: float | None = None
    """The least that one of several members (folds, flips) gives, without post-processing; None
    with one member."""
    high_ml: float | None = None
    """The most."""
    uncertainty: Uncertainty = UNKNOWN
    soft_ml: float | None = None
    """Sum of its probabilities times the volume of a voxel; None where no tissue map is asked
    for."""


@dataclass(frozen=True)
class Measured:
    """What the volumes of several classes make together."""

    kind: MeasureKind
    """"class": one alone. "structure": their sum. "difference": left minus right.
    "asymmetry": that over the mean of both. "intracranial": the sum of what lies in the skull.
    "fraction": a class's share of it."""
    name: str
    unit: Unit
    labels: tuple[int, ...]
    """Values of its classes; of a difference those on the left."""
    value: float | None
    """None where it is not defined, as the share of nothing."""
    uncertainty: Uncertainty = UNKNOWN


def predict_document(outcomes: Sequence[CaseOutcome]) -> dict[str, Any]:
    """What became of each case as plain values: ``predict.json``, and what ``--json`` prints."""
    cases = [asdict(outcome) for outcome in outcomes]
    return document(PREDICT, {"cases": cases, "disclaimer": DISCLAIMER})
