"""What a data set is: cases with one or more image files and, where known, a label file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxseg.data.label_sets import LabelSet
from voxseg.data.names import is_photograph_file

TaskKind = Literal["segmentation", "boundaries", "normals", "classification"]
"""What is asked of a network: a class for every voxel, where things end, which way surfaces face,
or what a photograph shows."""


@dataclass(frozen=True)
class Case:
    """One subject, or whatever is segmented as one."""

    case_id: str
    """Unique in its data set; outputs are named after it."""
    images: tuple[Path, ...]
    """A file for each channel, in the order of the channels; of a photograph the one file, of a
    DICOM series all its files."""
    label: Path | None
    """Class map on the grid of the images, if there is one; of the tasks "boundaries" and "normals"
    the file of those."""
    instances: Path | None = None
    """Map of single objects on the same grid (Cityscapes), for instance-level IoU."""
    task: TaskKind = "segmentation"
    """What the label is about; of a case without one it says nothing."""
    category: str = ""
    """Of the task "classification": the name of the case's class; "" where it is not known."""

    @property
    def is_labelled(self) -> bool:
        """Whether something is known that a network can learn."""
        return self.label is not None or bool(self.category)

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

    @property
    def task(self) -> TaskKind:
        """What the labels are about; a data set holds one kind."""
        return next((case.task for case in self.cases if case.is_labelled), "segmentation")
