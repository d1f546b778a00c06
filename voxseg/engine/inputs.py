"""What is to be predicted: cases of files and folders, DICOM series among them, and their names.

A case is called after its file or folder. People are called there too: with ``hash_names`` a case
gets a short SHA-256 instead, and nothing that is written says where it came from.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxseg.data.cases import Case
from voxseg.data.dicom import read_grid
from voxseg.data.dicom_cases import count_dicom, dicom_case_name
from voxseg.data.dicom_headers import read_header
from voxseg.data.dicom_series import series_hash
from voxseg.data.layouts import find_cases
from voxseg.data.reading import is_dicom
from voxseg.data.volume import Volume
from voxseg.errors import UsageError

_HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Files and folders, and how their cases are found and called."""

    places: tuple[Path, ...]
    series: str = ""
    """Which series of a DICOM folder: a UID, a number or a part of the description."""
    hash_names: bool = False
    """Name cases by a short hash: of the series of DICOM, else of the names of the files. Who knows
    a name can still compute its hash."""


def find_inputs(inputs: Inputs, say: Callable[[str], None] = lambda _: None) -> list[Case]:
    """Find all cases; ``say`` is told of the DICOM series that are left aside.

    Folders of DICOM with one name are told apart by those above them.

    Raises:
        UsageError: Two cases would be written under one name, a series must be chosen, or one is
            chosen where there is no DICOM.
        DataError: Nothing is found, or all there is is one DICOM series that is no volume.
    """
    found: list[Case] = []
    recorded: dict[int, Path] = {}
    for place in inputs.places:
        dataset = find_cases(place, need_labels=False, series=inputs.series)
        cases = (*dataset.cases, *dataset.unlabelled)
        if is_dicom(cases[0].images):
            recorded[len(found)] = place
            notes = dataset.notes
        else:
            notes = _overlooked(place)
        for note in notes:
            say(note if inputs.hash_names else f"{place}: {note}")
        found += cases
    if inputs.series and not recorded:
        raise UsageError(f"--series is about DICOM; {inputs.places[0]} holds none, leave it out")
    if len(found) == 1 and recorded:
        read_grid(found[0].images)  # alone, it is refused before a network is loaded
    if inputs.hash_names:
        found = [replace(case, case_id=_hashed(case)) for case in found]
    else:
        found = _told_apart(found, recorded)
    _refuse_clash(found)
    return found


def _overlooked(place: Path) -> tuple[str, ...]:
    """Say that there is DICOM where NIfTI volumes come first."""
    count = count_dicom(place) if place.is_dir() else 0
    return (f"left aside: {count} DICOM files, for there are NIfTI volumes",) if count else ()


def refuse_within(output: Path, inputs: Inputs, cases: Sequence[Case]) -> None:
    """Refuse to write into a DICOM folder: the masks would be taken for its images next time.

    Raises:
        UsageError: ``output`` lies there.
    """
    if not any(is_dicom(case.images) for case in cases):
        return
    for place in inputs.places:
        if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
            raise UsageError(
                f"{output} lies within {place}, whose images it would be taken for next time; "
                "choose another -o"
            )


def _hashed(case: Case) -> str:
    header = read_header(case.images[0]) if is_dicom(case.images) else None
    if header is not None:
        return series_hash(header.series)
    names = "\n".join(path.name for path in case.images)
    return hashlib.sha256(names.encode()).hexdigest()[:_HASH_DIGITS]


def without_names(text: str, case: Case, places: Sequence[Path]) -> str:
    """Put a case's hash in the place of where it came from.

    Args:
        text: An error about the case.
        case: Already called by its hash.
        places: The files and folders that were given.
    """
    known = {str(path) for image in case.images for path in (image, image.parent)}
    known |= {str(place) for place in places}
    for path in sorted(known - {".", "/"}, key=len, reverse=True):
        text = text.replace(path, case.case_id)
    return text


def without_texts(source: Volume) -> Volume:
    """Empty what a header of NIfTI says in words, for it may name the patient; keep its geometry.

    Extensions go too: they may be whole headers of DICOM.
    """
    if source.header is None:
        return source
    header = source.header.copy()
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        if field in header:
            header[field] = b""
    header.extensions.clear()
    return replace(source, header=header)


def _told_apart(cases: Sequence[Case], recorded: dict[int, Path]) -> list[Case]:
    """Lengthen the names of DICOM cases by the folders above until all differ."""
    named = list(cases)
    deepest = max((len(place.resolve().parts) for place in recorded.values()), default=0)
    for parents in range(1, deepest):
        counts = Counter(case.case_id for case in named)
        for number, place in recorded.items():
            if counts[named[number].case_id] > 1:
                name = dicom_case_name(place, parents)
                named[number] = replace(named[number], case_id=name)
    return named


def _refuse_clash(cases: Sequence[Case]) -> None:
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.case_id, case)
        if other is not case:
            raise UsageError(
                f"{other.images[0]} and {case.images[0]} would both be written as {case.case_id}; "
                "predict them into two folders"
            )
