"""What a data set is: cases with one or more image files and, where known, a label file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One subject, or whatever is segmented as one."""

    case_id: str
    """Unique in its data set; outputs are named after it."""
    images: tuple[Path, ...]
    """A file for each channel, in the order of the channels."""
    label: Path | None
    """Class map on the grid of the images, if there is one."""


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
