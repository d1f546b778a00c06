"""What a check says of photographs: headers, values, and how they are read.

Photographs have no geometry to contradict itself, lack classes as a matter of course, and come in
all lights: what is odd in a set of scans is not reported here. Thousands of them take minutes to
read, so whoever only needs the classes reads all masks but few photographs (``sampled``).
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.check_facts import (
    PERCENTILES,
    CaseFacts,
    CaseHashes,
    digest,
)
from voxseg.data.check_findings import FileFacts, Finding, HeaderCheck, Pair, from_error
from voxseg.data.images import PictureFacts, picture_facts
from voxseg.data.label_sets import LabelSet
from voxseg.data.names import is_image_file
from voxseg.data.targets import target_shape
from voxseg.data.volume import Volume
from voxseg.errors import DataError

_MOST = 0.5
_PIXELS_MEASURED = 2**16  # of a photograph: enough for percentiles, whatever its size
_HABITS = {
    "grey": "only grey levels, which count as equal red, green and blue",
    "alpha": "transparency, of which transparent pixels are laid on black",
    "16-bit": "16 bits a channel, which are divided by 257, so that 65535 becomes 255",
    "CMYK": "CMYK colours, which become RGB without a colour profile",
    "turned": "an EXIF orientation, which is not applied, for pixels count as stored",
}

HABIT_KINDS = tuple(f"picture-{habit.lower()}" for habit in _HABITS)
"""Kinds of the notes on how photographs are read; a training tells them once."""


def check_picture_headers(case: Case) -> HeaderCheck:
    """Read the headers of a photograph and its mask, and compare their sizes."""
    findings: list[Finding] = []
    image = label = None
    try:
        image = picture_facts(case.images[0])
    except DataError as error:
        findings.append(from_error(case, error, "unreadable"))
    if case.label is not None:
        try:
            label = target_shape(case)
        except DataError as error:
            findings.append(from_error(case, error, "unreadable"))
    fits = image is None or label is None or image.shape == label
    if not fits and image is not None and label is not None:
        findings.append(_sizes(case, image.shape, label))
    pair = Pair(case.case_id, (_image_file(case, image),), _label_file(case, label), case.category)
    return HeaderCheck(
        pair,
        tuple(findings),
        images_fit=image is not None,
        label_fits=label is not None,
        grids_agree=fits,
        habits=frozenset() if image is None else image.habits,
    )


def _sizes(case: Case, image: tuple[int, int], label: tuple[int, int]) -> Finding:
    return Finding(
        "error", "grid", case.case_id, case.label,
        f"{case.label} has {label[1]}x{label[0]} pixels but {case.images[0]} has "
        f"{image[1]}x{image[0]}",
        "save both in one size (if one lies on its side: EXIF orientations are not applied)",
    )  # fmt: skip


def _image_file(case: Case, facts: PictureFacts | None) -> FileFacts:
    if facts is None:
        return FileFacts(case.images[0])
    return FileFacts(case.images[0], shape=facts.shape, dtype=facts.dtype)


def _label_file(case: Case, shape: tuple[int, int] | None) -> FileFacts | None:
    if case.label is None:
        return None
    if shape is None or not is_image_file(case.label):
        return FileFacts(case.label, shape=shape or ())
    return FileFacts(case.label, shape=shape, dtype=picture_facts(case.label).dtype)


def sampled(cases: Sequence[Case], most: int | None) -> set[str]:
    """Choose the photographs that are read in full, spread evenly over the set; ids.

    Args:
        cases: In their order.
        most: How many at most; None for all.
    """
    if most is None or len(cases) <= most:
        return {case.case_id for case in cases}
    places = np.linspace(0, len(cases) - 1, most).round().astype(int)
    return {cases[place].case_id for place in places}


def picture_values(case: Case, image: Volume | None, label: Volume | None) -> Iterator[Finding]:
    """Report a photograph of one colour, and a mask that is also the photograph."""
    if image is None:
        return
    path, pixels = case.images[0], image.array
    if (pixels == pixels[:, :1, :1]).all():
        yield Finding(
            "warning", "constant", case.case_id, path,
            f"{path} is one colour throughout",
            "check that it is no failed download; as training data it shows nothing",
        )  # fmt: skip
    elif label is not None and any(np.array_equal(one, label.array) for one in pixels):
        yield Finding(
            "error", "image-is-label", case.case_id, path,
            f"{path} has the same pixels as its mask {label.path}: the answer is in the input",
            "give the photograph itself",
        )  # fmt: skip


def picture_facts_of(
    case_id: str, image: Volume | None, label: Volume | None, counts: dict[int, int]
) -> CaseFacts:
    """Measure a photograph (3, H, W, 1) and its mask; percentiles from a grid of its pixels.

    Without the photograph, percentiles are left out. ``counts`` are the mask's pixels by value; of
    normals there are none.
    """
    some = image or label
    if some is None:
        raise ValueError(f"{case_id} has neither photograph nor mask")
    height, width = some.shape[:2]
    step = max(1, int(np.ceil(np.sqrt(height * width / _PIXELS_MEASURED))))
    every = (slice(None, None, step), slice(None, None, step))
    percentiles: tuple[tuple[float, ...], ...] = ()
    labelled: tuple[tuple[float, ...], ...] = ()
    if image is not None:
        pixels = [channel[every] for channel in image.array]
        percentiles = tuple(_percentiles(channel) for channel in pixels)
        inside = label.array[every] != 0 if label is not None and counts else None
        if inside is not None and inside.any():
            labelled = tuple(_percentiles(channel[inside]) for channel in pixels)
    return CaseFacts(
        case_id=case_id,
        shape=some.shape,
        spacing=some.spacing,
        voxel_ml=1 / 1000,
        percentiles=percentiles,
        labelled_percentiles=labelled,
        foreground_share=1.0,
        foreground_ml=height * width / 1000,
        foreground_shape=some.shape,
        label_voxels=counts,
    )


def picture_hashes(case_id: str, image: Volume, label: Volume | None) -> CaseHashes:
    """Digest a photograph as one, for grey ones have equal channels."""
    return CaseHashes(
        case_id,
        (digest(image.array),),
        "",
        "" if label is None else digest(label.array),
    )


def picture_labels(
    case: Case, label: Volume, counts: dict[int, int], label_set: LabelSet | None
) -> Iterator[Finding]:
    """Report a mask of one value, or one in which nothing counts; ``counts`` by value."""
    if label_set is not None and set(counts) <= set(label_set.ignore):
        yield Finding(
            "warning", "nothing-counts", case.case_id, label.path,
            f"mask {label.path} has only values that do not count",
            "check that it is the right file; nothing can be learnt from it",
        )  # fmt: skip
    elif len(counts) == 1:
        yield Finding(
            "note", "one-value", case.case_id, label.path,
            f"mask {label.path} has but one value, {min(counts)}, in every pixel",
            "nothing needs to be done if it is right",
        )  # fmt: skip


def picture_normals(case: Case, normals: Volume) -> Iterator[Finding]:
    """Report normals most of which point away from where the photograph was taken."""
    depth = normals.array[2][normals.array.any(axis=0)]
    if (depth < 0).mean() > _MOST:
        yield Finding(
            "warning", "facing-away", case.case_id, normals.path,
            f"most normals of {normals.path} point away from the viewer, who could not see such "
            "surfaces",
            "check their axes: x is right, y up and z to the viewer here",
        )  # fmt: skip


def picture_set_findings(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Report values that the data set's classes do not have, and classes that no mask has."""
    labelled = [one for one in facts if one.label_voxels]
    found = {value for one in labelled for value in one.label_voxels}
    if labelled and len(found) == 1:
        yield Finding(
            "error", "background-only", "", None,
            f"none of the {len(labelled)} masks has more than one value: all hold {found.pop()}",
            "check that the mask files are the right ones",
        )  # fmt: skip
        return
    if dataset.label_set is None or not labelled:
        return
    known = {*dataset.label_set.values, *dataset.label_set.ignore}
    for value in sorted(found - known):
        having = [one.case_id for one in labelled if value in one.label_voxels]
        path = next(case.label for case in dataset.cases if case.case_id == having[0])
        yield Finding(
            "error", "class-unknown", "", path,
            f"{len(having)} masks hold the value {value}, which is no class of "
            f"{dataset.label_set.name}, the first {path}",
            "correct the masks, or the file that names the classes",
        )  # fmt: skip
    names = dataset.label_set.names
    absent = [f"{value} ({names[value]})" for value in names if value not in found]
    if absent:
        yield Finding(
            "warning", "class-absent", "", None,
            f"no mask has the value {', '.join(absent)} of {dataset.label_set.name}",
            "check the masks if it should be there: a class without a pixel cannot be learnt",
        )  # fmt: skip


def picture_notes(checks: Sequence[HeaderCheck], read: int) -> Iterator[Finding]:
    """Tell once for the whole set how its photographs are read, and how many were."""
    counts = Counter(habit for check in checks for habit in check.habits)
    for habit, words in _HABITS.items():
        if counts[habit]:
            yield Finding(
                "note", f"picture-{habit.lower()}", "", None,
                f"photographs with {words}: {counts[habit]} of {len(checks)}",
                "nothing needs to be done if that is right",
            )  # fmt: skip
    if read < len(checks):
        yield Finding(
            "note", "sampled", "", None,
            f"{read} of {len(checks)} photographs, spread over the set, were read in full, of the "
            "others the headers; all masks were",
            "`voxseg check` reads everything",
        )  # fmt: skip


def _percentiles(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values, PERCENTILES))
