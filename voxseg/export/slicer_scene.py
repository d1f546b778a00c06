"""Scenes of 3D Slicer: one ``CASE.mrb`` that opens an image with what was found in it.

Source: Slicer's developer guide, *MRML scene file and bundle*; attributes as Slicer's library
itself writes them. An ``.mrb`` is a zip of one folder: the scene (XML) and ``Data`` with the files
that it names. Names of files are plain ASCII, for Slicer would encode others; names of nodes are
not bound to that. The same bytes on each run.
"""

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from voxseg.export.slicer_view import View
from voxseg.files import replacing

_CONVENTIONAL = "2"  # vtkMRMLLayoutNode: three slices and a 3D view
_ENDINGS = re.compile(r"(\.nii|\.nii\.gz|\.seg\.nrrd|\.nrrd|\.ctbl)$", re.IGNORECASE)
_OTHER_SIGNS = re.compile(r"[^A-Za-z0-9_-]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ufffe\uffff]")  # XML has no way to write them
_ANGLE = 30.0  # degrees of the 3D view
_ROOM = 3.5  # distance of the camera, in radii of a ball around the corners of what it shows

_COLOURS = {
    "Red": "0.952941 0.290196 0.2",
    "Green": "0.431373 0.690196 0.294118",
    "Yellow": "0.929412 0.835294 0.298039",
}
# Rows of world axes; columns are right and up on the screen, and towards the reader. Radiological:
# the patient's right is at the screen's left.
_PLANES = {
    "Red": ("Axial", ((-1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "Green": ("Coronal", ((-1, 0, 0), (0, 0, 1), (0, 1, 0))),
    "Yellow": ("Sagittal", ((0, 0, -1), (-1, 0, 0), (0, 1, 0))),
}
_IN_PLANE = {"Red": (0, 1), "Green": (0, 2), "Yellow": (1, 2)}

_IMAGE = "vtkMRMLScalarVolumeNode1"
_LABELS = "vtkMRMLLabelMapVolumeNode1"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What opens together."""

    name: str
    """Of the case, as Slicer lists it."""
    image: Path
    """``.nii``, ``.nii.gz`` or ``.nrrd``; copied into the scene as it is."""
    segments: Path
    """A ``.seg.nrrd``, shown filled, outlined and as surfaces; or a label map ``.nrrd``, shown as
    outlines."""
    window: tuple[float, float]
    """Intensities of the image that are black and white."""
    view: View
    colour_table: Path | None = None
    """A ``.ctbl`` of the label map; Slicer's own random colours without."""

    @property
    def has_segmentation(self) -> bool:
        """Whether ``segments`` is a segmentation, and no label map."""
        return self.segments.name.lower().endswith(".seg.nrrd")


def write_scene(path: Path, scene: Scene) -> Path:
    """Write a scene with everything that it shows; it holds the whole image.

    Args:
        path: Ends in ``.mrb``; an existing file is replaced, its folder is made if needed.
        scene: The files that it names must exist.

    Returns:
        ``path``.

    Raises:
        VoxsegError: It cannot be written.
    """
    folder = plain_name(scene.name)
    files = {_inside(scene, scene.image): scene.image}
    files[_inside(scene, scene.segments)] = scene.segments
    if scene.colour_table is not None:
        files[_inside(scene, scene.colour_table)] = scene.colour_table
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as bundle:
        text = scene_text(scene).encode("utf-8", "replace")  # names of files may be no Unicode
        bundle.writestr(_entry(f"{folder}/{folder}.mrml", zipfile.ZIP_DEFLATED), text)
        for name, file in files.items():
            is_packed = name.endswith((".gz", ".nrrd"))
            kind = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
            entry = _entry(f"{folder}/Data/{name}", kind)
            entry.file_size = file.stat().st_size  # so zipfile knows whether it takes 64 bits
            with file.open("rb") as source, bundle.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 2**20)
    return path


def plain_name(name: str) -> str:
    """Return a name of plain ASCII letters, digits, ``_`` and ``-``."""
    return _OTHER_SIGNS.sub("_", name).strip("_") or "case"


def scene_text(scene: Scene) -> str:
    """Write the scene as MRML, Slicer's XML."""
    nodes = [
        *_image_nodes(scene),
        *(_segmentation_nodes(scene) if scene.has_segmentation else _label_nodes(scene)),
        *_view_nodes(scene),
    ]
    head = ['<?xml version="1.0" encoding="UTF-8"?>', '<MRML version="Slicer 5.0.0 0" userTags="">']
    return "\n".join([*head, *nodes, "</MRML>", ""])


def _entry(name: str, kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = kind
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # Unix, wherever it is written
    return entry


def _inside(scene: Scene, file: Path) -> str:
    """Name a file in the scene: as the case, with its ending."""
    match = _ENDINGS.search(file.name)
    ending = match[0].lower() if match else file.suffix
    what = "" if file == scene.image or ending == ".seg.nrrd" else "-label"
    return f"{plain_name(scene.name)}{what}{ending}"


def _node(tag: str, node: str, name: str, **attributes: str) -> str:
    every = {"id": node, "name": _CONTROLS.sub(" ", name), **attributes}
    return f" <{tag} " + " ".join(f"{k}={quoteattr(v)}" for k, v in every.items()) + f"></{tag}>"


def _numbers(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.8g}" for number in numbers)


def _storage(kind: str, number: int, scene: Scene, file: Path) -> str:
    return _node(
        f"{kind}Storage", f"vtkMRML{kind}StorageNode{number}", f"{kind}Storage_{number}",
        hideFromEditors="true", fileName=f"Data/{_inside(scene, file)}", useCompression="1",
    )  # fmt: skip


def _image_nodes(scene: Scene) -> list[str]:
    low, high = scene.window
    display, storage = "vtkMRMLScalarVolumeDisplayNode1", "vtkMRMLVolumeArchetypeStorageNode1"
    grey = "vtkMRMLColorTableNodeGrey"
    return [
        _storage("VolumeArchetype", 1, scene, scene.image),
        _node(
            "VolumeDisplay", display, "VolumeDisplay", hideFromEditors="true", colorNodeID=grey,
            references=f"color:{grey};", interpolate="1", autoWindowLevel="0",
            window=_numbers((high - low,)), level=_numbers(((high + low) / 2,)),
        ),
        _node("Volume", _IMAGE, scene.name, references=f"display:{display};storage:{storage};"),
    ]  # fmt: skip


def _segmentation_nodes(scene: Scene) -> list[str]:
    display, storage = "vtkMRMLSegmentationDisplayNode1", "vtkMRMLSegmentationStorageNode1"
    return [
        _storage("Segmentation", 1, scene, scene.segments),
        _node(
            "SegmentationDisplay", display, "SegmentationDisplay", hideFromEditors="true",
            visibility="true", visibility2D="true", visibility3D="true",
            Visibility2DFill="true", Visibility2DOutline="true",
            Opacity2DFill="0.5", Opacity2DOutline="1", Opacity3D="1",
        ),
        _node(
            "Segmentation", "vtkMRMLSegmentationNode1", f"{scene.name} segmentation",
            references=f"display:{display};referenceImageGeometryRef:{_IMAGE};storage:{storage};",
        ),
    ]  # fmt: skip


def _label_nodes(scene: Scene) -> list[str]:
    display, storage = "vtkMRMLLabelMapVolumeDisplayNode1", "vtkMRMLVolumeArchetypeStorageNode2"
    colours, nodes = "vtkMRMLColorTableNodeRandom", []
    if scene.colour_table is not None:
        colours, kept = "vtkMRMLColorTableNode1", "vtkMRMLColorTableStorageNode1"
        table = _node("ColorTable", colours, "labels", references=f"storage:{kept};", type="14")
        nodes = [_storage("ColorTable", 1, scene, scene.colour_table), table]
    return [
        *nodes,
        _storage("VolumeArchetype", 2, scene, scene.segments),
        _node(
            "LabelMapVolumeDisplay", display, "LabelMapVolumeDisplay", hideFromEditors="true",
            colorNodeID=colours, references=f"color:{colours};",
            sliceIntersectionThickness="1",  # of outlines; 3 would hide small supervoxels
        ),
        _node(
            "LabelMapVolume", _LABELS, f"{scene.name} labels",
            references=f"display:{display};storage:{storage};",
        ),
    ]  # fmt: skip


def _view_nodes(scene: Scene) -> list[str]:
    """Write three linked slices through one place, and a camera in front of the patient."""
    active = f"ActiveVolume:{_IMAGE};"
    if not scene.has_segmentation:
        active += f"ActiveLabelVolume:{_LABELS};"
    singleton = "vtkMRMLSelectionNodeSingleton"
    nodes = [
        _node(
            "Selection", singleton, "Selection", hideFromEditors="true", singletonTag="Singleton",
            references=active,
        )
    ]  # fmt: skip
    for name in _PLANES:
        nodes += [_slice(name, scene), _composite(name, scene)]
    x, y, z = scene.view.centre
    layout = "vtkMRMLLayoutNode"
    return [
        *nodes,
        _node(
            "View", "vtkMRMLViewNode1", "View1", singletonTag="1", layoutLabel="1", layoutName="1",
            fieldOfView="200", visibility="true", boxVisible="true", axisLabelsVisible="true",
        ),
        _node(
            "Camera", "vtkMRMLCameraNode1", "Camera", singletonTag="1", layoutName="1",
            position=_numbers((x, y + _ROOM * scene.view.radius, z)),
            focalPoint=_numbers((x, y, z)), viewUp="0 0 1", parallelProjection="false",
            viewAngle=_numbers((_ANGLE,)),
        ),
        _node(
            "Layout", f"{layout}{layout}", "Layout", hideFromEditors="true", singletonTag=layout,
            currentViewArrangement=_CONVENTIONAL, guiPanelVisibility="1", bottomPanelVisibility="1",
        ),
    ]  # fmt: skip


def _slice(name: str, scene: Scene) -> str:
    orientation, axes = _PLANES[name]
    # The slice cuts the mask, and is shown as a whole.
    place = [scene.view.middle[axis] if axis in _IN_PLANE[name] else scene.view.centre[axis]
             for axis in range(3)]  # fmt: skip
    matrix = [(*row, at) for row, at in zip(axes, place, strict=True)]
    size = max(scene.view.extent[axis] for axis in _IN_PLANE[name])
    matrices = {
        f"orientationMatrix{plane}": _numbers(tuple(x for row in rows for x in row))
        for plane, rows in _PLANES.values()
    }
    return _node(
        "Slice", f"vtkMRMLSliceNode{name}", name, singletonTag=name, layoutLabel=name[0],
        layoutName=name, layoutColor=_COLOURS[name], visibility="true",
        **matrices,  # before they are named
        orientation=orientation, orientationReference=orientation,
        fieldOfView=_numbers((size, size, 1)), dimensions="256 256 1",
        sliceToRAS=_numbers((*(x for row in matrix for x in row), 0, 0, 0, 1)),
        useLabelOutline=str(not scene.has_segmentation).lower(),
    )  # fmt: skip


def _composite(name: str, scene: Scene) -> str:
    label = {} if scene.has_segmentation else {"labelVolumeID": _LABELS}
    return _node(
        "SliceComposite", f"vtkMRMLSliceCompositeNode{name}", f"SliceComposite{name}",
        hideFromEditors="true", singletonTag=name, layoutName=name, backgroundVolumeID=_IMAGE,
        labelOpacity="1", linkedControl="1", hotLinkedControl="0", **label,
    )  # fmt: skip
