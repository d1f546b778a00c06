"""Corrected copies of a data set, for what can be corrected without guessing.

The copies lie in a folder of their own as ``CASE.nii.gz`` and ``CASE_seg.nii.gz`` (``CASE_0000``,
``CASE_0001``, ... where a case has several files). Only what is named in ``fixes.json`` differs
from the source: voxels, type, scaling and extensions are taken over byte for byte, and nothing is
ever resampled. Mended are:

- qform and sform that contradict each other: the sform, which nibabel and voxseg use, goes into
  both; a sheared one cannot, so its qform is switched off;
- voxel sizes in ``pixdim`` that are not those of the affine;
- a fourth axis of one frame, dropped;
- labels in floating point, or no further than 0.001 from whole numbers: integers;
- labels no further than 0.01 voxel from their image's grid, where reading counts them as equal:
  they get the geometry of the image;
- NaN and infinite voxels, if a value is given for them.

A case with any other error is left out, and ``fixes.json`` says why. Images that are meant to have
no label are not copied.
"""

import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy

from voxseg.data.cases import Case, Dataset
from voxseg.data.check import NEARLY_WHOLE, CheckReport, not_finite, scaled
from voxseg.data.check_findings import FIXABLE, FIXABLE_WITH_VALUE, SHEAR_DEGREES
from voxseg.data.check_header import (
    StoredHeader,
    read_content,
    read_header,
    stored_voxels,
    type_code,
    voxel_offset,
)
from voxseg.data.pairing import is_marked_label
from voxseg.documents import write_document
from voxseg.errors import DataError, UsageError
from voxseg.files import replacing
from voxseg.schemas import FIXES as FORM

FIXES = "fixes.json"
_GEOMETRY = ("pixdim", "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units")
_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True)
class CaseFix:
    """What became of one case."""

    case_id: str
    outcome: Literal["fixed", "copied", "left out"]
    files: tuple[str, ...]
    """Names in the new folder."""
    changes: tuple[str, ...]
    """Every difference from the source, a sentence each."""
    remaining: tuple[str, ...]
    """Why it was left out, or what is still worth a look."""


def fix_dataset(
    dataset: Dataset,
    report: CheckReport,
    out: Path,
    *,
    value_for_nan: float | None = None,
    on_case: Callable[[str], None] | None = None,
) -> tuple[CaseFix, ...]:
    """Write corrected copies of what was checked.

    Args:
        dataset: The source; its files are only read.
        report: Of ``check_dataset``.
        out: A folder made by ``open_folder``.
        value_for_nan: What to write for NaN and infinite voxels; None leaves such cases out.
        on_case: Called with the id of each case when it is done.

    Returns:
        What became of each case; ``fixes.json`` in ``out`` says the same.

    Raises:
        VoxsegError: A file cannot be written.
    """
    mendable = FIXABLE | (frozenset() if value_for_nan is None else FIXABLE_WITH_VALUE)
    names = safe_names([case.case_id for case in dataset.cases])
    fixes: list[CaseFix] = []
    for case, name in zip(dataset.cases, names, strict=True):
        own = [finding for finding in report.findings if finding.case_id == case.case_id]
        reasons = [
            str(finding)
            for finding in own
            if finding.severity == "error" and finding.kind not in mendable
        ]
        if case.label is None:
            reasons.append("it has no label")
        others = [
            str(finding)
            for finding in own
            if finding.severity == "warning" and finding.kind not in mendable
        ]
        kinds: dict[Path, set[str]] = {}
        for finding in own:
            if finding.path is not None:
                kinds.setdefault(finding.path, set()).add(finding.kind)
        if reasons:
            fixes.append(CaseFix(case.case_id, "left out", (), (), tuple(reasons)))
        else:
            # Named before they exist, so that --overwrite knows them after an interruption.
            targets = _targets(case, name)
            started = CaseFix(case.case_id, "left out", targets, (), ("it was interrupted",))
            _write_list(out, [*fixes, started], value_for_nan, finished=False)
            fixes.append(_write_case(case, out, targets, kinds, value_for_nan, others))
        _write_list(out, fixes, value_for_nan, finished=False)
        if on_case is not None:
            on_case(case.case_id)
    _write_list(out, fixes, value_for_nan, finished=True)
    return tuple(fixes)


def _refuse_photographs(dataset: Dataset) -> None:
    if dataset.is_images:
        raise UsageError("--fix mends NIfTI files only; leave it out for photographs")


def open_folder(out: Path, sources: Iterable[Path], dataset: Dataset, *, overwrite: bool) -> None:
    """Make the folder for the copies, where it can harm nothing.

    Args:
        out: The folder.
        sources: Folders or list files that were checked.
        dataset: What was found in them.
        overwrite: Whether copies of an earlier time may be removed.

    Raises:
        UsageError: It lies inside a source or around one, is a file, holds files and ``overwrite``
            is false, or holds files that are no such copies; or the data set is of photographs.
    """
    _refuse_photographs(dataset)
    place = out.resolve()
    for source in sources:
        if source.is_dir() and place.is_relative_to(source.resolve()):
            raise UsageError(f"{out} lies inside {source}; choose a folder apart from the data")
    for case in dataset.cases:
        for path in (*case.images, *((case.label,) if case.label else ())):
            if path.resolve().is_relative_to(place):
                raise UsageError(f"{out} holds {path}, a source; choose a folder apart from it")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --fix names a folder for the copies")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if found and not overwrite:
        raise UsageError(
            f"{out} already holds files; replace them with --overwrite, or choose another folder"
        )
    known = {FIXES, *_files_of(out / FIXES)}
    foreign = [name for name in found if name not in known]
    if foreign:
        raise UsageError(
            f"{out} holds {foreign[0]}, which --fix did not write; choose another folder"
        )
    for name in found:
        (out / name).unlink()


def safe_names(case_ids: Sequence[str]) -> list[str]:
    """Turn case ids, which a list may spell in any way, into file names that pair up again."""
    names: list[str] = []
    for case_id in case_ids:
        name = re.sub(r"[^\w.-]+", "_", case_id).lstrip(".-") or "case"
        if is_marked_label(Path(f"{name}.nii.gz")):
            name += "_case"
        base, number = name, 2
        while name.lower() in {other.lower() for other in names}:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def _files_of(fixes: Path) -> list[str]:
    """Return the names that an earlier ``fixes.json`` lists, none if there is no such file."""
    try:
        cases = json.loads(fixes.read_text(encoding="utf-8"))["cases"]
        return [str(name) for case in cases for name in case["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_list(
    out: Path, fixes: Sequence[CaseFix], value_for_nan: float | None, *, finished: bool
) -> None:
    content = {
        "value_for_nan": value_for_nan,
        "finished": finished,
        "cases": [asdict(fix) for fix in fixes],
    }
    write_document(out / FIXES, FORM, content)


def _targets(case: Case, name: str) -> tuple[str, ...]:
    """Return the names of the copies of images and label."""
    numbered = [f"{name}_{number:04d}.nii.gz" for number in range(len(case.images))]
    images = numbered if len(case.images) > 1 else [f"{name}.nii.gz"]
    return (*images, f"{name}_seg.nii.gz")


def _write_case(
    case: Case,
    out: Path,
    targets: tuple[str, ...],
    kinds: dict[Path, set[str]],
    value_for_nan: float | None,
    remaining: list[str],
) -> CaseFix:
    assert case.label is not None
    changes: list[str] = []
    contents: list[bytearray | None] = []
    like: StoredHeader | None = None
    try:
        for path in (*case.images, case.label):
            if not kinds.get(path, set()) & (FIXABLE | FIXABLE_WITH_VALUE):
                like = like or read_header(path)
                contents.append(None)
                continue
            edit = _Edit(*read_content(path), [])
            _mend(edit, kinds[path], like, value_for_nan, is_label=path == case.label)
            like = like or edit.header
            changes.extend(f"{path.name}: {change}" for change in edit.changes)
            contents.append(edit.content)
    except DataError as error:
        return CaseFix(case.case_id, "left out", (), (), (str(error),))
    sources = (*case.images, case.label)
    for source, target, content in zip(sources, targets, contents, strict=True):
        _write_file(source, out / target, content)
    outcome: Literal["fixed", "copied"] = "fixed" if changes else "copied"
    return CaseFix(case.case_id, outcome, targets, tuple(changes), tuple(remaining))


@dataclass
class _Edit:
    """A file in memory on its way to a copy."""

    header: StoredHeader
    content: bytearray
    changes: list[str]


@np.errstate(invalid="ignore")  # headers may hold any bits, which are written anew here
def _mend(
    edit: _Edit,
    kinds: set[str],
    like: StoredHeader | None,
    value_for_nan: float | None,
    *,
    is_label: bool,
) -> None:
    """Mend what was found in one file; ``like`` is the mended header of the first image."""
    if "not-finite" in kinds and value_for_nan is not None:
        _replace_nan(edit, value_for_nan)
    if is_label and kinds & {"not-finite", "float-label", "not-whole-nearly"}:
        _make_integer(edit)
    fields = edit.header.fields
    if "single-frame" in kinds:
        axes = len(edit.header.shape)
        fields["dim"][0], fields["dim"][4:] = 3, 1
        edit.changes.append(f"{axes} axes became 3")
    if "pixdim" in kinds:
        was = " x ".join(f"{size:.4g}" for size in edit.header.sizes)
        words = _set_qform(edit.header)
        now = " x ".join(f"{size:.4g}" for size in edit.header.sizes)
        edit.changes.append(f"voxel sizes in pixdim from {was} to {now}{words}")
    if "form-conflict" in kinds:
        fields["qform_code"] = fields["sform_code"]
        edit.changes.append("qform set to the sform" + _set_qform(edit.header))
    if "label-offset" in kinds and like is not None:
        for name in _GEOMETRY:
            fields[name] = like.fields[name]
        edit.changes.append("geometry taken over from the image")


def _replace_nan(edit: _Edit, value: float) -> None:
    voxels = stored_voxels(edit.header, edit.content)
    bad = not_finite(scaled(edit.header, voxels))
    slope, inter = edit.header.scaling or (1.0, 0.0)
    with np.errstate(over="ignore"):
        voxels[bad] = (value - inter) / slope
    if not np.isfinite(voxels[bad]).all():
        raise DataError(f"{edit.header.path} cannot hold the value {value:g}; give a smaller one")
    edit.changes.append(f"{int(bad.sum())} NaN or infinite voxels set to {value:g}")


def _make_integer(edit: _Edit) -> None:
    """Store labels in the smallest integer type that holds them.

    Raises:
        DataError: They are not near whole numbers.
    """
    header = edit.header
    values = scaled(header, stored_voxels(header, edit.content))
    whole = np.rint(values)
    distance = float(np.abs(values - whole).max())
    if distance > NEARLY_WHOLE:
        raise DataError(
            f"label {header.path} has values up to {distance:.2g} from whole numbers; threshold it"
        )
    low, high = whole.min(), whole.max()
    fitting = [t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max]
    if not fitting:
        raise DataError(f"label {header.path} has values beyond 32 bits; renumber them")
    was, dtype = header.get_data_dtype().name, np.dtype(fitting[0])
    start = voxel_offset(header)
    fields = header.fields
    fields["datatype"], fields["bitpix"] = type_code(dtype), dtype.itemsize * 8
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    fields["cal_min"] = fields["cal_max"] = 0
    stored = whole.astype(header.get_data_dtype()).tobytes(order="F")
    edit.changes.append(f"values from {was} to {dtype.name}")
    content = edit.content[:start] + stored
    edit.header, edit.content = _over(content, header), content


def _over(content: bytearray, header: StoredHeader) -> StoredHeader:
    laid = np.frombuffer(content, header.fields.dtype, count=1).reshape(())
    return StoredHeader(header.path, header.version, laid)


def _set_qform(header: StoredHeader) -> str:
    """Bring ``pixdim`` and, if it is in use, the qform to the affine; say what could not be."""
    fields, affine = header.fields, header.affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    shear = header.shear_degrees
    fields["pixdim"][1:4] = lengths
    if fields["qform_code"] <= 0:
        return ""
    if shear > SHEAR_DEGREES:
        fields["qform_code"] = 0
        return "; it is sheared, which a qform cannot be, so the qform is switched off"
    rotation = affine[:3, :3] / lengths
    is_left_handed = np.linalg.det(rotation) < 0
    rotation = rotation * np.array((1, 1, -1 if is_left_handed else 1))
    fields["pixdim"][0] = -1 if is_left_handed else 1
    x, y, z, w = scipy.spatial.transform.Rotation.from_matrix(rotation).as_quat()
    fields["quatern"] = np.array((x, y, z)) * (-1 if w < 0 else 1)
    fields["qoffset"] = affine[:3, 3]
    return ""


def _write_file(source: Path, target: Path, content: bytearray | None) -> None:
    """Write mended bytes, or the source's own where nothing was mended."""
    with replacing(target) as temporary:
        if content is None and source.name.lower().endswith(".gz"):
            shutil.copyfile(source, temporary)
            return
        with (
            temporary.open("wb") as file,
            # Neither name nor time go into the file: the same source gives the same bytes.
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        ):
            if content is not None:
                packed.write(content)
            else:
                with source.open("rb") as plain:
                    shutil.copyfileobj(plain, packed)


def fix_summary(out: Path, fixes: Sequence[CaseFix], again: CheckReport | None) -> dict[str, Any]:
    """Return the ``fix`` of ``check_document``; ``again`` is the check of the copies, if any."""
    return {
        "folder": str(out),
        "cases": [asdict(fix) for fix in fixes],
        "errors": len(again.errors) if again else 0,
        "warnings": len(again.warnings) if again else 0,
    }
