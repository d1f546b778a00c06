"""Where a prepared case lies in its source's grid, and the way back there for a prediction."""

from dataclasses import dataclass

import numpy as np

from voxseg.data.orientation import Orientation
from voxseg.data.resample import (
    Scores,
    argmax_on_grid,
    best_class,
    resample_image,
    resample_label,
)

IGNORED = 255
"""Class index of a voxel that counts neither in training nor in scores; classes are fewer then."""


@dataclass(frozen=True)
class Grid:
    """Where prepared arrays lie in the subject's own grid."""

    source_shape: tuple[int, ...]
    orientation: Orientation
    working_shape: tuple[int, ...]
    """Shape after reorientation and resampling, before the crop."""
    box: tuple[tuple[int, int], ...]
    """Start and stop of the crop on the working grid."""

    @property
    def _ras_shape(self) -> tuple[int, ...]:
        return tuple(self.source_shape[a] for a in self.orientation.axes)

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in self.box)

    def prepare_label(
        self, label: np.ndarray, values: tuple[int, ...], ignore: tuple[int, ...] = ()
    ) -> np.ndarray:
        """Bring a label map from the source's grid to the crop, as ``prepare_case`` does.

        Args:
            label: (X, Y, Z) values of the label file, all listed in ``values`` or ``ignore``.
            values: as for ``prepare_case``.
            ignore: as for ``prepare_case``.

        Returns:
            (*crop) class indices, uint8 or int32; ``IGNORED`` for what is ignored.
        """
        classes = self.orientation.to_ras(_class_indices(label, values, ignore))
        if self.working_shape != self._ras_shape:
            classes = resample_label(classes, self.working_shape)
        return np.ascontiguousarray(classes[self._slices])

    @property
    def is_resampled(self) -> bool:
        """Whether the working grid has other voxels than the source's."""
        return self.working_shape != self._ras_shape

    def restore(self, probabilities: Scores) -> np.ndarray:
        """Turn class scores (num_classes, *crop) into class indices (uint8 or int32) at the source.

        Outside the crop lies class 0. When resampling, one class at a time is brought to the
        source's grid and compared with the best so far.
        """
        if not self.is_resampled:
            return self.restore_classes(best_class(probabilities))
        label = argmax_on_grid(probabilities, self.box, self.working_shape, self._ras_shape)
        return np.ascontiguousarray(self.orientation.from_ras(label))

    def restore_classes(self, classes: np.ndarray) -> np.ndarray:
        """Bring class indices (*crop) to the source's grid, which must not have been resampled."""
        if self.is_resampled:
            raise ValueError("class indices cannot be interpolated; restore probabilities instead")
        label = np.zeros(self.working_shape, classes.dtype)
        label[self._slices] = classes
        return np.ascontiguousarray(self.orientation.from_ras(label))

    def restore_map(self, values: np.ndarray, outside: float) -> np.ndarray:
        """Bring one float map (*crop) to the source's grid; ``outside`` fills what was cropped."""
        full = np.full(self.working_shape, outside, np.float32)
        full[self._slices] = values
        if self.is_resampled:
            full = resample_image(full, self._ras_shape, order=1)
        return np.ascontiguousarray(self.orientation.from_ras(full))


def _class_indices(
    label: np.ndarray, values: tuple[int, ...], ignore: tuple[int, ...]
) -> np.ndarray:
    indices = np.asarray([*range(len(values)), *[IGNORED] * len(ignore)])
    indices = indices.astype(np.uint8 if len(values) <= 256 else np.int32)
    known = np.asarray([*values, *ignore])
    order = np.argsort(known)
    classes: np.ndarray = indices[order][np.searchsorted(known[order], label)]
    return classes
