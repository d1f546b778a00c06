"""Write what networks of other tasks than segmentation answer."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case, TaskKind
from voxseg.engine.boundary_files import write_boundaries
from voxseg.engine.case_memory import CaseEstimate, Output
from voxseg.engine.inference import ran_out_of_memory
from voxseg.engine.normals_files import write_normals
from voxseg.engine.predictor import Predictor
from voxseg.errors import VoxsegError


def answer_case(
    predictor: Predictor,
    case: Case,
    target: Path,
    output: Output,
    estimate: CaseEstimate,
    say: Callable[[str], None] = lambda _: None,
    keeps_probabilities: bool = False,
) -> str:
    """Prepare, predict and write one case.

    Args:
        predictor: of boundaries or normals.
        case: a photograph.
        target: CASE.png; what else belongs to it lies beside it.
        output: what is gathered, with probabilities.
        estimate: what it was said to need.
        say: is told where less memory is taken.
        keeps_probabilities: of boundaries: also as they were before thinning.

    Returns:
        How it was run.

    Raises:
        VoxsegError: the case cannot be read or written, or takes more memory than there is.
    """
    with told_of_memory(case, estimate):
        prepared = predictor.prepare(case)
        gathered, memory = predictor.gather(prepared, estimate, output, say)
        with contextlib.closing(gathered):
            values = predictor.values_of(prepared, gathered)[..., 0]
        write_answer(predictor.config.task.kind, target, values, keeps_probabilities)
    return memory


def write_answer(kind: TaskKind, target: Path, values: np.ndarray, keeps: bool = False) -> None:
    """Write the values (channels, H, W) of a photograph."""
    if kind == "boundaries":
        write_boundaries(target, values[1], keeps_probabilities=keeps)
    else:
        write_normals(target, values)


@contextlib.contextmanager
def told_of_memory(case: Case, estimate: CaseEstimate) -> Iterator[None]:
    """Say in a sentence that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise VoxsegError(
            f"{case.case_id} ran out of memory: it needs about {estimate.needed_gb:.1f} GB; close "
            "other programs, or use a machine with more"
        ) from error
