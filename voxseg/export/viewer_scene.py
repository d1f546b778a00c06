"""What a viewer shows of one case, packed for a page: small volumes, and words about them.

Every volume of the page is an 8-bit NIfTI file in RAS+ order, compressed, in base64. They share one
grid, which lies where the image lay, in mm.
"""

import base64
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxseg.errors import UsageError
from voxseg.export.axes import to_ras
from voxseg.export.case_picture import ERROR_COLOURS, ERROR_NAMES, display_window
from voxseg.export.labels import HIGHEST_VALUE, Colour, LabelTable
from voxseg.export.nifti import nifti_bytes
from voxseg.export.viewer_shrink import (
    STEPS,
    Greys,
    body_box,
    can_shrink,
    fewer,
    grey_range,
    moved_affine,
    thinned,
    thinned_affine,
    to_bytes,
    told_apart,
)

MOST_LABELS = 255
"""Labels that one byte tells apart beside the background."""
MOST_VOXELS = 2**26
"""A graphics card holds several copies of each volume, of four bytes a voxel."""
MB = 1_000_000

_LISTED = 60  # labels of a table that are listed although no mask has them
_DIFFERENCE_NAMES = ("only in {a}", "only in {b}", "in both, of different labels")


@dataclass(frozen=True, eq=False)
class ViewerScene:
    """One case; all arrays (X, Y, Z) on one grid."""

    name: str
    affine: NDArray[Any]
    """(4, 4), voxel indices to mm in RAS+ world coordinates."""
    image: NDArray[Any] | None = None
    """Intensities; without them the masks are drawn on black."""
    masks: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Name -> label map; none of its values is below 0."""
    table: LabelTable = field(default_factory=lambda: LabelTable(labels=()))
    """Names and colours of all their labels."""
    superpixels: NDArray[Any] | None = None
    """Region map, drawn as borders; negative outside."""
    uncertainty: NDArray[Any] | None = None
    """In [0, 1]."""
    has_errors: bool = False
    """Whether the first mask is a prediction and the second one the truth."""
    window: tuple[float, float] | None = None
    """Intensities to be black and white, and all that are kept; None chooses."""
    notes: Sequence[str] = ()
    """Sentences about the case."""


@dataclass(frozen=True)
class PackedScene:
    """A case as a page holds it."""

    content: Mapping[str, Any]
    """What the page's script needs to know, as JSON has it."""
    volumes: Mapping[str, str]
    """Name -> base64 of a ``.nii.gz`` file."""
    notes: tuple[str, ...]
    """What was done to the volumes, a sentence each."""

    @property
    def num_bytes(self) -> int:
        """What the volumes take on the page."""
        return sum(len(text) for text in self.volumes.values())


@dataclass(frozen=True, eq=False)
class _Stack:
    """Volumes of bytes on one grid, by name."""

    arrays: Mapping[str, NDArray[np.uint8]]
    affine: NDArray[np.float64]
    greys: Greys
    smooth: frozenset[str]
    """Those that may be blurred."""

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.arrays.values())).shape

    def thinned(self, factors: Sequence[int]) -> "_Stack":
        arrays = {
            name: thinned(array, factors, is_smooth=name in self.smooth)
            for name, array in self.arrays.items()
        }
        affine = thinned_affine(self.affine, self.shape, factors)
        return replace(self, arrays=arrays, affine=affine)

    def encoded(self) -> dict[str, str]:
        return {name: self._encode(name, array) for name, array in self.arrays.items()}

    def _encode(self, name: str, array: NDArray[np.uint8]) -> str:
        scales = {"image": (self.greys.step, self.greys.low), "uncertainty": (1 / STEPS, 0.0)}
        slope, intercept = scales.get(name, (1.0, 0.0))
        content = nifti_bytes(
            # Regions get their numbers last: what is thinned has other neighbours.
            told_apart(array) if name == "superpixels" else array,
            self.affine, slope=slope, intercept=intercept, is_label=name not in scales,
        )  # fmt: skip
        return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def pack(scene: ViewerScene, most_bytes: float, *, is_whole: bool = False) -> PackedScene:
    """Make a case small enough for a page, and say how.

    Intensities become 256 grey values. The grid is cut to the body and what is segmented; if the
    volumes then still take more than ``most_bytes``, every second voxel is kept, or fewer.

    Args:
        scene: The case.
        most_bytes: What its volumes may take, compressed and in base64.
        is_whole: Neither cut nor thin the grid.

    Raises:
        ValueError: There is no array, or a label is not in the table.
        UsageError: It cannot be made so small, or must not be.
    """
    stack, notes = _stacked(scene, is_whole=is_whole)
    volumes = stack.encoded()
    factors: tuple[int, ...] = (1, 1, 1)
    shape = stack.shape
    spacing = [float(length) for length in np.linalg.norm(stack.affine[:3, :3], axis=0)]
    small = stack
    while True:
        taken = sum(len(text) for text in volumes.values())
        ratio = max(taken / most_bytes, math.prod(small.shape) / MOST_VOXELS)
        if ratio <= 1 or (is_whole and taken <= most_bytes):
            break
        if is_whole or not can_shrink(shape, factors):
            hint = "leave --full out, or " if is_whole else ""
            raise UsageError(
                f"the volumes of {scene.name} take {taken / MB:.3g} MB of the page, and "
                f"{most_bytes / MB:.3g} MB are left for them; {hint}raise --max-mb"
            )
        factors = fewer(ratio, spacing, factors)
        small = stack.thinned(factors)
        volumes = small.encoded()
    if max(factors) > 1:
        larger = [n * mm for n, mm in zip(factors, spacing, strict=True)]
        notes.append(
            f"One voxel of every {_by(factors)} is kept: they were {_mm(spacing)} and are "
            f"{_mm(larger)}; labels are those of the voxels that are kept."
        )
    if scene.image is None:
        notes.insert(0, "There is no image: masks are drawn on black.")
    return PackedScene(_content(scene, small), volumes, (*scene.notes, *notes))


def _stacked(scene: ViewerScene, *, is_whole: bool) -> tuple[_Stack, list[str]]:
    """Turn, cut and quantise the arrays of a case."""
    arrays = {
        **({} if scene.image is None else {"image": scene.image}),
        **{f"mask-{n}": mask for n, mask in enumerate(scene.masks.values())},
        **({} if scene.superpixels is None else {"superpixels": scene.superpixels}),
        **({} if scene.uncertainty is None else {"uncertainty": scene.uncertainty}),
    }
    if not arrays:
        raise ValueError(f"{scene.name} has nothing to show; give an image or a label map")
    arrays, affine = to_ras(arrays, scene.affine)
    shape = next(iter(arrays.values())).shape
    masks = [array for name, array in arrays.items() if name.startswith("mask-")]
    notes = []
    if not is_whole and (scene.image is not None or masks):
        spacing = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
        box = body_box(arrays.get("image"), masks, spacing)
        arrays = {name: array[box] for name, array in arrays.items()}
        affine = moved_affine(affine, [part.start for part in box])
        cut = next(iter(arrays.values())).shape
        if cut != shape:
            notes.append(
                f"The volume is cut to what is not air, with a margin: {_by(cut)} of its "
                f"{_by(shape)} voxels."
            )
    greys = Greys(0.0, float(STEPS), is_exact=True)
    if "image" in arrays:
        greys = grey_range(arrays["image"], scene.window)
        if not greys.is_exact:
            notes.append(
                f"Intensities are kept in 256 steps from {greys.low:.5g} to {greys.high:.5g}; "
                "what lies beyond is drawn as the nearest of the two."
            )
    return _Stack(
        {name: _as_bytes(name, array, greys, scene.table) for name, array in arrays.items()},
        affine,
        greys,
        frozenset({"image", "uncertainty"}),
    ), notes


def _as_bytes(name: str, array: NDArray[Any], greys: Greys, table: LabelTable) -> NDArray[Any]:
    if name == "image":
        return to_bytes(array, greys)
    if name == "uncertainty":
        return to_bytes(array, Greys(0.0, 1.0))
    if name == "superpixels":
        return array  # many numbers, until they are told apart
    if len(table) > MOST_LABELS:
        raise ValueError(f"a page tells {MOST_LABELS} labels apart, got a table of {len(table)}")
    ranks = np.full(HIGHEST_VALUE + 1, -1, np.int16)
    ranks[[0, *(label.value for label in table)]] = range(len(table) + 1)
    is_possible = array.min() >= 0 and array.max() <= HIGHEST_VALUE
    if not is_possible or ranks[array].min() < 0:
        raise ValueError("a mask holds a label that is not in the table")
    numbers: NDArray[np.uint8] = ranks.astype(np.uint8)[array]
    return numbers


def _content(scene: ViewerScene, stack: _Stack) -> dict[str, Any]:
    """Gather what the script needs to know."""
    masks = [
        {"name": name, "volume": f"mask-{n}", "voxels": int(np.count_nonzero(mask))}
        for n, (name, mask) in enumerate(scene.masks.items())
    ]
    image = None
    if scene.image is not None:
        low, high = scene.window or display_window(scene.image)
        low, high = max(low, stack.greys.low), min(high, stack.greys.high)
        image = {
            "window": [low, high],
            "range": [stack.greys.low, stack.greys.high],
            "is_exact": stack.greys.is_exact,
        }
    return {
        "name": scene.name,
        "image": image,
        "masks": masks,
        "labels": _labels(scene),
        "differences": _differences(scene),
        "uncertainty": scene.uncertainty is not None,
        "superpixels": 0
        if scene.superpixels is None
        else len(np.unique(scene.superpixels[scene.superpixels >= 0])),
        "start": _start(scene),
    }


def _labels(scene: ViewerScene) -> list[dict[str, Any]]:
    """List the labels by the number that they have on the page, with their volumes."""
    voxel_ml = abs(float(np.linalg.det(scene.affine[:3, :3]))) / 1000
    counts = [np.unique(mask, return_counts=True) for mask in scene.masks.values()]
    volumes = [
        {int(value): int(count) * voxel_ml for value, count in zip(*found, strict=True)}
        for found in counts
    ]
    used = {value for one in volumes for value in one}
    return [
        {
            "index": rank,
            "value": label.value,
            "name": label.name,
            "colour": _hex(label.colour),
            "ml": [one.get(label.value, 0.0) for one in volumes],
        }
        for rank, label in enumerate(scene.table, 1)
        if label.value in used or len(scene.table) <= _LISTED
    ]


def _differences(scene: ViewerScene) -> list[dict[str, Any]]:
    """Name the differences between the first mask and each other one."""
    first, *others = list(scene.masks) or [""]
    colours = [_hex(colour) for colour in ERROR_COLOURS.values()]
    found = []
    for number, other in enumerate(others, 1):
        names = [text.format(a=first, b=other) for text in _DIFFERENCE_NAMES]
        title = f"difference of {first} and {other}"
        if scene.has_errors and number == 1:
            names, title = list(ERROR_NAMES.values()), "errors"
        found.append(
            {"first": 0, "second": number, "name": title, "names": names, "colours": colours}
        )
    return found


def _start(scene: ViewerScene) -> list[float]:
    """Point in mm where the planes meet first: amid what is segmented, else amid the volume."""
    for mask in scene.masks.values():
        inside = np.nonzero(mask)
        if inside[0].size:
            voxel = [int(np.median(place)) for place in inside]
            break
    else:
        some = scene.image if scene.image is not None else scene.superpixels
        some = some if some is not None else scene.uncertainty
        voxel = [size // 2 for size in np.shape(some)] if some is not None else [0, 0, 0]
    return [float(mm) for mm in (scene.affine @ [*voxel, 1])[:3]]


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _by(numbers: Sequence[int]) -> str:
    return " \u00d7 ".join(str(number) for number in numbers)


def _mm(spacing: Sequence[float]) -> str:
    return " \u00d7 ".join(f"{length:.3g}" for length in spacing) + " mm"
