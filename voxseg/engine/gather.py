"""What is kept of the members' class probabilities while they come in, piece by piece.

One member whose classes alone are asked for leaves one byte a voxel. Where probabilities are needed
afterwards, their sum is kept, in memory or in a file without a name beside the output: the system
removes it when the process ends, however it ends.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from voxseg.data.resample import Scores, best_class
from voxseg.engine.tiles import Region
from voxseg.errors import VoxsegError
from voxseg.metrics.uncertainty import Members

_ZEROS = bytes(2**24)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be kept."""

    probabilities: bool = True
    """The mean probabilities; else only the class of each voxel, which takes a single member."""
    entropy: bool = False
    """The members' own entropy, for their disagreement."""
    folder: Path | None = None
    """Keep probabilities in a file here instead of in memory."""


class Gathered:
    """The outcome of all members.

    Args:
        num_classes: N.
        shape: spatial shape of the prepared volume.
        wanted: what is to be kept.

    Attributes:
        members: how far they agree.
    """

    def __init__(self, num_classes: int, shape: tuple[int, ...], wanted: Wanted) -> None:
        self._shape = shape
        self.members = Members(entropy=wanted.entropy)
        self._classes: np.ndarray | None = None
        self._sum: np.ndarray | OnDisk | None = None
        if not wanted.probabilities:
            self._classes = np.zeros(shape, np.uint8 if num_classes <= 256 else np.int32)
        elif wanted.folder is not None:
            self._sum = OnDisk((num_classes, *shape), wanted.folder)
        else:
            self._sum = np.zeros((num_classes, *shape), np.float32)

    def start(self) -> None:
        """Begin with another member."""
        self.members.start(self._shape)

    def add(self, region: Region, probabilities: np.ndarray) -> None:
        """Take in the member's probabilities (N, *region); its regions do not overlap."""
        winners = best_class(probabilities)
        self.members.add_part(region, probabilities, winners)
        if self._classes is not None:
            self._classes[region] = winners
        elif isinstance(self._sum, OnDisk):
            self._sum.add(region, probabilities)
        elif self._sum is not None:
            self._sum[(slice(None), *region)] += probabilities

    def finish(self) -> None:
        """Turn sums into means."""
        if isinstance(self._sum, OnDisk):
            self._sum.scale = 1 / self.members.count
        elif self._sum is not None and self.members.count > 1:
            self._sum /= self.members.count

    @property
    def probabilities(self) -> Scores | None:
        """(N, *S) float32 means; None when only classes were asked for."""
        return self._sum

    @property
    def classes(self) -> np.ndarray:
        """(*S) index of the most probable class, uint8 up to 256 classes, else int32."""
        if self._classes is None:
            assert self._sum is not None
            self._classes = best_class(self._sum)
        return self._classes

    def close(self) -> None:
        """Give back disk space."""
        if isinstance(self._sum, OnDisk):
            self._sum.close()


class OnDisk:
    """A float32 array in a file without a name; a part read from it is a copy in memory.

    Args:
        shape: of the array, which starts as zeros.
        folder: where the file lies; made if needed.

    Attributes:
        scale: factor of every value that is read.

    Raises:
        VoxsegError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path) -> None:
        self.shape = shape
        self.scale = 1.0
        size = 4 * int(np.prod(shape, dtype=np.int64))
        self._file: IO[bytes] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".part-")  # noqa: SIM115
            # Written, not only reserved: a full disk is found here, not in a mapped page.
            for start in range(0, size, len(_ZEROS)):
                self._file.write(_ZEROS[: size - start])
            self._file.flush()
        except OSError as error:
            self.close()
            raise VoxsegError(
                f"cannot keep {size / 1e9:.1f} GB of probabilities in {folder}: "
                f"{error.strerror or error}; free some space or choose another output"
            ) from None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        part: np.ndarray = np.multiply(self._mapped("r")[key], np.float32(self.scale))
        return part

    def add(self, region: Region, values: np.ndarray) -> None:
        """Add values (N, *region) to a part."""
        part = self._mapped("r+")[(slice(None), *region)]
        part += values

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _mapped(self, mode: str) -> np.ndarray:
        """Map the file; mapped anew each time, its pages do not pile up in this process."""
        assert self._file is not None
        found: np.ndarray = np.memmap(self._file, np.float32, mode, shape=self.shape)  # type: ignore[call-overload]  # modes are literals there
        return found
