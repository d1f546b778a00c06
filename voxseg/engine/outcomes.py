"""What became of each case of a prediction, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxseg.data.cases import TaskKind
from voxseg.documents import document
from voxseg.schemas import PREDICT


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
    """Of each class but background; empty where the mask was kept as it was."""
    postprocessing: str = ""
    """What was done to the mask; "" for nothing."""
    task: TaskKind = "segmentation"
    """What the network was trained for."""
    category: str = ""
    """The most probable class of a whole photograph; "" of other tasks."""
    also: tuple[str, ...] = ()
    """Other files of the case that were asked for: for 3D Slicer, DICOM and so on."""


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


def predict_document(outcomes: Sequence[CaseOutcome]) -> dict[str, Any]:
    """What became of each case as plain values: ``predict.json``, and what ``--json`` prints."""
    return document(PREDICT, {"cases": [asdict(outcome) for outcome in outcomes]})
