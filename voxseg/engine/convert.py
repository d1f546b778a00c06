"""Turn annotations of other forms into masks that voxseg reads.

Only COCO so far: its objects become palette PNGs with the 21 classes of PASCAL VOC, beside links
to (or copies of) the photographs, laid out as ``images/PART`` and ``masks/PART``. A photograph's
mask is written last, so that a conversion that was stopped goes on where it was.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from voxseg import schemas
from voxseg.data.coco import CocoImage, paint, read_annotations
from voxseg.data.images import picture_facts
from voxseg.data.label_sets import VOC, VOC_NAMES, VOID, spread_colour
from voxseg.documents import write_document
from voxseg.engine.options import Place, as_path
from voxseg.errors import DataError, UsageError
from voxseg.export.images import write_label_png
from voxseg.files import replacing, write_text

Form = Literal["coco"]

_ANNOTATIONS = re.compile(r"^(?:instances_)?(.+)$")
_PART = re.compile(r"[\w.-]+")
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class ConvertRequest:
    """What ``voxseg data convert coco`` is asked for."""

    data: Path
    """Folder of the data set."""
    output: Path
    """Folder for images and masks."""
    annotations: Path | None = None
    """``instances_*.json``; by default the only one in ``data`` or ``data/annotations``."""
    images: Path | None = None
    """Folder of the photographs; by default that in ``data`` which the annotations are named
    after."""
    split: str | None = None
    """Name of the part in ``output``; by default that of the annotations, without the year."""
    copy: bool = False
    """Copy photographs instead of linking to them."""
    smallest_object: int = 0
    """Objects of fewer pixels become background."""
    overwrite: bool = False
    """Do everything again."""


@dataclass(frozen=True)
class Conversion:
    """What was converted, and from what."""

    annotations: str
    images: str
    output: str
    split: str
    copied: bool
    smallest_object: int
    num_images: int
    """Photographs in the annotations."""
    num_masks: int
    """Masks that the part has now."""
    num_kept: int
    """Masks of them that an earlier run had written."""
    num_left_out: int
    """Photographs without any object of VOC's classes."""
    num_objects: int
    """Objects that were painted in this run."""
    num_dropped: int
    """Objects that were too small, in this run."""
    finished: bool = True
    classes: dict[str, str] = field(
        default_factory=lambda: {str(value): name for value, name in VOC.names.items()}
    )

    def to_json(self) -> dict[str, Any]:
        """Return the content of its document."""
        return asdict(self)


def _silent(*_: object) -> None:
    """Tell nobody."""


def convert(
    form: Form,
    data: Place,
    output: Place,
    *,
    annotations: Place | None = None,
    images: Place | None = None,
    split: str | None = None,
    copy: bool = False,
    smallest_object: int = 0,
    overwrite: bool = False,
    notify: Callable[[int, int], None] = _silent,
    say: Callable[[str], None] = _silent,
) -> Conversion:
    """Turn another form's annotations into masks; see ``voxseg data convert --help``.

    What an earlier run has written is kept.

    Args:
        form: Of the annotations.
        data: As the other options, see ``ConvertRequest``.
        output: Folder for images and masks.
        annotations: File of the annotations.
        images: Folder of the photographs.
        split: Name of the part.
        copy: Whether to copy photographs.
        smallest_object: In pixels.
        overwrite: Whether to do all of it again.
        notify: Called with the number of photographs done and of all that have objects.
        say: Called with one sentence for what is worth a line.

    Raises:
        UsageError: The form is unknown, files are not named or cannot be found, or the part holds
            something else.
        DataError: Annotations are damaged, photographs are missing or have another size.
    """
    if form not in get_args(Form):
        raise UsageError(f"there is no form {form!r} to convert; there is coco")
    request = ConvertRequest(
        data=Path(data),
        output=Path(output),
        annotations=as_path(annotations),
        images=as_path(images),
        split=split,
        copy=copy,
        smallest_object=smallest_object,
        overwrite=overwrite,
    )
    return _convert_coco(request, notify, say)


def _convert_coco(
    request: ConvertRequest, notify: Callable[[int, int], None], say: Callable[[str], None]
) -> Conversion:
    annotations = _annotations(request)
    name = _named(annotations)
    part = request.split or next((one for one in _PARTS if name.startswith(one)), name)
    if not _PART.fullmatch(part):
        raise UsageError(f"{part!r} cannot name a part; give --split a name of letters and digits")
    images = _images(request, name)
    all_images = read_annotations(annotations)
    wanted = [one for one in all_images if any(not region.is_crowd for region in one.regions)]
    _refuse_missing(images, wanted)
    start = Conversion(
        annotations=str(annotations),
        images=str(images),
        output=str(request.output),
        split=part,
        copied=request.copy,
        smallest_object=request.smallest_object,
        num_images=len(all_images),
        num_masks=0,
        num_kept=0,
        num_left_out=len(all_images),
        num_objects=0,
        num_dropped=0,
        finished=False,
    )
    record = request.output / f"convert-{part}.json"
    _open(request, start, record)
    say(f"{len(wanted)} of {len(all_images)} photographs have objects of VOC's classes")
    done = _convert_all(request, start, wanted, images, notify)
    names = dict(enumerate(VOC_NAMES)) | {VOID: "void"}
    write_text(request.output / "classes.json", json.dumps(names, indent=1) + "\n")
    write_document(record, schemas.CONVERT, done.to_json())
    return done


def _convert_all(
    request: ConvertRequest,
    start: Conversion,
    wanted: list[CocoImage],
    images: Path,
    notify: Callable[[int, int], None],
) -> Conversion:
    """Write image and mask of each photograph that has objects."""
    masks = request.output / "masks" / start.split
    palette = {value: spread_colour(value) for value in range(256)}
    kept = written = objects = dropped = 0
    for number, image in enumerate(wanted, start=1):
        mask = masks / f"{Path(image.name).stem}.png"
        if mask.is_file():
            kept += 1
        else:
            painted = paint(image, request.smallest_object)
            dropped += painted.dropped
            objects += painted.objects
            if painted.objects:
                place = request.output / "images" / start.split / image.name
                _provide(images / image.name, place, image, copy=request.copy)
                write_label_png(mask, painted.values, palette)
                written += 1
        notify(number, len(wanted))
    return replace(
        start,
        num_masks=kept + written,
        num_kept=kept,
        num_left_out=start.num_images - kept - written,
        num_objects=objects,
        num_dropped=dropped,
        finished=True,
    )


def _annotations(request: ConvertRequest) -> Path:
    if request.annotations is not None:
        given = request.annotations
        places = (given, request.data / given, request.data / "annotations" / given)
        return _existing(places, given, "--annotations")
    folders = (request.data, request.data / "annotations")
    found = [path for folder in folders for path in sorted(folder.glob("instances_*.json"))]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UsageError(
            f"{request.data} holds several instances_*.json or none ({names}); name one with "
            "--annotations"
        )
    return found[0]


def _images(request: ConvertRequest, name: str) -> Path:
    if request.images is not None:
        given = request.images
        return _existing((given, request.data / given), given, "--images")
    places = (request.data / name, request.data / "images" / name)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise UsageError(f"there is no folder {places[0]} of photographs; name it with --images")
    return found


def _existing(places: tuple[Path, ...], given: Path, option: str) -> Path:
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise UsageError(f"there is no {given}, neither here nor in the data set; correct {option}")
    return found


def _named(annotations: Path) -> str:
    """Return what annotations are of: ``train2017`` of ``instances_train2017.json``."""
    match = _ANNOTATIONS.match(annotations.stem)
    return match[1] if match else annotations.stem


def _refuse_missing(images: Path, wanted: list[CocoImage]) -> None:
    missing = [image.name for image in wanted if not (images / image.name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} photographs are not in {images}, the first "
            f"{missing[0]}; unpack the images again, or name their folder with --images"
        )


def _open(request: ConvertRequest, start: Conversion, record: Path) -> None:
    """Go on with an earlier run of the same settings, or begin; never mix two."""
    folders = [request.output / kind / start.split for kind in ("images", "masks")]
    is_used = any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
    earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    if is_used and earlier is None:
        raise UsageError(
            f"{folders[1]} holds files that no conversion has written; choose another -o or --split"
        )
    if earlier is not None and request.overwrite:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    elif earlier is not None and _settings(earlier) != _settings(start.to_json()):
        raise UsageError(
            f"{record} tells of a conversion with other settings; do all of it again with "
            "--overwrite, or choose another -o or --split"
        )
    write_document(record, schemas.CONVERT, start.to_json())


def _settings(content: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("annotations", "images", "copied", "smallest_object")
    return tuple(content.get(name) for name in names)


def _provide(source: Path, place: Path, image: CocoImage, *, copy: bool) -> None:
    """Link to a photograph, or copy it; refuse one of another size than its annotations."""
    found = picture_facts(source).shape
    if found != image.shape:
        raise DataError(
            f"{source} has {found[1]}x{found[0]} pixels, its annotations are of "
            f"{image.shape[1]}x{image.shape[0]}; use the photographs that belong to them"
        )
    with replacing(place) as temporary:
        if copy:
            shutil.copyfile(source, temporary)
        else:
            temporary.unlink()
            temporary.symlink_to(source.resolve())
