"""What a check has to say, and what it can say from headers alone.

Nothing here reads a voxel: ``train`` and ``crossval`` stop on these findings before they read one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxseg.data.cases import Case
from voxseg.data.check_header import StoredHeader, read_header
from voxseg.data.volume import affine_distance, check_same_grid
from voxseg.errors import DataError

Severity = Literal["error", "warning", "note"]

FIXABLE = frozenset(
    {"form-conflict", "pixdim", "single-frame", "float-label", "label-offset", "not-whole-nearly"}
)
"""Kinds that ``--fix`` mends without being told anything."""
FIXABLE_WITH_VALUE = frozenset({"not-finite"})
"""Kinds that it mends if told what to put in the place of NaN."""

_PIXDIM_TOLERANCE = 1e-3
_CONFLICT_VOXELS = 0.1
SHEAR_DEGREES = 0.1  # beyond the rounding of a float32 header
_OFFSET_VOXELS = 1e-4  # beyond the same, for labels that count as on the image's grid
_SPACING_SPREAD = 1.01


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd."""

    severity: Severity
    """Errors stop training; warnings are worth a look; notes are good to know."""
    kind: str
    """A word for programs, the same for all findings of one sort."""
    case_id: str
    """Empty if it concerns the whole set."""
    path: Path | None
    cause: str
    cure: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}"


@dataclass(frozen=True)
class FileFacts:
    """A row's worth of one file; empty where the header cannot be read."""

    path: Path
    shape: tuple[int, ...] = ()
    """(X, Y, Z) as stored, trailing axes included; of a picture, height and width."""
    spacing: tuple[float, ...] = ()
    """mm along X, Y, Z."""
    orientation: str = ""
    """Where X, Y and Z run to, such as ``LAS``."""
    handedness: str = ""
    """``left`` or ``right``; voxseg reads both."""
    form: str = ""
    """What the affine is taken from: ``sform``, ``qform`` or ``none``."""
    dtype: str = ""
    scaling: tuple[float, float] | None = None
    """Slope and intercept; None if stored numbers are the intensities."""


@dataclass(frozen=True)
class Pair:
    """One row of the pairing table."""

    case_id: str
    images: tuple[FileFacts, ...]
    label: FileFacts | None
    category: str = ""
    """Of a photograph with a class: that."""


@dataclass(frozen=True)
class HeaderCheck:
    """What the headers of one case say."""

    pair: Pair
    findings: tuple[Finding, ...]
    images_fit: bool
    """Whether all images can be read as far as headers tell, and share a grid."""
    label_fits: bool
    """Whether there is a label that can be read; false without one."""
    grids_agree: bool
    """Whether the label lies on the grid of the images, if both can be read."""
    habits: frozenset[str] = frozenset()
    """Of a photograph, how it is stored, as ``images.PictureFacts`` says it."""


@np.errstate(all="ignore")  # a header may hold any bits; comparisons below take NaN as apart
def check_case_headers(case: Case) -> HeaderCheck:
    """Read the headers of a case and judge its geometry, in milliseconds."""
    findings: list[Finding] = []
    paths = (*case.images, *((case.label,) if case.label else ()))
    headers: dict[Path, StoredHeader] = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except DataError as error:
            findings.append(from_error(case, error, "unreadable"))
        else:
            findings.extend(_geometry(case, headers[path]))
    images = [headers[path] for path in case.images if path in headers]
    label = headers.get(case.label) if case.label else None
    apart = list(_grids(case, images, label))
    findings.extend(apart)
    rows = tuple(_file_facts(path, headers.get(path)) for path in case.images)
    labelled = _file_facts(case.label, label) if case.label else None
    is_apart = {finding.path for finding in apart if finding.severity == "error"}
    return HeaderCheck(
        Pair(case.case_id, rows, labelled),
        tuple(findings),
        images_fit=len(images) == len(case.images) and not is_apart & set(case.images),
        label_fits=label is not None,
        grids_agree=case.label not in is_apart,
    )


def from_error(case: Case, error: DataError, kind: str) -> Finding:
    """Take cause and cure from the sentence; the file is the one that it names."""
    cause, _, cure = str(error).rpartition("; ")
    files = (*((case.label,) if case.label else ()), *case.images)
    named = [path for path in files if str(path) in str(error)]
    return Finding("error", kind, case.case_id, named[0] if named else None, cause or cure, cure)


def _file_facts(path: Path, header: StoredHeader | None) -> FileFacts:
    if header is None:
        return FileFacts(path)
    lengths = np.linalg.norm(header.affine[:3, :3], axis=0) * header.unit_mm
    return FileFacts(
        path=path,
        shape=header.shape,
        spacing=tuple(float(length) for length in lengths),
        orientation=header.orientation,
        handedness=header.handedness,
        form=header.form,
        dtype=header.get_data_dtype().name,
        scaling=header.scaling,
    )


def _geometry(case: Case, header: StoredHeader) -> Iterator[Finding]:
    """Compare what one header says in several places."""
    path, unit = header.path, header.unit_mm
    lengths = np.linalg.norm(header.affine[:3, :3], axis=0)
    if not np.abs(header.sizes / lengths - 1).max() <= _PIXDIM_TOLERANCE:
        yield Finding(
            "warning", "pixdim", case.case_id, path,
            f"{path} says voxels of {_mm(header.sizes * unit)} mm in pixdim and of "
            f"{_mm(lengths * unit)} mm in its affine, which voxseg uses",
            "make the two agree if other programs read the file",
        )  # fmt: skip
    if header.form == "none":
        yield Finding(
            "warning", "no-form", case.case_id, path,
            f"{path} does not say how it lies in the world (qform and sform codes are 0), so its "
            "first axis is taken to run from right to left",
            "set its sform if left and right matter",
        )  # fmt: skip
    voxels = header.form_distance_voxels
    if voxels > _CONFLICT_VOXELS:
        qform = header.qform
        apart = (
            "the qform is no rotation"
            if qform is None
            else f"they lie up to {_corner_distance(header, qform):.3g} mm ({voxels:.3g} voxels) "
            "apart"
        )
        yield Finding(
            "warning", "form-conflict", case.case_id, path,
            f"qform and sform of {path} contradict each other: {apart}; voxseg uses the sform, "
            "other programs may not",
            "remove the wrong one if they should agree",
        )  # fmt: skip
    degrees = header.shear_degrees
    if degrees > SHEAR_DEGREES:
        yield Finding(
            "warning", "shear", case.case_id, path,
            f"the axes of {path} are sheared: two of them miss a right angle by {degrees:.2g} "
            "degrees, which programs built on ITK (3D Slicer, SimpleITK) refuse or drop",
            "resample it onto a rectangular grid, image and label alike",
        )  # fmt: skip
    if len(header.shape) > 3 and np.prod(header.shape[3:]) == 1:
        yield Finding(
            "note", "single-frame", case.case_id, path,
            f"{path} is stored with {len(header.shape)} axes but holds one frame; voxseg reads it "
            "as 3D",
            "nothing needs to be done unless another program stumbles",
        )  # fmt: skip


def _corner_distance(header: StoredHeader, other: np.ndarray) -> float:
    """Return how far apart, in mm, the header's affine and another put a corner at most."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in header.grid], [1])).reshape(4, -1)
    moved = ((other - header.affine) @ corners)[:3]
    return float(np.linalg.norm(moved, axis=0).max()) * header.unit_mm


def _grids(
    case: Case, images: Sequence[StoredHeader], label: StoredHeader | None
) -> Iterator[Finding]:
    """Compare the grids of a case's files with the first image's."""
    if not images:
        return
    first = images[0]
    others = [*images[1:], label] if label is not None else images[1:]
    for other in others:
        try:
            check_same_grid(first.as_volume(), other.as_volume())
        except DataError as error:
            finding = from_error(case, error, "grid")
            words = _apart_words(first, other)
            yield Finding(
                "error", "grid", case.case_id, other.path, finding.cause + words, finding.cure
            )
            continue
        distance = affine_distance(first.affine, other.affine, first.grid)
        if other is label and distance > _OFFSET_VOXELS:
            yield Finding(
                "note", "label-offset", case.case_id, other.path,
                f"{other.path} lies {distance:.2g} voxels away from {first.path}, which counts as "
                "the same grid",
                "nothing needs to be done unless another program stumbles",
            )  # fmt: skip


def _apart_words(first: StoredHeader, other: StoredHeader) -> str:
    """Say how far apart two grids of one shape lie in mm, and which of them says nothing."""
    if first.grid != other.grid:
        return ""
    words = f" (up to {_corner_distance(first, other.affine):.3g} mm)"
    silent = [header.path.name for header in (first, other) if header.form == "none"]
    return words + (f", and {silent[0]} does not say how it lies in the world" if silent else "")


def set_notes(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Tell where images of one set are stored in several ways; training copes with all of them."""
    firsts = [pair.images[0] for pair in pairs if pair.images and pair.images[0].spacing]
    spacings = np.array([sorted(one.spacing) for one in firsts])
    if len(firsts) > 1 and (spacings.max(0) / spacings.min(0)).max() > _SPACING_SPREAD:
        yield Finding(
            "note", "spacing", "", None,
            f"voxel sizes differ between images: {_mm(spacings.min(0))} to "
            f"{_mm(spacings.max(0))} mm (shortest edge first)",
            "train with data.spacing_mm to bring them to one size, or leave each at its own",
        )  # fmt: skip
    ways = sorted({one.orientation for one in firsts})
    if len(ways) > 1:
        counts = [f"{sum(one.orientation == way for one in firsts)} {way}" for way in ways]
        yield Finding(
            "note", "orientation", "", None,
            f"arrays run in different directions: {', '.join(counts)}",
            "nothing needs to be done: voxseg turns them by their affines; check that those are "
            "right if left and right matter",
        )  # fmt: skip


def _mm(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
