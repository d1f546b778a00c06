"""Supervoxel maps of files, and how good labels drawn by whole supervoxels could be (the oracle).

Source: oracle performance and its use to find a size, Schuurmans, Berman, Blaschko,
arXiv:1806.02705, section 4.
Maps are computed on the source's own grid, inside the foreground, as training computes them.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.data.layouts import Case, find_cases
from voxseg.data.names import is_case_file
from voxseg.data.prepare import MaskMode, foreground, read_case
from voxseg.data.superpixels import Method, SupervoxelSettings, compute_supervoxels
from voxseg.data.volume import Volume
from voxseg.documents import document
from voxseg.engine.run_supervoxels import RunDivision, read_division
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.masks import mask_name, write_mask
from voxseg.files import replacing, write_text
from voxseg.metrics.summary import mean_of_defined
from voxseg.metrics.superpixels import oracle_dice
from voxseg.schemas import SUPERVOXELS

TOLERANCE = 0.002
"""The search ends when the oracle is this close to its target."""
_STEPS = 14
_SWEEP = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Sizes of a sweep, as parts of the size asked for."""


@dataclass(frozen=True, kw_only=True)
class SupervoxelRequest:
    """What to divide and how."""

    inputs: tuple[Path, ...]
    """Volumes, or folders and lists of them."""
    output: Path
    """A folder, or for a single volume the map's own name."""
    labels: Path | None = None
    """Folder of the labels, or the label of a single volume."""
    settings: SupervoxelSettings = field(default_factory=SupervoxelSettings)
    mask: MaskMode = "auto"
    """Foreground: "nonzero" voxels, "all" of them, or "auto": nonzero if a tenth of them is 0."""
    target_oracle: float | None = None
    """Mean oracle Dice whose supervoxel size is wanted."""
    sweep: bool = False
    """Also measure other sizes, with SLIC and BLOCK, and draw the curves."""
    overwrite: bool = False
    run: Path | None = None
    """Divide as prediction with this run does: its settings, on its prepared image."""

    def __post_init__(self) -> None:
        own = self.settings != SupervoxelSettings() or self.mask != "auto"
        if self.run is not None and (own or self.sweep or self.target_oracle is not None):
            raise UsageError(
                f"--run takes the supervoxels' settings from {self.run}; leave the options that "
                "choose others out"
            )


@dataclass(frozen=True)
class Point:
    """One size, averaged over the cases."""

    method: str
    size_mm: float
    num_supervoxels: float
    oracle: float
    """Mean over cases of the mean Dice of their foreground classes."""


@dataclass(frozen=True)
class CaseMap:
    """The map of one case."""

    case_id: str
    path: str
    num_supervoxels: int
    dice: dict[int, float]
    """Oracle Dice by class; empty without a label."""
    seconds: float
    error: str = ""
    """One sentence, or "" when all went well."""

    @property
    def mean(self) -> float:
        """Mean oracle Dice of the foreground; NaN without a label."""
        return mean_of_defined(list(self.dice.values()))


@dataclass(frozen=True)
class SupervoxelReport:
    """What was made and measured."""

    settings: SupervoxelSettings
    """As used for the maps: with the size that was found, when one was searched."""
    cases: tuple[CaseMap, ...]
    class_names: dict[int, str]
    search: tuple[Point, ...] = ()
    """The sizes that were tried, in that order."""
    sweep: tuple[Point, ...] = ()
    plot: str = ""
    """The PNG of the sweep."""

    @property
    def means(self) -> dict[int, float]:
        """Oracle Dice of each class, averaged over the cases that have it."""
        classes = sorted({value for case in self.cases for value in case.dice})
        return {
            value: mean_of_defined([case.dice[value] for case in self.cases if value in case.dice])
            for value in classes
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        content = {
            "settings": vars(self.settings),
            "cases": [vars(case) | {"mean": case.mean} for case in self.cases],
            "class_names": self.class_names,
            "mean_dice": self.means,
            "mean": mean_of_defined([case.mean for case in self.cases if case.dice]),
            "search": [vars(point) for point in self.search],
            "sweep": [vars(point) for point in self.sweep],
            "plot": self.plot,
        }
        return document(SUPERVOXELS, content)


@dataclass(frozen=True)
class _Subject:
    """A case in memory, cut to its foreground and its labels."""

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    label: NDArray[np.int32] | None
    spacing: tuple[float, ...]
    box: tuple[slice, ...]
    source: Volume

    def divide(self, settings: SupervoxelSettings) -> NDArray[np.int32]:
        """Compute the map of the cut."""
        regions: NDArray[np.int32] = compute_supervoxels(
            self.image, self.spacing, settings, mask=self.mask
        )
        return regions

    def oracle(self, regions: NDArray[np.int32]) -> dict[int, float]:
        """Dice of every foreground class, or nothing without a label."""
        return {} if self.label is None else oracle_dice(regions, self.label)


def make_supervoxels(
    request: SupervoxelRequest, notify: Callable[[str], None] = lambda _: None
) -> SupervoxelReport:
    """Divide every volume, write the maps and measure their oracle where there are labels.

    Args:
        request: what to do.
        notify: told what is being done, for a status line.

    Returns:
        The report; also written to ``oracle.csv`` in the output folder when there are labels. In
        the maps, 0 is outside and supervoxels count from 1.

    Raises:
        UsageError: nothing to do, an output that exists, a target that no size reaches.
        DataError: no cases, or no labels where they are needed. A single broken case among several
            is reported instead, unless a search or sweep needs it.
    """
    cases, class_names = _find(request.inputs, request.labels)
    targets = _outputs(request, cases)
    settings, search, sweep, plot = request.settings, [], [], ""
    division = None if request.run is None else read_division(request.run)
    settings = settings if division is None else division.supervoxels
    if request.target_oracle is not None or request.sweep:
        labelled = [case for case in cases if case.label is not None]
        if not labelled:
            raise DataError("no image has a label, which the oracle needs; use --labels")
        subjects = [_load(case, request.mask) for case in labelled]
        if request.target_oracle is not None:
            search = _search(subjects, settings, request.target_oracle, notify)
            best = min(search, key=lambda p: abs(p.oracle - (request.target_oracle or 0)))
            settings = replace(settings, size_mm=best.size_mm)
        if request.sweep:
            sweep = _sweep(subjects, settings, notify)
            plot = str(_draw(sweep, _folder(request.output) / "sweep.png"))
    maps = []
    for number, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
        notify(f"{case.case_id} ({number}/{len(cases)})")
        how = division or settings
        maps.append(_divide(case, target, request, how, is_alone=len(cases) == 1))
    report = SupervoxelReport(settings, tuple(maps), class_names, tuple(search), tuple(sweep), plot)
    if any(case.dice for case in maps):
        write_text(_folder(request.output) / "oracle.csv", _csv(report))
    return report


def _find(inputs: Sequence[Path], labels: Path | None) -> tuple[list[Case], dict[int, str]]:
    """Collect the cases of all inputs; a label folder serves single files too, by their names."""
    cases: list[Case] = []
    names: dict[int, str] = {}
    for path in inputs:
        if not path.is_file() or not is_case_file(path) or (labels and labels.is_file()):
            dataset = find_cases(path, labels, need_labels=labels is not None)
            cases += dataset.cases
            names |= dataset.class_names
        elif labels is None:
            cases += find_cases(path, need_labels=False).cases
        else:
            dataset = find_cases(path.parent, labels, need_labels=False)
            cases += [case for case in dataset.cases if path in case.images]
    if labels is not None and labels.is_file() and len(cases) > 1:
        raise UsageError(f"{labels} is one label for {len(cases)} volumes; give a folder of labels")
    ids = [case.case_id for case in cases]
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
    if twice:
        raise DataError(f"two volumes are called {twice[0]}; divide them one folder at a time")
    return cases, names


def _folder(output: Path) -> Path:
    """Where tables and drawings go."""
    return output.parent if is_case_file(output) else output


def _outputs(request: SupervoxelRequest, cases: Sequence[Case]) -> list[Path]:
    """Choose the maps' names and refuse to lose anything, before any work is done."""
    if is_case_file(request.output):
        if len(cases) != 1:
            raise UsageError(
                f"{request.output} is one file for {len(cases)} volumes; name a folder"
            )
        targets = [request.output]
    else:
        targets = [
            request.output / mask_name(f"{case.case_id}_supervoxels", is_image=case.is_image)
            for case in cases
        ]
    extras = [_folder(request.output) / "oracle.csv", _folder(request.output) / "sweep.png"]
    existing = [path for path in [*targets, *extras] if path.exists()]
    if existing and not request.overwrite:
        raise UsageError(f"{existing[0]} exists; use --overwrite, or choose another -o")
    return targets


def _load(case: Case, mask_mode: MaskMode) -> _Subject:
    """Read a case and cut it to what is divided or labelled."""
    volume, label = read_case(case)
    mask = foreground(volume.array[0], "all" if case.is_image else mask_mode)
    if not mask.any():
        raise DataError(f"{case.images[0]} is all zeros: there is nothing to divide")
    used = mask if label is None else mask | (label.array != 0)
    hits = [np.flatnonzero(used.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return _Subject(
        image=np.ascontiguousarray(volume.array[(slice(None), *box)]),
        mask=np.ascontiguousarray(mask[box]),
        label=None if label is None else np.ascontiguousarray(label.array[box]),
        spacing=volume.spacing,
        box=box,
        source=volume,
    )


def _divide(
    case: Case, target: Path, request: SupervoxelRequest, how: SupervoxelSettings | RunDivision,
    *, is_alone: bool,
) -> CaseMap:  # fmt: skip
    """Make, score and write one map; an error is a result, unless there is no other case."""
    start = time.perf_counter()
    try:
        if isinstance(how, RunDivision):
            source, label = read_case(case)
            whole = how.divide(case) + 1
            dice = {} if label is None else oracle_dice(whole - 1, label.array)
        else:
            subject = _load(case, request.mask)
            source, regions = subject.source, subject.divide(how)
            whole = np.zeros(source.shape, np.int32)
            whole[subject.box] = regions + 1
            dice = subject.oracle(regions)
        write_mask(target, whole, source)
    except VoxsegError as error:
        if is_alone:
            raise
        return CaseMap(case.case_id, "", 0, {}, time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    return CaseMap(case.case_id, str(target), int(whole.max()), dice, seconds)


def _measure(subjects: Sequence[_Subject], settings: SupervoxelSettings) -> Point:
    """Average oracle and number of supervoxels over the subjects."""
    oracles, counts = [], []
    for subject in subjects:
        regions = subject.divide(settings)
        oracles.append(mean_of_defined(list(subject.oracle(regions).values())))
        counts.append(int(regions.max()) + 1)
    return Point(
        settings.method, settings.size_mm, float(np.mean(counts)), mean_of_defined(oracles)
    )


def _search(
    subjects: Sequence[_Subject],
    settings: SupervoxelSettings,
    target: float,
    notify: Callable[[str], None],
) -> list[Point]:
    """Find the size whose oracle is the target: bracket it by doubling, then bisect its logarithm.

    Returns:
        Every size that was tried.
    """
    if not 0 < target < 1:
        raise UsageError(f"--target-oracle is a Dice between 0 and 1, got {target:g}")
    smallest = min(min(subject.spacing) for subject in subjects)
    largest = max(
        n * s
        for subject in subjects
        for n, s in zip(subject.mask.shape, subject.spacing, strict=True)
    )
    low, high = 0.0, math.inf  # the oracle is above the target at low, and below it at high
    size = min(max(settings.size_mm, smallest), largest)
    tried: list[Point] = []
    while len(tried) < _STEPS and smallest <= size <= largest:
        notify(f"trying {size:.2f} mm")
        tried.append(_measure(subjects, replace(settings, size_mm=size)))
        if abs(tried[-1].oracle - target) <= TOLERANCE:
            break
        if tried[-1].oracle > target:
            low = size
        else:
            high = size
        size = 2 * low if high == math.inf else high / 2 if low == 0 else math.sqrt(low * high)
    closest = min(tried, key=lambda point: abs(point.oracle - target))
    if abs(closest.oracle - target) > 5 * TOLERANCE:
        raise UsageError(
            f"no supervoxel size gives an oracle Dice of {target:g}: the closest is "
            f"{closest.oracle:.3f} at {closest.size_mm:.2f} mm; ask for that, or for another "
            "--compactness"
        )
    return tried


def _draw(points: Sequence[Point], path: Path) -> Path:
    """Draw the oracle against the number of supervoxels as a PNG."""
    # The object interface never touches pyplot's global state or a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in dict.fromkeys(point.method for point in points):
        curve = sorted((p.num_supervoxels, p.oracle) for p in points if p.method == method)
        axes.plot(*zip(*curve, strict=True), marker="o", label=method.upper())
    axes.set(xscale="log", xlabel="supervoxels per volume", ylabel="mean oracle Dice")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path


def _csv(report: SupervoxelReport) -> str:
    """One row a case, one column a class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [report.class_names.get(value, str(value)) for value in report.means]
    writer.writerow(["case", "supervoxels", *names, "mean"])
    for case in report.cases:
        scores = [case.dice.get(value, math.nan) for value in report.means]
        cells = ["" if math.isnan(score) else f"{score:.6f}" for score in [*scores, case.mean]]
        writer.writerow([case.case_id, case.num_supervoxels, *cells])
    return text.getvalue()


def _sweep(
    subjects: Sequence[_Subject], settings: SupervoxelSettings, notify: Callable[[str], None]
) -> list[Point]:
    """Measure SLIC and BLOCK at sizes around the one asked for."""
    points = []
    methods: tuple[Method, ...] = ("slic", "block")
    for method in methods:
        for part in _SWEEP:
            notify(f"{method} at {part * settings.size_mm:.2f} mm")
            changed = replace(settings, method=method, size_mm=part * settings.size_mm)
            points.append(_measure(subjects, changed))
    return points
