"""What is done to predicted label maps, as a file says it: ``postprocessing.json``.

A cross-validation writes it (``engine/postprocess.py``); ``voxseg predict`` does what it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxseg.data.case_lists import parse_json
from voxseg.data.cleaning import OPERATION_NAMES, OPERATIONS, Operation, clean_label
from voxseg.data.splits import read_split, split_hash
from voxseg.documents import refuse_newer
from voxseg.engine.label_config import LabelConfig
from voxseg.errors import DataError, UsageError
from voxseg.schemas import POSTPROCESSING as FORM

POSTPROCESSING = "postprocessing.json"
"""In the folder of a cross-validation."""


@dataclass(frozen=True)
class Postprocessing:
    """Operations on the classes of label maps."""

    labels: tuple[int, ...]
    """Class values that it was chosen for, background first."""
    names: tuple[str, ...]
    operations: Mapping[int, tuple[Operation, ...]]
    """Class value -> what is done to it; classes that stay as they are, are not there."""
    split_hash: str
    """Of the split whose out-of-fold predictions it was chosen on."""

    def __str__(self) -> str:
        """Name classes and operations on one line."""
        return describe(self.operations, dict(zip(self.labels, self.names, strict=True)))

    def apply(self, label: np.ndarray) -> np.ndarray:
        """Tidy a label map (X, Y, Z) in the values of the training labels."""
        return clean_label(label, self.operations, self.labels[0])


def describe(operations: Mapping[int, tuple[Operation, ...]], names: Mapping[int, str]) -> str:
    """Name classes and operations on one line; "nothing" where there is none."""
    parts = [
        f"{names.get(value, value)}: {', '.join(OPERATION_NAMES[one] for one in several)}"
        for value, several in operations.items()
    ]
    return "; ".join(parts) or "nothing"


def wanted_postprocessing(path: Path | None, nothing: bool) -> Path | bool:
    """Make one answer of two options: a file, True for the cross-validation's own, or False.

    Raises:
        UsageError: both are given.
    """
    if path is not None and nothing:
        raise UsageError("--postprocess and --no-postprocess exclude each other; choose one")
    return path if path is not None else not nothing


def find_postprocessing(
    checkpoint: Path, wanted: Path | bool, labels: LabelConfig
) -> Postprocessing | None:
    """Find what is to be done to the label maps of some networks.

    Args:
        checkpoint: what predicts; a cross-validation's folder may have a file of its own. One with
            several seeds has one for each, and what all of them do is done.
        wanted: a file; or True for the cross-validation's own, False for none.
        labels: classes of the networks.

    Returns:
        None where nothing is to be done.

    Raises:
        UsageError: the file is for other classes.
        DataError: a file is missing or damaged, or was chosen on another split than the folder's.
    """
    paths = [wanted] if isinstance(wanted, Path) else _own(checkpoint) if wanted else []
    found = [read_postprocessing(path) for path in paths]
    for path, one in zip(paths, found, strict=True):
        if one.labels != labels.values:
            raise UsageError(
                f"{path} was chosen for the classes {list(one.labels)}, but the network knows "
                f"{list(labels.values)}; give the file of a cross-validation with the same "
                "labels, or --no-postprocess"
            )
        split = path.parent / "split.json"
        if wanted is True and one.split_hash != split_hash(read_split(split)):
            raise DataError(
                f"{path} was chosen on another split than {split}; choose again with voxseg "
                "crossval --resume --postprocess, or leave it out with --no-postprocess"
            )
    if not found:
        return None
    shared = {
        value: tuple(
            one for one in several if all(one in f.operations.get(value, ()) for f in found)
        )
        for value, several in found[0].operations.items()
    }
    operations = {value: several for value, several in shared.items() if several}
    return replace(found[0], operations=operations) if operations else None


def _own(run: Path) -> list[Path]:
    """Find the files of a cross-validation, where it or every seed of it has one."""
    if (run / POSTPROCESSING).is_file():
        return [run / POSTPROCESSING]
    paths = [path.with_name(POSTPROCESSING) for path in sorted(run.glob("seed-*/split.json"))]
    return paths if all(path.is_file() for path in paths) else []


def read_postprocessing(path: Path) -> Postprocessing:
    """Read a file that a cross-validation wrote.

    Raises:
        DataError: it is missing or damaged, or names an operation that does not exist.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; voxseg crossval --postprocess writes one")
    content = parse_json(path)
    refuse_newer(content, FORM, path)
    try:
        if content["schema"] != FORM:
            raise ValueError(f"its schema is {content['schema']!r}, not {FORM!r}")
        labels, names, operations = [], [], {}
        for one in content["classes"]:
            labels.append(int(one["label"]))
            names.append(str(one["name"]))
            unknown = set(one["operations"]) - set(OPERATIONS)
            if unknown or (one["operations"] and len(labels) == 1):
                raise ValueError(f"class {one['label']} has the operations {one['operations']}")
            if one["operations"]:
                operations[labels[-1]] = tuple(one["operations"])
        if not labels:
            raise ValueError("it names no class")
        return Postprocessing(tuple(labels), tuple(names), operations, str(content["split_hash"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no list of operations ({type(error).__name__}: {error}); write it again "
            "with voxseg crossval --resume --postprocess, or leave it out with --no-postprocess"
        ) from None
