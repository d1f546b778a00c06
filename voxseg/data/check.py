"""Look at a whole data set before any time is spent on it: what is wrong, where, and what helps.

Headers come first and cost milliseconds (``check_headers``: all that ``train`` needs to stop
early); then every file is read once, one case in memory at a time (``check_dataset``). Errors stop
training; warnings are worth a look; notes are good to know. The ``Fingerprint`` is what defaults
(spacing, patch size, classes) are chosen from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxseg.data.cases import Case, Dataset
from voxseg.data.check_facts import (
    CaseFacts,
    CaseHashes,
    Fingerprint,
    case_facts,
    case_hashes,
    fingerprint_of,
    value_counts,
)
from voxseg.data.check_findings import (
    FileFacts,
    Finding,
    HeaderCheck,
    Pair,
    check_case_headers,
    from_error,
    set_notes,
)
from voxseg.data.check_header import StoredHeader, read_content, stored_voxels
from voxseg.data.check_pictures import (
    check_picture_headers,
    picture_facts_of,
    picture_hashes,
    picture_labels,
    picture_normals,
    picture_notes,
    picture_set_findings,
    picture_values,
    sampled,
)
from voxseg.data.check_set import duplicates, set_findings
from voxseg.data.layouts import find_cases
from voxseg.data.pairing import is_marked_label
from voxseg.data.reading import read_channels
from voxseg.data.targets import read_target
from voxseg.data.volume import Volume
from voxseg.errors import DataError

__all__ = [
    "NEARLY_WHOLE", "CaseFacts", "CheckReport", "FileFacts", "Finding", "Fingerprint", "Pair",
    "check_dataset", "check_headers", "find_pairs",
]  # fmt: skip

NEARLY_WHOLE = 1e-3
"""Labels this close to whole numbers can be rounded without guessing what they mean."""


@dataclass(frozen=True)
class CheckReport:
    """Everything that was found."""

    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...]
    """Every case with the facts of its files' headers."""
    cases: tuple[CaseFacts, ...] = ()
    """Of the cases that could be read."""
    fingerprint: Fingerprint | None = None
    """None if no case could be read."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that training cannot live with."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings worth a look."""
        return self._of("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that are good to know."""
        return self._of("note")

    def _of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def status(self, pair: Pair) -> str:
        """Return the worst that was found about a case: ``error``, ``warning`` or ``ok``.

        A case without a label is called so, since ``train`` cannot use it.
        """
        own = {one.severity for one in self.findings if one.case_id == pair.case_id}
        if "error" in own:
            return "error"
        if pair.label is None and not pair.category:
            return "no label"
        return "warning" if "warning" in own else "ok"

    def raise_for_errors(self) -> None:
        """Raise the first error, if any.

        Raises:
            DataError: With the number of the others.
        """
        if self.errors:
            more = len(self.errors) - 1
            others = f" ({more} more: `voxseg check` lists them)" if more else ""
            raise DataError(f"{self.errors[0]}{others}")


def find_pairs(data: Path, labels: Path | None = None) -> tuple[Dataset, tuple[Finding, ...]]:
    """Find the cases of a data set, and go on where ``find_cases`` stops at a missing partner.

    Returns:
        The cases, and the sentence that stops training as a finding of the whole set. Then cases
        without a label are among the cases, and labels without an image are in the notes.

    Raises:
        DataError: There is nothing to check.
    """
    try:
        return find_cases(data, labels), ()
    except DataError as error:
        stopped = error
    try:
        dataset = find_cases(data, labels, need_labels=False)
    except DataError:
        raise stopped from None
    bare = [case for case in dataset.cases if case.label is None]
    if len(bare) == len(dataset.cases):
        raise stopped
    orphans = {case.case_id for case in bare if is_marked_label(case.images[0])}
    notes = [
        f"left aside: {case.images[0]}, a label without an image"
        for case in bare
        if case.case_id in orphans
    ]
    kept = tuple(case for case in dataset.cases if case.case_id not in orphans)
    nobody = from_error(Case("", (), None), stopped, "pairing")
    return replace(dataset, cases=kept, notes=(*dataset.notes, *notes)), (nobody,)


def check_headers(dataset: Dataset) -> CheckReport:
    """Check pairs and geometry without reading a voxel: less than a millisecond or so a file.

    Damage further on in a file is not seen, nor anything about values.
    """
    checks = [_headers(case) for case in dataset.cases]
    findings = [finding for check in checks for finding in check.findings]
    pairs = tuple(check.pair for check in checks)
    return CheckReport((*findings, *set_notes(pairs)), pairs)


def _headers(case: Case) -> HeaderCheck:
    return check_picture_headers(case) if case.is_image else check_case_headers(case)


def check_dataset(
    dataset: Dataset,
    on_case: Callable[[str], None] | None = None,
    known: tuple[Finding, ...] = (),
    most_photographs: int | None = None,
) -> CheckReport:
    """Read every case and report what is wrong with it, one case at a time.

    Args:
        dataset: As found.
        on_case: Called with the id of each case when it is done, for progress.
        known: Findings about the set from before, such as those of ``find_pairs``.
        most_photographs: Of photographs, read so many, spread over the set, and of the others the
            masks and headers only; None for all. Volumes are always read.

    Returns:
        Findings in the order of the cases, then those of the whole set. Unreadable files are
        errors in the report, never raised.
    """
    findings: list[Finding] = list(known)
    found = _Found(list(known), [], [])
    photographs = [case for case in dataset.cases if case.is_image]
    in_full = sampled(photographs, most_photographs)
    checks: list[HeaderCheck] = []
    for case in dataset.cases:
        check = _headers(case)
        checks.append(check)
        found.findings.extend(check.findings)
        if not case.is_image:
            _examine_volume(case, check, found)
        elif case.case_id in in_full:
            _examine_picture(case, check, found, dataset)
        else:
            _examine_picture(case, replace(check, images_fit=False), found, dataset)
        if on_case is not None:
            on_case(case.case_id)
    pairs = tuple(check.pair for check in checks)
    findings, facts = found.findings, found.facts
    findings.extend(duplicates(dataset, found.hashes))
    if dataset.is_images:
        findings.extend(picture_set_findings(dataset, facts))
        findings.extend(picture_notes(checks, len(in_full)))
    else:
        findings.extend(set_findings(dataset, facts))
        findings.extend(set_notes(pairs))
    return CheckReport(tuple(findings), pairs, tuple(facts), fingerprint_of(facts))


@dataclass(frozen=True)
class _Found:
    """What grows while one case after the other is read."""

    findings: list[Finding]
    facts: list[CaseFacts]
    hashes: list[CaseHashes]


def _examine_volume(case: Case, check: HeaderCheck, found: _Found) -> None:
    image, label = _read_case(case, check, found.findings)
    if label is not None:
        found.findings.extend(_label_findings(case, check, label))
    if image is None:
        return
    found.findings.extend(_value_findings(case, image, label))
    if (label is not None or case.label is None) and check.grids_agree:
        found.facts.append(case_facts(case.case_id, image, label))
    found.hashes.append(case_hashes(case.case_id, image, label))


def _examine_picture(case: Case, check: HeaderCheck, found: _Found, dataset: Dataset) -> None:
    image, label = _read_case(case, check, found.findings)
    counts: dict[int, int] = {}
    if label is not None and case.task == "normals":
        found.findings.extend(picture_normals(case, label))
    elif label is not None:
        counts = value_counts(label.array)
        found.findings.extend(picture_labels(case, label, counts, dataset.label_set))
    found.findings.extend(picture_values(case, image, label))
    lacks = (case.label is not None and label is None) or (image is None and label is None)
    if not lacks and check.grids_agree:
        found.facts.append(picture_facts_of(case.case_id, image, label, counts))
    if image is not None:
        found.hashes.append(picture_hashes(case.case_id, image, label))


def _read_case(
    case: Case, check: HeaderCheck, findings: list[Finding]
) -> tuple[Volume | None, Volume | None]:
    """Read what headers promise; what cannot be read after all becomes a finding."""
    image = label = None
    if check.images_fit:
        try:
            image = read_channels(case.images)
        except DataError as error:
            findings.append(_explained(from_error(case, error, "unreadable")))
    if check.label_fits and case.label is not None:
        try:
            label = read_target(case)
        except DataError as error:
            findings.append(_explained(from_error(case, error, "unreadable")))
    return image, label


def _explained(finding: Finding) -> Finding:
    """Say more of the two reasons for which values are refused: NaN, and labels between classes."""
    is_nan = "infinite voxels" in finding.cause
    if finding.path is None or not (is_nan or "not whole numbers" in finding.cause):
        return finding
    try:
        header, content = read_content(finding.path)
        values = scaled(header, stored_voxels(header, content))
    except DataError:
        return finding
    if is_nan:
        places = np.argwhere(not_finite(values))
        if not len(places):
            return finding
        first = tuple(int(place) for place in places[0][:3])
        return replace(
            finding, kind="not-finite", cause=f"{finding.cause}, the first at voxel {first}"
        )
    furthest = float(np.abs(values - np.rint(values)).max())
    if furthest > NEARLY_WHOLE:
        return replace(finding, kind="not-whole")
    return replace(
        finding,
        kind="not-whole-nearly",
        cause=f"{finding.cause}; none is further than {furthest:.2g} from one",
        cure="round them to integers",
    )


def scaled(header: StoredHeader, voxels: np.ndarray) -> np.ndarray:
    """Take stored numbers through slope and intercept, in float64 where there are any."""
    if header.scaling is None:
        return voxels
    slope, inter = header.scaling
    with np.errstate(over="ignore", invalid="ignore"):
        return voxels * slope + inter


def not_finite(values: np.ndarray) -> np.ndarray:
    """Mark NaN, infinity, and what becomes infinite when it is read as float32 (boolean)."""
    with np.errstate(invalid="ignore"):
        fits: np.ndarray = np.abs(values) <= np.finfo(np.float32).max
    return ~fits


def _value_findings(case: Case, image: Volume, label: Volume | None) -> Iterator[Finding]:
    for number, channel in enumerate(image.array):
        path = case.images[min(number, len(case.images) - 1)]
        if channel.min() == channel.max():
            frame = f"frame {number} of " if len(image.array) > len(case.images) else ""
            yield Finding(
                "error", "constant", case.case_id, path,
                f"{frame}{path} is constant: every voxel is {float(channel.flat[0]):g}",
                "replace the file or leave the case out",
            )  # fmt: skip
        elif label is not None and np.array_equal(channel, label.array):
            yield Finding(
                "error", "image-is-label", case.case_id, path,
                f"{path} has the same voxels as its label {label.path}: the answer is in the input",
                "give the image itself",
            )  # fmt: skip


def _label_findings(case: Case, check: HeaderCheck, label: Volume) -> Iterator[Finding]:
    path, low = label.path, int(label.array.min())
    if low == label.array.max():
        yield Finding(
            "warning", "one-value", case.case_id, path,
            f"label {path} has but one value, {low}, in every voxel",
            "check that it is the right file; as training data it only shows background",
        )  # fmt: skip
    if low < 0:
        count = int(np.count_nonzero(label.array < 0))
        yield Finding(
            "warning", "negative-label", case.case_id, path,
            f"label {path} has {count} negative voxels, down to {low}",
            "voxseg trains on them as a class of its own; if they mean background or `ignore`, "
            "write 0 there",
        )  # fmt: skip
    facts = check.pair.label
    if facts is not None and facts.dtype.startswith("float"):
        yield Finding(
            "note", "float-label", case.case_id, path,
            f"label {path} is stored as {facts.dtype}; all its values are whole numbers",
            "nothing needs to be done unless another program stumbles",
        )  # fmt: skip
