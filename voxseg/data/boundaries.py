"""Boundaries of objects as people drew them: BSDS500's ground truths, and maps of one annotator.

Source: Arbelaez, Maire, Fowlkes, Malik, *Contour detection and hierarchical image segmentation*,
TPAMI 33(5), 2011 (BSDS500); Xie and Tu, *Holistically-nested edge detection* (HED), ICCV 2015,
arXiv:1504.06375, and Bansal and others, *PixelNet*, arXiv:1609.06694, section 4.3, for training on
the pixels that at least three of about five people marked.

A ground truth of BSDS500 is a MATLAB file whose ``groundTruth`` holds ``Segmentation`` and
``Boundaries`` of every annotator; SBD's MATLAB files (``image_masks.py``) hold ``GTcls`` instead. A
picture of 0 and 255 (or 0 and 1) is the map of one annotator. Scores compare with the maps of all
annotators, training with one map: boundary, none, or a pixel that does not count.

Departure: HED trains pixels that fewer people marked as no boundary; here they do not count unless
``disputed`` says so, as Liu and others do (*Richer convolutional features*, arXiv:1612.02103).
PixelNet does not say.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import scipy
from PIL import Image

from voxseg.data.grid import IGNORED
from voxseg.data.image_masks import damaged_matlab
from voxseg.data.images import opened_picture, picture_volume
from voxseg.data.names import is_image_file
from voxseg.data.volume import Volume
from voxseg.errors import DataError

CONSENSUS = 3
"""How many annotators must agree on a boundary by default."""

Disputed = Literal["ignored", "negative"]
"""What a pixel is that some annotators marked, but too few."""


def is_matlab_file(path: Path) -> bool:
    """Tell whether the name is that of a MATLAB file; hidden files are none."""
    return path.suffix.lower() == ".mat" and not path.name.startswith(".")


def is_boundary_file(path: Path) -> bool:
    """Tell whether the name can be that of boundaries: a MATLAB file or a picture."""
    return is_matlab_file(path) or is_image_file(path)


def read_boundaries(path: Path) -> np.ndarray:
    """Read the boundary maps of all annotators.

    Args:
        path: A ground truth of BSDS500, or a picture of 0 and 255, which has one annotator.

    Returns:
        (A, H, W) uint8, 1 on a boundary and 0 elsewhere.

    Raises:
        DataError: The file is missing, damaged, or holds no boundaries.
    """
    path = Path(path)
    return _annotators(path) if is_matlab_file(path) else _drawn(path)[None]


def read_boundary_target(
    path: Path, consensus: int = CONSENSUS, disputed: Disputed = "ignored"
) -> Volume:
    """Read the map that a network is trained with.

    Args:
        path: As for ``read_boundaries``.
        consensus: How many annotators must have marked a boundary; where a file has fewer, all.
        disputed: What a pixel is that some marked, but fewer than ``consensus``.

    Returns:
        int32 (H, W, 1): 1 boundary, 0 none, ``IGNORED`` a pixel that does not count.

    Raises:
        DataError: As ``read_boundaries``.
    """
    target = consensus_map(read_boundaries(path), consensus, disputed)
    return picture_volume(target.astype(np.int32)[..., None], path)


def consensus_map(
    annotators: np.ndarray, consensus: int = CONSENSUS, disputed: Disputed = "ignored"
) -> np.ndarray:
    """Make one map of those of all annotators.

    Args:
        annotators: (A, H, W), nonzero on a boundary; A at least 1.
        consensus: As for ``read_boundary_target``.
        disputed: As for ``read_boundary_target``.

    Returns:
        (H, W) uint8: 1, 0 or ``IGNORED``.
    """
    if consensus < 1:
        raise ValueError(f"consensus must be at least 1, got {consensus}")
    votes = np.count_nonzero(annotators, axis=0)
    target = np.full(votes.shape, IGNORED if disputed == "ignored" else 0, np.uint8)
    target[votes == 0] = 0
    target[votes >= min(consensus, len(annotators))] = 1
    return target


def boundaries_shape(path: Path) -> tuple[int, int]:
    """Read the height and width of boundaries; of a picture without its pixels.

    Raises:
        DataError: As ``read_boundaries``, as far as headers tell.
    """
    if is_matlab_file(path):
        height, width = _annotators(path).shape[1:]
        return height, width
    with opened_picture(path) as picture:
        width, height = picture.size
    return height, width


def _annotators(path: Path) -> np.ndarray:
    """Read ``groundTruth{i}.Boundaries`` (A, H, W) of a MATLAB file."""
    try:
        with path.open("rb") as file:
            content = scipy.io.loadmat(file, variable_names=["groundTruth"])
            truth = content.get("groundTruth")
            if truth is None:
                file.seek(0)
                raise DataError(_says_no_truth(path, [name for name, *_ in scipy.io.whosmat(file)]))
        maps = [np.asarray(cell["Boundaries"][0, 0]) for cell in np.ravel(truth)]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the name") from None
    except damaged_matlab() as error:
        raise DataError(
            f"{path} is damaged or no ground truth of BSDS500: its groundTruth has no Boundaries "
            f"({' '.join(str(error).split())}); download it again"
        ) from None
    if not maps:
        raise DataError(f"{path} holds no annotator's boundaries; download it again")
    sizes = {one.shape for one in maps}
    if (
        len(sizes) != 1
        or len(maps[0].shape) != 2
        or any(one.dtype.kind not in "biuf" for one in maps)
    ):
        raise DataError(
            f"{path} is no ground truth of BSDS500: its annotators' Boundaries are no maps of one "
            "size; download it again"
        )
    return np.not_equal(maps, 0).astype(np.uint8)


def _says_no_truth(path: Path, names: Sequence[str]) -> str:
    """Say what a MATLAB file holds instead of boundaries."""
    if "GTcls" in names:
        what = "the GTcls of SBD, which is a mask of classes"
    else:
        what = ", ".join(names) or "nothing"
    return (
        f"{path} has no groundTruth as BSDS500's files have (it holds {what}); give boundaries as "
        "BSDS500 keeps them, or as PNGs of 0 and 255"
    )


def _drawn(path: Path) -> np.ndarray:
    """Read the boundaries (H, W) that a picture of two values shows."""
    with opened_picture(path) as picture:
        if picture.format in ("JPEG", "MPO"):
            raise DataError(
                f"boundaries {path} are a JPEG, which blurs lines; save them as PNG of 0 and 255"
            )
        values: np.ndarray = np.asarray(_grey(picture))
    found = np.unique(values) if values.ndim == 2 else np.empty(0)
    if values.ndim == 2 and (set(found.tolist()) <= {0, 255} or set(found.tolist()) <= {0, 1}):
        return values.astype(bool).astype(np.uint8)
    what = f"{len(found)} values" if values.ndim == 2 else "colours"
    raise DataError(
        f"boundaries {path} hold {what} where a boundary is 255 and all else 0; draw or export "
        "them as a black-and-white PNG"
    )


def _grey(picture: Image.Image) -> Image.Image:
    """Return the grey levels of a picture that also says what is transparent."""
    return picture.getchannel(0) if picture.mode == "LA" else picture
