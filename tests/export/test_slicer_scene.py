import time
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest

from voxseg.errors import VoxsegError
from voxseg.export.slicer_scene import Scene, plain_name, scene_text, write_scene
from voxseg.export.slicer_view import View

VIEW = View((1.5, -2.0, 30.25), (5.0, 6.0, 7.0), (100.0, 120.0, 80.0), 20.0)


@pytest.fixture
def scene(tmp_path):
    """A scene of two small files, with a name that XML and file systems dislike."""
    image, segments = tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "b.seg.nrrd"
    image.parent.mkdir()
    image.write_bytes(b"image " * 100)
    segments.write_bytes(b"segments")
    name = 'Fall "Ä" <1> & 2'
    return Scene(name=name, image=image, segments=segments, window=(10.0, 90.0), view=VIEW)


def nodes(text):
    found = {}
    for element in ET.fromstring(text.encode()):
        found.setdefault(element.tag, []).append(element.attrib)
    return found


def test_files_are_copied_under_plain_names(scene, tmp_path):
    path = write_scene(tmp_path / "new" / "out.mrb", scene)
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        assert bundle.namelist() == [
            "Fall_1_2/Fall_1_2.mrml",
            "Fall_1_2/Data/Fall_1_2.nii.gz",
            "Fall_1_2/Data/Fall_1_2.seg.nrrd",
        ]
        assert bundle.read("Fall_1_2/Data/Fall_1_2.nii.gz") == scene.image.read_bytes()
        assert bundle.read("Fall_1_2/Data/Fall_1_2.seg.nrrd") == b"segments"
        text = bundle.read("Fall_1_2/Fall_1_2.mrml").decode()
        places = [f"Fall_1_2/{one['fileName']}" for one in _storages(nodes(text))]
        assert places == bundle.namelist()[1:]
    assert path.name == "out.mrb"


def _storages(found):
    return [one for tag, many in found.items() if tag.endswith("Storage") for one in many]


def test_names_are_escaped_and_references_have_nodes(scene):
    text = scene_text(scene)
    found = nodes(text)
    assert found["Volume"][0]["name"] == scene.name
    assert found["Segmentation"][0]["name"] == f"{scene.name} segmentation"
    known = {one["id"] for many in found.values() for one in many} | {"vtkMRMLColorTableNodeGrey"}
    used = set()
    for many in found.values():
        for one in many:
            used |= {part.split(":")[1] for part in one.get("references", "").split(";") if part}
            used |= {one[key] for key in ("backgroundVolumeID", "labelVolumeID") if key in one}
    assert used
    assert used <= known
    control = scene_text(Scene(**{**vars(scene), "name": "a\x01b\udc80"}))
    assert "a b" in control


def test_views_look_at_the_mask(scene):
    found = nodes(scene_text(scene))
    for one in found["Slice"]:
        matrix = np.reshape([float(x) for x in one["sliceToRAS"].split()], (4, 4))
        right, up, normal = matrix[:3, :3].T
        # Through the mask, and the whole image in sight.
        place = np.where(normal, VIEW.centre, VIEW.middle)
        np.testing.assert_allclose(matrix[:3, 3], place)
        np.testing.assert_allclose(np.abs(np.cross(right, up)), np.abs(normal))
        if one["layoutName"] != "Yellow":
            np.testing.assert_array_equal(right, [-1, 0, 0])  # the patient's left is on the right
        else:
            np.testing.assert_array_equal(right, [0, -1, 0])  # the face looks to the left
    fields = {one["layoutName"]: float(one["fieldOfView"].split()[0]) for one in found["Slice"]}
    assert fields == {"Red": 120, "Green": 100, "Yellow": 120}
    assert {one["linkedControl"] for one in found["SliceComposite"]} == {"1"}
    (camera,) = found["Camera"]
    at, focus = (
        np.array([float(x) for x in camera[k].split()]) for k in ("position", "focalPoint")
    )
    np.testing.assert_allclose(focus, VIEW.centre)
    np.testing.assert_allclose(at - focus, [0, 70, 0])  # in front of the face
    assert found["Layout"][0]["currentViewArrangement"] == "2"
    (display,) = found["VolumeDisplay"]
    assert (display["window"], display["level"], display["autoWindowLevel"]) == ("80", "50", "0")


def test_a_label_map_is_outlined(scene, tmp_path):
    segments, colours = tmp_path / "x.nrrd", tmp_path / "x.ctbl"
    segments.write_bytes(b"labels")
    colours.write_text("colours")
    changed = Scene(**{**vars(scene), "segments": segments, "colour_table": colours})
    with zipfile.ZipFile(write_scene(tmp_path / "a.mrb", changed)) as bundle:
        assert bundle.namelist()[2:] == [
            "Fall_1_2/Data/Fall_1_2-label.nrrd", "Fall_1_2/Data/Fall_1_2-label.ctbl",
        ]  # fmt: skip
        found = nodes(bundle.read("Fall_1_2/Fall_1_2.mrml").decode())
    assert "Segmentation" not in found
    assert {one["useLabelOutline"] for one in found["Slice"]} == {"true"}
    label = found["LabelMapVolume"][0]["id"]
    assert {one["labelVolumeID"] for one in found["SliceComposite"]} == {label}
    plain = nodes(scene_text(Scene(**{**vars(scene), "segments": segments})))
    assert plain["LabelMapVolumeDisplay"][0]["colorNodeID"] == "vtkMRMLColorTableNodeRandom"


def test_an_image_of_ours_and_a_label_map_have_two_names(scene, tmp_path):
    image, labels = tmp_path / "image.nrrd", tmp_path / "labels.nrrd"
    image.write_bytes(b"1")
    labels.write_bytes(b"2")
    changed = Scene(**{**vars(scene), "image": image, "segments": labels})
    with zipfile.ZipFile(write_scene(tmp_path / "a.mrb", changed)) as bundle:
        assert bundle.read("Fall_1_2/Data/Fall_1_2.nrrd") == b"1"
        assert bundle.read("Fall_1_2/Data/Fall_1_2-label.nrrd") == b"2"


def test_same_bytes_at_another_time(scene, tmp_path, monkeypatch):
    first = write_scene(tmp_path / "a.mrb", scene).read_bytes()
    monkeypatch.setattr(
        time, "localtime", lambda *_: time.struct_time((2001, 2, 3, 4, 5, 6, 0, 1, 0))
    )
    scene.image.touch()
    assert write_scene(tmp_path / "b.mrb", scene).read_bytes() == first


def test_a_missing_file_leaves_no_scene(scene, tmp_path):
    scene.segments.unlink()
    with pytest.raises(VoxsegError, match=r"cannot write .*a\.mrb"):
        write_scene(tmp_path / "a.mrb", scene)
    assert not list(tmp_path.glob("*.mrb"))


def test_plain_names():
    assert plain_name("Ω") == "case"
    assert plain_name("sub-01_T1.w") == "sub-01_T1_w"
