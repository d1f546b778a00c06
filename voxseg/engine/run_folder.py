"""The folder of a run: made, guarded against a second process, cleared when it is overwritten."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from voxseg.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

SCORES = "scores.json"
"""In the folder of a fold: its held-out cases are scored, the fold is finished."""
_LENT = (
    "checkpoints/last.pt", "checkpoints/best.pt", "log.jsonl", "config.toml", "calibration.json",
    "calibration.png", "postprocessing.json", "metrics-postprocessed.csv",
)  # fmt: skip
"""What a new run would take for its own."""
_LOCK = ".lock"


@contextlib.contextmanager
def open_run(run: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the run folder and keep other processes out of it, or refuse one that holds a run.

    The lock ends with the process, however that ends; the empty file it hangs on stays.

    Raises:
        UsageError: the folder is in use or cannot be made, or holds files and neither ``resume``
            nor ``overwrite`` is set.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file; -o names a folder for the run")
    used = run.is_dir() and any(path.name != _LOCK for path in run.iterdir())
    if used and not (resume or overwrite):
        raise UsageError(
            f"{run} already holds files; go on with --resume, start again with --overwrite, or "
            "choose another -o"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {run}: {error.strerror}; choose another -o") from None
    with _only_process(run):
        if used and overwrite and not resume:
            _clear(run)
        yield


def _clear(run: Path) -> None:
    """Remove what an earlier run would lend to a new one; files of others stay."""
    for name in _LENT:
        (run / name).unlink(missing_ok=True)
    for events in (run / "tensorboard").glob("events.out.tfevents*"):
        events.unlink()
    # Folds of an earlier cross-validation would else count as finished.
    for fold in (*run.glob("fold-*"), *run.glob("seed-*/fold-*")):
        if (fold / SCORES).is_file() or (fold / "checkpoints").is_dir():
            shutil.rmtree(fold)


@contextlib.contextmanager
def _only_process(run: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    try:
        file = (run / _LOCK).open("ab")
    except OSError as error:
        raise UsageError(f"cannot write into {run}: {error.strerror}; choose another -o") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another voxseg process is working in {run}; wait for it, or choose another -o"
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        yield
