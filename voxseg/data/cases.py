"""What a data set is: cases with one or more image files and, where known, a label file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from voxseg.data.label_sets import LabelSet
from voxseg.data.names import is_photograph_file


@dataclass(frozen=True)
class Case:
    """One subject, or whatever is segmented as one."""

    case_id: str
    """Unique in its data set; outputs are named after it."""
    images: tuple[Path, ...]
    """A file for each channel, in the order of the channels; of a photograph the one file."""
    label: Path | None
    """Class map on the grid of the images, if there is one."""
    instances: Path | None = None
    """Map of single objects on the same grid (Cityscapes), for instance-level IoU."""

    @property
    def is_image(self) -> bool:
        """Whether this is a photograph, not a volume."""
        return bool(self.images) and is_photograph_file(self.images[0])


@dataclass(frozen=True)
class Dataset:
    """The cases that were found and how."""

    layout: str
    """The arrangement that was recognised, for people to read."""
    cases: tuple[Case, ...]
    """Sorted by ``case_id``; all labelled if labels were needed."""
    class_names: dict[int, str]
    """Names by label value, background included; empty where nothing says them."""
    unlabelled: tuple[Case, ...] = ()
    """Images meant to have no label (``unlabelled/``, ``imagesTs/``), if labels were needed."""
    notes: tuple[str, ...] = ()
    """Choices that were made and files that were left aside, a sentence each."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Case ids of the data set's own parts ("train", "val", "test"); empty where it has none."""
    label_set: LabelSet | None = None
    """The data set's classes where they are known."""

    @property
    def is_images(self) -> bool:
        """Whether the cases are photographs; a data set holds one kind."""
        return any(case.is_image for case in (*self.cases, *self.unlabelled))
