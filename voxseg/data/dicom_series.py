"""The series of a DICOM folder: listed, and one of them chosen.

A series is what one recording gave. Localizers, reports and single pictures are left aside; of what
is left one series must remain, or be named. Nothing here tells who the patient is.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxseg.data.dicom_geometry import Slice, Stack, is_parallel, stack
from voxseg.data.dicom_headers import Header, dicom_files, read_header
from voxseg.data.folders import check_exists, files_below
from voxseg.errors import DataError, UsageError

Kind = Literal["volume", "localizer", "single slice", "no image"]


@dataclass(frozen=True)
class Series:
    """Files that one recording gave."""

    headers: tuple[Header, ...]
    """Of its files, sorted by path; at least one."""

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.headers[0].series

    @property
    def study(self) -> str:
        """StudyInstanceUID."""
        return self.headers[0].study

    @property
    def number(self) -> int | None:
        """SeriesNumber, where it has one."""
        return self.headers[0].number

    @property
    def description(self) -> str:
        """SeriesDescription, or ""."""
        return self.headers[0].description

    @property
    def modality(self) -> str:
        """As "MR" or "CT"."""
        return self.headers[0].modality

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All frames of all files."""
        return tuple(one for header in self.headers for one in header.slices)

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, sorted by path."""
        return tuple(header.path for header in self.headers)

    @property
    def size(self) -> str:
        """Columns x rows, all that occur."""
        sizes = sorted({(one.columns, one.rows) for one in self.slices})
        return ", ".join(f"{columns}x{rows}" for columns, rows in sizes)

    @property
    def kind(self) -> Kind:
        """What it may be used for, told from its headers alone."""
        if not all(header.is_image for header in self.headers):
            return "no image"
        if any(header.is_localizer for header in self.headers) or not is_parallel(self.slices):
            return "localizer"
        return "volume" if len(self.slices) > 1 else "single slice"

    def __str__(self) -> str:
        number = "without number" if self.number is None else self.number
        name = f" {self.description!r}" if self.description else ""
        return f"{number}{name} ({self.modality or 'no modality'}, {self._extent})"

    @property
    def _extent(self) -> str:
        count = len(self.slices)
        return (
            f"{count} {'slice' if count == 1 else 'slices'} of {self.size}" if count else "no image"
        )


def series_hash(uid: str) -> str:
    """Name a series without saying which it is: the start of the SHA-256 of its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def files_of_hash(place: Path, digest: str) -> tuple[Path, ...]:
    """Find the files of the series with a certain ``series_hash``; none where it has gone."""
    if not place.exists():
        return ()
    found = [one for one in find_series(place) if series_hash(one.uid) == digest]
    return found[0].files if found else ()


def find_series(place: Path) -> tuple[Series, ...]:
    """Read the headers of all DICOM files in a folder and below, or of one file.

    Other files are skipped, and so is a DICOMDIR, which lists what lies there anyway.

    Returns:
        By study, number and UID; empty where nothing is DICOM.

    Raises:
        DataError: A DICOM file is damaged.
        VoxsegError: pydicom is missing.
    """
    return group_series(dicom_files([place] if place.is_file() else files_below(place)))


def list_series(place: Path) -> tuple[Series, ...]:
    """Find the series of a folder, at least one.

    Raises:
        DataError: There is no such folder, or nothing in it is DICOM.
    """
    check_exists(place)
    found = find_series(place)
    if not found:
        raise DataError(f"{place} holds no DICOM; give the folder of the images")
    return found


def group_series(files: Iterable[Path]) -> tuple[Series, ...]:
    """Sort DICOM files into series; see ``find_series``."""
    found: dict[tuple[str, str], list[Header]] = {}
    for path in sorted(files):
        header = read_header(path)
        if header is not None:
            found.setdefault((header.study, header.series), []).append(header)
    series = [Series(tuple(headers)) for headers in found.values()]
    return tuple(sorted(series, key=lambda one: (one.study, one.number or 0, one.uid)))


def choose_series(found: Sequence[Series], place: Path, wanted: str = "") -> Series:
    """Choose one series.

    Args:
        found: All of a folder.
        place: The folder, for errors.
        wanted: A SeriesInstanceUID, a series number, or a part of the description; "" takes the
            only volume.

    Raises:
        UsageError: Nothing or several fit, or several studies lie there and none is named.
        DataError: There is no volume at all.
    """
    if wanted:
        return _named(found, place, wanted)
    images = [one for one in found if one.kind != "no image"]
    volumes = [one for one in images if one.kind == "volume"]
    if not volumes:
        if len(images) == 1 and images[0].kind == "single slice":
            return images[0]  # which reading refuses in its own words
        raise DataError(
            f"{place} holds DICOM, but no volume ({_listed(found, with_kind=True)}); give the "
            "folder of a volume"
        )
    studies = len({one.study for one in images})
    if studies > 1:
        raise UsageError(
            f"{place} holds {studies} studies ({_listed(volumes)}); give each study's folder by "
            "itself, or choose a series with --series NUMBER, UID or a part of its description"
        )
    if len(volumes) > 1:
        raise UsageError(
            f"{place} holds {len(volumes)} series ({_listed(volumes)}); choose one with --series "
            "NUMBER, UID or a part of its description"
        )
    return volumes[0]


def left_aside(found: Sequence[Series], chosen: Series) -> tuple[str, ...]:
    """Say which series are not used, and why."""
    return tuple(f"left aside: series {_with_kind(one)}" for one in found if one is not chosen)


def stack_series(headers: Sequence[Header], where: str) -> Stack:
    """Check that the files of a series hold grey values on one regular grid.

    Args:
        headers: Of one series; frames count in their order.
        where: What it is called in errors.

    Raises:
        DataError: They do not.
    """
    known = [header.instance for header in headers if header.instance]
    if len(set(known)) < len(known):
        raise DataError(
            f"{where} holds {len(known) - len(set(known))} files twice (they have one "
            "SOPInstanceUID); remove the copies"
        )
    kinds = sorted({header.photometric for header in headers})
    colour = next((kind for kind in kinds if not kind.startswith("MONOCHROME")), None)
    if colour is not None:
        raise DataError(
            f"{where} holds colour pictures ({colour or 'of no named kind'}), not one grey value "
            "per pixel; choose the original images"
        )
    if "MONOCHROME1" in kinds:
        raise DataError(
            f"{where} holds inverted grey values (MONOCHROME1: low is white), which networks do "
            "not expect; convert it to MONOCHROME2 first"
        )
    if any(header.has_table for header in headers):
        raise DataError(
            f"{where} turns stored values into grey values by a table (Modality LUT), which is not "
            "supported; export it with slope and intercept"
        )
    return stack([one for header in headers for one in header.slices], where)


def problem_of(series: Series) -> str:
    """Say why a volume cannot be read, or ""."""
    if series.kind != "volume":
        return ""
    try:
        stack_series(series.headers, "it")
    except DataError as error:
        return str(error)
    return ""


def series_document(found: Sequence[Series]) -> dict[str, Any]:
    """Describe series in plain values, as ``voxseg data series --json`` prints them."""
    studies = list(dict.fromkeys(one.study for one in found))
    rows = [
        {
            "uid": one.uid,
            "study": studies.index(one.study) + 1,
            "number": one.number,
            "description": one.description,
            "modality": one.modality,
            "kind": one.kind,
            "slices": len(one.slices),
            "size": one.size,
            "problem": problem_of(one),
        }
        for one in found
    ]
    return {"series": rows}


def _named(found: Sequence[Series], place: Path, wanted: str) -> Series:
    text = wanted.strip()
    rules = (
        lambda one: one.uid == text,
        lambda one: str(one.number) == text,
        lambda one: text.casefold() in one.description.casefold(),
    )
    for rule in rules:
        fitting = [one for one in found if rule(one)]
        if len(fitting) > 1:
            raise UsageError(
                f"--series {wanted} fits {len(fitting)} series of {place} ({_listed(fitting)}); "
                "name its UID, as 'voxseg data series' lists them"
            )
        if fitting:
            if fitting[0].kind == "no image":
                raise UsageError(f"series {fitting[0]} of {place} holds no image; choose another")
            return fitting[0]
    raise UsageError(
        f"no series of {place} is called {wanted} by UID, number or description; there are "
        f"{_listed(found)}"
    )


def _with_kind(series: Series) -> str:
    is_odd = series.kind in ("localizer", "single slice")
    return f"{series}, a {series.kind}" if is_odd else str(series)


def _listed(series: Sequence[Series], *, with_kind: bool = False) -> str:
    texts = [_with_kind(one) if with_kind else str(one) for one in series[:8]]
    more = [f"{len(series) - len(texts)} more"] if len(series) > len(texts) else []
    return "; ".join([*texts, *more])
