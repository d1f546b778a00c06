"""What a run notes after each epoch: TensorBoard events and ``log.jsonl``."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Opens with the run folder; event files of an interrupted part stay and are joined.

    Args:
        run: the run folder.
        writes: False in a process that leaves writing to another one.
    """

    def __init__(self, run: Path, *, writes: bool) -> None:
        self._path = run / "log.jsonl"
        self._board = SummaryWriter(str(run / "tensorboard")) if writes else None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, row: dict[str, Any]) -> None:
        """Note an epoch: ``step`` and whatever else is known of it."""
        if self._board is None:
            return
        for name in ("loss", "learning_rate", "dice"):
            if name in row:
                self._board.add_scalar(name, row[name], row["step"])
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
