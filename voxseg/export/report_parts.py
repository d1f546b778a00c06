"""What a report page is put together from: tables, figures, sections, cases.

Everything is ready-made: text is text (the page escapes it), figures are PNG files, arrays are
voxels. Nothing here knows where the numbers come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from voxseg.export.viewer_scene import ViewerScene


@dataclass(frozen=True)
class ReportLink:
    """A cell that leads to another place of the page."""

    text: str
    target: str
    """``ReportCase.anchor`` or ``ReportSection.anchor`` of that place."""


@dataclass(frozen=True)
class ReportTable:
    """A table of ready-made cells; the first column is text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | ReportLink]]
    """A line break in a cell is one on the page."""
    note: str = ""
    num_texts: int = 1
    """How many of the first columns are text, which is set to the left."""


@dataclass(frozen=True)
class ReportFigure:
    """A picture that is already drawn."""

    png: bytes
    alt: str
    """What it shows, for those who do not see it."""
    caption: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A heading and what stands under it: paragraphs, then figures, then tables."""

    title: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[ReportFigure] = ()
    tables: Sequence[ReportTable] = ()
    anchor: str = ""
    """Name for links to it; one that no other section or case has."""


@dataclass(frozen=True, eq=False)
class ReportCase:
    """One case to draw; all arrays (X, Y, Z) on one grid.

    Without an image the masks are drawn on black; without any array there is no picture, and the
    caption says why.
    """

    case_id: str
    image: NDArray[Any] | None = None
    affine: NDArray[Any] | None = None
    """(4, 4), voxel indices to mm in RAS+ world coordinates; needed with any array."""
    prediction: NDArray[Any] | None = None
    """Class values, drawn filled."""
    truth: NDArray[Any] | None = None
    """Class values, drawn as outlines."""
    superpixels: NDArray[Any] | None = None
    """Region map, drawn as borders in a row of its own; negative outside."""
    uncertainty: NDArray[Any] | None = None
    """In [0, 1], drawn in a row of its own."""
    picture: bytes = b""
    """PNG of a photograph that is drawn already, with errors if ``errors`` says so; instead of
    arrays."""
    errors: bool = False
    """Draw where prediction and truth differ, and lead the planes through the worst of it."""
    caption: str = ""
    headline: str = ""
    """A few words after the name."""
    tables: Sequence[ReportTable] = ()
    figures: Sequence[ReportFigure] = ()
    anchor: str = ""
    """Name for links to it."""
    viewer: "ViewerScene | None" = None
    """What a reader can open in a viewer; needs an anchor."""

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by name, the first one giving the grid.

        Raises:
            ValueError: They are not on one grid, or there is no affine.
        """
        named = {
            "image": self.image, "prediction": self.prediction, "truth": self.truth,
            "superpixels": self.superpixels, "uncertainty": self.uncertainty,
        }  # fmt: skip
        found = {name: array for name, array in named.items() if array is not None}
        if not found:
            return found
        first, grid = next((name, array.shape) for name, array in found.items())
        for name, array in found.items():
            if array.shape != grid or array.ndim != 3:
                raise ValueError(
                    f"{name} of {self.case_id} must be (X, Y, Z) like its {first} {grid}, "
                    f"got {array.shape}"
                )
        if self.affine is None or np.shape(self.affine) != (4, 4):
            raise ValueError(f"{self.case_id} must have a (4, 4) affine, got {self.affine}")
        return found
