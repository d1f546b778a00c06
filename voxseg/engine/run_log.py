"""What a run notes after each epoch: TensorBoard events and ``log.jsonl``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from voxseg.documents import json_text
from voxseg.errors import VoxsegError
from voxseg.schemas import LOG


class RunLog:
    """Opens with the run folder; event files of an interrupted part stay and are joined.

    Args:
        run: the run folder.
        writes: False in a process that leaves writing to another one.
    """

    def __init__(self, run: Path, *, writes: bool) -> None:
        self._path = run / "log.jsonl"
        self._events = run / "tensorboard"
        with _saying(self._events):
            self._board = SummaryWriter(str(self._events)) if writes else None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._board is not None:
            with _saying(self._events):
                self._board.close()

    def add(self, row: dict[str, Any]) -> None:
        """Note an epoch: ``step`` and whatever else is known of it."""
        if self._board is None:
            return
        with _saying(self._events):
            for name in ("loss", "learning_rate", "score", "dice", "iou"):
                if name in row:
                    self._board.add_scalar(name, row[name], row["step"])
        with _saying(self._path), self._path.open("a", encoding="utf-8") as log:
            log.write(json_text({"schema": LOG, **row}, indent=None) + "\n")


@contextlib.contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Say in a sentence what could not be written; these files grow, so none is replaced."""
    try:
        yield
    except OSError as error:
        raise VoxsegError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "output, and go on with --resume"
        ) from error
