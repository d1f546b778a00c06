"""What a network is to answer for a case: its label file, read as its task asks for."""

from voxseg.data.boundaries import CONSENSUS as CONSENSUS
from voxseg.data.boundaries import Disputed, boundaries_shape, read_boundary_target
from voxseg.data.cases import Case
from voxseg.data.image_masks import mask_shape
from voxseg.data.normals import normals_shape, read_normals
from voxseg.data.reading import read_label
from voxseg.data.volume import Volume


def read_target(
    case: Case, consensus: int = CONSENSUS, disputed: Disputed = "ignored"
) -> Volume | None:
    """Read a case's label file.

    Args:
        case: its files.
        consensus: of boundaries: annotators who must have drawn one.
        disputed: of boundaries: what a pixel is that fewer drew.

    Returns:
        Of segmentation int32 (X, Y, Z) values as in the file; of boundaries int32 (H, W, 1), 0, 1
        and ``IGNORED``; of normals float32 (3, H, W, 1). None for a case without a file.

    Raises:
        DataError: The file is not what it must be.
    """
    if case.label is None:
        return None
    if case.task == "boundaries":
        return read_boundary_target(case.label, consensus, disputed)
    return read_normals(case.label) if case.task == "normals" else read_label(case.label)


def target_shape(case: Case) -> tuple[int, int] | None:
    """Read the height and width of a photograph's target, of a picture without its pixels.

    Raises:
        DataError: As ``read_target``, as far as headers tell.
    """
    if case.label is None:
        return None
    shapes = {"boundaries": boundaries_shape, "normals": normals_shape}
    return shapes.get(case.task, mask_shape)(case.label)
