"""Which classes the masks of a data set of photographs have, where a file or its names say so.

In this order: the layout itself (Cityscapes, PASCAL VOC, ...); a table of colours beside the masks
(``colour_tables.py``); SegNet's CamVid, told by the names of its stills; and a JSON file of names
by value, ``classes.json`` or ``X_classes.json``, or ``dataset.json`` as nnU-Net has it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from voxseg.data.camvid import are_camvid_names
from voxseg.data.case_lists import parse_json, read_class_names
from voxseg.data.cases import Dataset
from voxseg.data.colour_tables import UNCOUNTED, colour_table
from voxseg.data.label_sets import CAMVID, VOC, LabelClass, LabelSet, spread_colour
from voxseg.errors import DataError


def with_classes(dataset: Dataset, root: Path) -> Dataset:
    """Fill in the label set and the names of a data set of photographs, if they are known.

    Args:
        dataset: As found.
        root: Folder or list that it was found in.

    Raises:
        DataError: A file of classes cannot be understood.
    """
    label_set = dataset.label_set or _label_set(dataset, root)
    if label_set is None:
        return dataset
    return replace(dataset, label_set=label_set, class_names=label_set.names)


def _label_set(dataset: Dataset, root: Path) -> LabelSet | None:
    label = next((case.label for case in dataset.cases if case.label is not None), None)
    table = None if label is None else colour_table(label)
    if table is not None:
        return table.label_set
    if are_camvid_names([case.case_id for case in (*dataset.cases, *dataset.unlabelled)]):
        return CAMVID
    if dataset.class_names:
        return _named("dataset.json", dataset.class_names)
    folder = root if root.is_dir() else root.parent
    path = next((path for path in sorted(folder.glob("*classes.json"))), folder / "dataset.json")
    names = read_class_names(path) if path.name == "dataset.json" else _read_names(path)
    return _named(path.name, names) if names else None


def _read_names(path: Path) -> dict[int, str]:
    """Read ``{"0": "background", ...}``; another form is an error."""
    content = parse_json(path)
    if not isinstance(content, dict) or not all(str(value).isdigit() for value in content):
        raise DataError(
            f'{path} must give a name to each label value, as {{"0": "background", "1": "cell"}}; '
            "correct or rename it"
        )
    return {int(value): str(name) for value, name in content.items()}


def _named(source: str, names: Mapping[int, str]) -> LabelSet:
    """Make a label set of names; those of PASCAL VOC are its own."""
    if {value: name for value, name in names.items() if value not in VOC.ignore} == VOC.names:
        return VOC
    ignore = {value for value, name in names.items() if name.strip().lower() in UNCOUNTED}
    classes = [
        LabelClass(value, name, spread_colour(value % 256))
        for value, name in sorted(names.items())
        if value not in ignore
    ]
    return LabelSet(source, tuple(classes), tuple(sorted(ignore)))
