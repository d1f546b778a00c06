"""Which files the checkpoints of a run are."""

from pathlib import Path

from voxseg.errors import DataError


def checkpoint_path(path: Path) -> Path:
    """Resolve a run folder or a checkpoint file to the file."""
    if path.is_dir():
        for name in ("checkpoints/best.pt", "checkpoints/last.pt", "best.pt", "last.pt"):
            if (path / name).is_file():
                return path / name
        folds = sorted(path.glob("**/fold-*/checkpoints/best.pt"))
        if folds:
            raise DataError(
                f"{path} is a cross-validation; name one of its runs, like {folds[0].parents[1]}"
            )
        raise DataError(f"{path} holds no checkpoints/best.pt; is it the folder of a finished run?")
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a run folder or a checkpoint file")
    return path


def member_checkpoints(path: Path) -> list[Path]:
    """Find the networks whose answers are averaged: every fold of a cross-validation, or one.

    Args:
        path: a cross-validation's folder (of several seeds, too), a run folder or a checkpoint.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        for pattern in ("fold-*", "seed-*/fold-*"):
            folds = sorted(path.glob(f"{pattern}/checkpoints/best.pt"))
            if folds:
                return folds
    return [checkpoint_path(path)]
