"""What a network is to answer for a case: its label file, read as its task asks for."""

from voxseg.data.cases import Case
from voxseg.data.reading import read_label
from voxseg.data.volume import Volume

CONSENSUS = 3
"""Annotators who must have drawn a boundary (arXiv:1609.06694, section 5.3)."""


def read_target(case: Case, consensus: int = CONSENSUS) -> Volume | None:
    """Read a case's label file.

    Args:
        case: its files.
        consensus: of boundaries: annotators who must have drawn one.

    Returns:
        Of segmentation int32 (X, Y, Z) values as in the file. None for a case without a file.

    Raises:
        DataError: The file is not what it must be.
    """
    if case.label is None:
        return None
    return read_label(case.label)
