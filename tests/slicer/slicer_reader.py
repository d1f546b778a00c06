"""Load files with 3D Slicer's own library, and print what it found as JSON.

Runs alone, in whatever Python has ``slicer-core``: ``python slicer_reader.py FILE...``.
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_WARNING)


def new_scene(folder):
    """Make a scene that knows segmentations, volumes and colours; and what must stay alive."""
    scene = slicer.vtkMRMLScene()
    colours = slicer.vtkMRMLColorLogic()
    colours.SetMRMLScene(scene)
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    segmentations.SetMRMLScene(scene)
    volumes = slicer.vtkSlicerVolumesLogic()
    volumes.SetMRMLScene(scene)
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(str(folder))
    cache.SetMRMLScene(scene)
    scene.SetCacheManager(cache)
    data = slicer.vtkDataIOManager()
    data.SetCacheManager(cache)
    scene.SetDataIOManager(data)
    return scene, (colours, segmentations, volumes, cache, data)


def matrix(source):
    """Return a vtkMatrix4x4 as rows."""
    return [[source.GetElement(row, column) for column in range(4)] for row in range(4)]


def centroid(image, to_ras, value):
    """Count the voxels of a value, and average their places in mm."""
    extent = image.GetExtent()
    shape = tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in range(3))
    if min(shape) < 1:
        return 0, None
    scalars = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape[::-1])
    found = np.argwhere(scalars == value)[:, ::-1] + extent[::2]
    if not len(found):
        return 0, None
    return len(found), [float(x) for x in (np.asarray(to_ras) @ [*found.mean(0), 1.0])[:3]]


def segmentation(node):
    """Tell the segments of a node, with voxels counted and put into mm."""
    inside = node.GetSegmentation()
    told = []
    for number in range(inside.GetNumberOfSegments()):
        name = inside.GetNthSegmentID(number)
        segment = inside.GetSegment(name)
        entry = vtk.reference("")
        segment.GetTag("TerminologyEntry", entry)
        status = vtk.reference("")
        segment.GetTag("Segmentation.Status", status)
        image = segment.GetRepresentation("Binary labelmap")
        to_ras = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(to_ras)
        count, middle = centroid(image, matrix(to_ras), segment.GetLabelValue())
        surface = segment.GetRepresentation("Closed surface")
        told.append(
            {
                "id": name,
                "name": segment.GetName(),
                "colour": list(segment.GetColor()),
                "value": segment.GetLabelValue(),
                "terminology": str(entry),
                "status": str(status),
                "voxels": count,
                "centroid": middle,
                "surface": surface.GetNumberOfPoints() if surface is not None else None,
                "surface_centre": list(surface.GetCenter()) if surface is not None else None,
            }
        )
    return {
        "name": node.GetName(),
        "source": inside.GetSourceRepresentationName(),
        "layers": inside.GetNumberOfLayers(),
        "segments": told,
        "reference": node.GetNodeReferenceID("referenceImageGeometryRef"),
        "visible_3d": bool(node.GetDisplayNode() and node.GetDisplayNode().GetVisibility3D()),
    }


def volume(node):
    """Tell where a volume lies and what is in it."""
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    scalars = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    display = node.GetDisplayNode()
    told = {
        "id": node.GetID(),
        "name": node.GetName(),
        "class": node.GetClassName(),
        "shape": list(node.GetImageData().GetDimensions()),
        "matrix": matrix(to_ras),
        "sum": float(scalars.astype(np.float64).sum()),
        "colours": display.GetColorNode().GetName() if display.GetColorNode() else None,
    }
    if hasattr(display, "GetWindow"):
        told["window"] = [display.GetWindowLevelMin(), display.GetWindowLevelMax()]
    return told


def views(scene):
    """Tell what the slice views and the camera look at."""
    told = {}
    for node in nodes(scene, "vtkMRMLSliceNode"):
        told[node.GetLayoutName()] = {
            "centre": [row[3] for row in matrix(node.GetSliceToRAS())[:3]],
            "orientation": node.GetOrientation(),
            "field_of_view": list(node.GetFieldOfView()),
            "outline": bool(node.GetUseLabelOutline()),
        }
    for node in nodes(scene, "vtkMRMLSliceCompositeNode"):
        told[node.GetLayoutName()] |= {
            "background": node.GetBackgroundVolumeID(),
            "label": node.GetLabelVolumeID(),
            "linked": bool(node.GetLinkedControl()),
        }
    for node in nodes(scene, "vtkMRMLCameraNode"):
        told["camera"] = {"focus": list(node.GetFocalPoint()), "at": list(node.GetPosition())}
    for node in nodes(scene, "vtkMRMLLayoutNode"):
        told["layout"] = node.GetViewArrangement()
    return told


def nodes(scene, kind):
    """Return the nodes of exactly one class."""
    every = (scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes()))
    return [node for node in every if node.GetClassName() == kind]


def colours(node):
    """Tell the entries of a colour table by value."""
    told = {}
    for value in range(node.GetNumberOfColors()):
        colour = [0.0] * 4
        node.GetColor(value, colour)
        if not hasattr(node, "GetColorDefined") or node.GetColorDefined(value):
            told[value] = {"name": node.GetColorName(value), "colour": colour}
    return told


def read_scene(path, folder):
    """Open an .mrb."""
    scene, kept = new_scene(folder)
    messages = slicer.vtkMRMLMessageCollection()
    is_read = bool(scene.ReadFromMRB(str(path), True, messages))
    found = {
        "read": is_read,
        "messages": messages.GetAllMessagesAsString().strip(),
        "segmentations": [segmentation(n) for n in nodes(scene, "vtkMRMLSegmentationNode")],
        "volumes": [volume(n) for n in nodes(scene, "vtkMRMLScalarVolumeNode")],
        "labels": [volume(n) for n in nodes(scene, "vtkMRMLLabelMapVolumeNode")],
        "views": views(scene),
    }
    del kept
    return found


def read_one(path, folder):
    """Load a file into a scene of its own and tell what is in it."""
    if path.suffix == ".mrb":
        return read_scene(path, folder)
    scene, kept = new_scene(folder)
    node_class, storage_class, tell = {
        ".csv": ("vtkMRMLColorTableNode", "vtkMRMLColorTableStorageNode", colours),
        ".ctbl": ("vtkMRMLColorTableNode", "vtkMRMLColorTableStorageNode", colours),
        ".gz": ("vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode", volume),
        ".nrrd": ("vtkMRMLLabelMapVolumeNode", "vtkMRMLVolumeArchetypeStorageNode", volume),
    }[path.suffix]
    if path.name.endswith(".seg.nrrd"):
        node_class, storage_class, tell = (
            "vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode", segmentation,
        )  # fmt: skip
    node = scene.AddNewNodeByClass(node_class)
    if node_class != "vtkMRMLColorTableNode":
        node.CreateDefaultDisplayNodes()
    storage = scene.AddNewNodeByClass(storage_class)
    storage.SetFileName(str(path))
    is_read = bool(storage.ReadData(node))
    found = {
        "read": is_read,
        "messages": storage.GetUserMessages().GetAllMessagesAsString().strip(),
        "content": tell(node) if is_read else None,
    }
    del kept
    return found


def main():
    """Read every file that is named on the command line."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for number, name in enumerate(sys.argv[1:]):
            place = Path(folder, str(number))
            place.mkdir()
            found[name] = read_one(Path(name).resolve(), place)
    json.dump(found, sys.stdout)


main()
