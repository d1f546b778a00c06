"""COCO's annotations as masks with the 21 classes of PASCAL VOC.

Source: Lin and others, *Microsoft COCO: common objects in context*, ECCV 2014, and the form of its
``instances_*.json``. Twenty of COCO's 80 categories are VOC's; all others are background.

An object is a list of polygons (their union) or runs of pixels, plain or packed into text. A pixel
belongs to a polygon if its centre does; coordinates run from the outer edge of the first pixel, so
centres lie at one half. Crowd regions do not count (255) and lie lowest; objects lie on them in the
order of the file, later ones over earlier ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon

from voxseg.data.case_lists import parse_json
from voxseg.data.label_sets import VOC_NAMES, VOID
from voxseg.errors import DataError

_OTHER_NAMES = {
    "airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike",
    "potted plant": "pottedplant", "couch": "sofa", "tv": "tvmonitor",
}  # fmt: skip
_draw: Callable[..., tuple[np.ndarray, np.ndarray]] = polygon  # which has no types
_FEWEST_NUMBERS = 6  # three corners; COCO has some "polygons" of two


@dataclass(frozen=True)
class Region:
    """One object, or a crowd of objects that are not told apart."""

    value: int
    """Class of PASCAL VOC."""
    is_crowd: bool
    segmentation: Any
    """As in the file: polygons, or runs."""
    number: Any
    """The annotation's id, for messages."""


@dataclass(frozen=True)
class CocoImage:
    """One photograph of the annotations, with its regions of VOC's classes."""

    name: str
    """File name without folders."""
    shape: tuple[int, int]
    """Height and width."""
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class PaintedMask:
    """The mask of one photograph."""

    values: np.ndarray
    """(H, W) uint8: 0 background, 1 to 20, 255 where nothing counts."""
    objects: int
    """Objects of VOC's classes that were painted."""
    dropped: int
    """Objects that were left out because they are small."""


def read_annotations(path: Path) -> tuple[CocoImage, ...]:
    """Read ``instances_*.json``; images in the order of the file.

    Raises:
        DataError: It is not such a file, or an entry lacks what it needs.
    """
    content = parse_json(path)
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise DataError(
            f"{path} is no file of COCO's instances; it needs images, annotations and categories"
        )
    try:
        return _images(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} has an entry that is not as COCO's are ({type(error).__name__}: {error}); "
            "download it again"
        ) from None


def _images(content: Mapping[str, Any]) -> tuple[CocoImage, ...]:
    values = {}
    for category in content["categories"]:
        name = _OTHER_NAMES.get(category["name"], category["name"])
        if name in VOC_NAMES[1:]:
            values[category["id"]] = VOC_NAMES.index(name)
    regions: dict[Any, list[Region]] = {}
    for one in content["annotations"]:
        value = values.get(one["category_id"])
        if value is not None:
            region = Region(value, bool(one.get("iscrowd", 0)), one["segmentation"], one.get("id"))
            regions.setdefault(one["image_id"], []).append(region)
    return tuple(
        CocoImage(
            Path(image["file_name"]).name,
            (int(image["height"]), int(image["width"])),
            tuple(regions.get(image["id"], ())),
        )
        for image in content["images"]
    )


def paint(image: CocoImage, smallest_object: int = 0) -> PaintedMask:
    """Paint the regions of a photograph.

    Args:
        image: With its regions.
        smallest_object: Objects of fewer pixels, counted before others lie over them, become
            background; crowds are never left out.

    Raises:
        DataError: A region cannot be understood.
    """
    mask = np.zeros(image.shape, np.uint8)
    objects = dropped = 0
    for region in sorted(image.regions, key=lambda one: not one.is_crowd):
        try:
            pixels = region_pixels(region.segmentation, image.shape)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"annotation {region.number} of {image.name} cannot be understood ({error}); "
                "download the annotations again"
            ) from None
        if region.is_crowd:
            mask.flat[pixels] = VOID
        elif len(pixels) < smallest_object:
            dropped += 1
        else:
            mask.flat[pixels] = region.value
            objects += 1
    return PaintedMask(mask, objects, dropped)


def region_pixels(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a region as ascending indices into the rows put end to end.

    Args:
        segmentation: A list of polygons ``[x, y, x, y, ...]``, or ``{"size", "counts"}``.
        shape: Height and width of the photograph.

    Raises:
        ValueError: It is neither, or does not fit the photograph.
    """
    if isinstance(segmentation, list):
        return _polygon_pixels(segmentation, shape)
    if tuple(segmentation["size"]) != shape:
        raise ValueError(f"its runs are of size {segmentation['size']}, the image {list(shape)}")
    counts = segmentation["counts"]
    runs = np.array(unpack_counts(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise ValueError("its runs do not fill the image")
    is_inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # column after column
    return np.flatnonzero(is_inside.reshape(shape[::-1]).T)


def _polygon_pixels(polygons: Iterable[Any], shape: tuple[int, int]) -> np.ndarray:
    found = [np.zeros(0, np.int64)]
    for corners in polygons:
        numbers = np.asarray(corners, np.float64)
        if numbers.ndim != 1 or numbers.size % 2:
            raise ValueError("a polygon needs an x and a y for each corner")
        if numbers.size >= _FEWEST_NUMBERS:
            rows, columns = _draw(numbers[1::2] - 0.5, numbers[::2] - 0.5, shape)
            found.append(rows * shape[1] + columns)
    return np.unique(np.concatenate(found))


def unpack_counts(text: str) -> list[int]:
    """Unpack the run lengths that COCO packs into text.

    Each number is cut into groups of 5 bits, the lowest first; a character carries a group, bit 5
    telling that more follow, and stands 48 places up the table. Bit 4 of the last group is the
    sign. From the fourth number on, it is the difference from the number two before.

    Raises:
        ValueError: The text ends within a number, or holds another character.
    """
    numbers: list[int] = []
    value = place = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"its runs hold the character {character!r}")
        value |= (group & 31) << place
        place += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << place
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = place = 0
    if place:
        raise ValueError("its runs end within a number")
    return numbers
