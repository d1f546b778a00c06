"""What mirroring, turning and resizing a picture do to the normals in it.

The pixels of a map of normals move with all other arrays of a patch (``warp``), each to the nearest
pixel: between two surfaces there is no third one. What is told here is the other half, how the
vectors themselves turn: as those of the mirrored or turned scene.

Axes: S is (H, W), rows down; vectors are x right, y up, z to the viewer. Zero vectors, which stand
for nothing known, stay zero.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from voxseg.data.resample import resample_label

if TYPE_CHECKING:
    from torch import Tensor

_COMPONENT = (1, 0)  # rows run along y, columns along x


def mirror_vectors(normals: "Tensor", axis: int) -> "Tensor":
    """Mirror the vectors of a picture that is mirrored along an axis.

    Args:
        normals: (3, *S), pixels in either order: this moves none.
        axis: 0 for a picture upside down, 1 for left and right.

    Returns:
        (3, *S), a copy.
    """
    signs = normals.new_ones(normals.shape)
    signs[_COMPONENT[axis]] = -1
    return normals * signs


def turn_vectors(normals: "Tensor", matrix: np.ndarray[Any, Any]) -> "Tensor":
    """Turn the vectors of a picture that was brought through an affine map (``warp.turn``).

    The scene is taken to be turned and stretched alike, and stretched in depth by the mean of both
    axes: so a rotation turns normals, a change of size leaves them, and a stretch tilts them. This
    moves no pixel.

    Args:
        normals: (3, *S) of length 1 or 0.
        matrix: (2, 2) that can be inverted, from a place in the result to one in the source, (row,
            column).

    Returns:
        (3, *S) of length 1 or 0.
    """
    import torch

    depth = float(np.sqrt(abs(np.linalg.det(matrix))))
    # Normals go by the inverse transpose of the map of places, which is the inverse of ``matrix``.
    (row_row, row_column), (column_row, column_column) = matrix.T.tolist()
    x, y, z = normals
    down = -y
    turned = torch.stack(
        [column_row * down + column_column * x, -(row_row * down + row_column * x), depth * z]
    )
    lengths = torch.linalg.vector_norm(turned, dim=0)
    return turned / torch.where(lengths > 0, lengths, 1)


def resize_normals(normals: np.ndarray[Any, Any], size: Sequence[int]) -> np.ndarray[Any, Any]:
    """Bring a map of normals to another size, taking the nearest pixel.

    The vectors stay, even where height and width change by different factors: they are those of the
    scene, in training as in what is predicted and brought back to a photograph's own size.

    Args:
        normals: (3, *S).
        size: of each axis of S.

    Returns:
        (3, *size); holds no vector that ``normals`` does not.
    """
    return resample_label(normals, (3, *size))
