"""Checkpoints: written whole or not at all, read as tensors and plain values only.

``weights_only=True`` on every load: a file from elsewhere is never unpickled into objects.
"""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from voxseg.engine.checkpoint_files import checkpoint_path
from voxseg.errors import DataError, VoxsegError
from voxseg.files import replacing

FORMAT = 1
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, int),
    "model": lambda value: (
        isinstance(value, dict) and all(isinstance(v, torch.Tensor) for v in value.values())
    ),
    "config": lambda value: isinstance(value, dict),
    "in_channels": lambda value: isinstance(value, int) and 0 < value < _MOST_CHANNELS,
    "spatial_dims": lambda value: value in (2, 3),
}
_MOST_CHANNELS = 1000
"""More input channels are damage, and a network for them would fill the memory."""


class ForeignFileError(DataError):
    """A torch file that voxseg has not written."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, text, lists and dicts of them) atomically."""
    with replacing(path) as temporary:
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a full disk, not saying so
            free = shutil.disk_usage(path.parent).free
            raise VoxsegError(
                f"cannot write {path}: its disk has {free / 1e6:.1f} MB left; free some space or "
                f"choose another output (torch says: {str(error).splitlines()[0]})"
            ) from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; a run folder stands for its ``checkpoints/best.pt``.

    Raises:
        DataError: there is no such file, or it is not a voxseg checkpoint; ``ForeignFileError`` if
            it is of torch all the same.
    """
    path = checkpoint_path(path)
    broken = (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*broken, KeyError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(
            f"{path} is not a voxseg checkpoint ({reason}); give a run folder, best.pt or last.pt"
        ) from None
    if not isinstance(content, dict) or "format" not in content or "model" not in content:
        raise ForeignFileError(
            f"{path} is a torch file, but not a voxseg checkpoint; give a run folder, best.pt or "
            "last.pt"
        )
    if isinstance(content["format"], int) and content["format"] > FORMAT:
        raise DataError(f"{path} was written by a newer voxseg; update voxseg to read it")
    wrong = [name for name, is_right in _FIELDS.items() if not is_right(content.get(name))]
    if wrong:
        raise DataError(
            f"{path} is damaged: its {wrong[0]!r} is not what voxseg writes; use another checkpoint"
        )
    return content
