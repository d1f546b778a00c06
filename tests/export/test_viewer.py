"""A viewer page: what it holds, where it lies in mm, and what may run in it."""

import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from voxseg.errors import UsageError, VoxsegError
from voxseg.export.case_picture import ERROR_COLOURS, ERROR_NAMES
from voxseg.export.labels import plain_table
from voxseg.export.viewer import LEAST_MB, write_viewer
from voxseg.export.viewer_scene import ViewerScene, pack

SHAPE = (23, 29, 19)
STRAIGHT = np.array([[1.5, 0, 0, -30], [0, 1.0, 0, 12], [0, 0, 2.0, -8], [0, 0, 0, 1.0]])
TABLE = plain_table({4: "right", 7: "front", 300: "top"})
WAYS = ["".join(c) for c in itertools.product("RL", "AP", "SI")] + ["PIR", "SLA"]


def phantom(affine=STRAIGHT):
    """A head whose labels lie to the right, to the front and on top of it."""
    image = np.zeros(SHAPE, np.float32)
    image[2:-2, 2:-2, 2:-2] = 400
    image += np.arange(SHAPE[1], dtype=np.float32)[:, None]
    label = np.zeros(SHAPE, np.int32)
    label[18:21, 13:16, 9:11] = 4
    label[10:12, 24:27, 8:10] = 7
    label[11:13, 12:15, 15:17] = 300
    return ViewerScene("head", affine, image, {"mask": label}, TABLE)


def turned(scene, way):
    """The same head, stored with other axes."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(way))
    affine = scene.affine @ inv_ornt_aff(change, SHAPE)
    image = nib.orientations.apply_orientation(scene.image, change)
    masks = {
        name: nib.orientations.apply_orientation(mask, change) for name, mask in scene.masks.items()
    }
    return replace(scene, affine=affine, image=image, masks=masks)


def places(voxels, affine):
    """Place in mm of each voxel that is set, sorted."""
    found = np.argwhere(voxels) @ affine[:3, :3].T + affine[:3, 3]
    return np.array(sorted(found.round(3).tolist()))


def oblique(affine):
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tilt", [lambda a: a, oblique], ids=["straight", "oblique"])
def test_volumes_lie_in_the_same_millimetres(way, tilt, tmp_path, read_viewer):
    scene = phantom(tilt(STRAIGHT))
    page = read_viewer(write_viewer(tmp_path / "page.html", turned(scene, way)).path)
    image, mask = page.volume("image"), page.volume("mask-0")
    assert nib.aff2axcodes(mask.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(image.affine, mask.affine)
    for index, label in enumerate(TABLE, 1):
        here = places(np.asarray(mask.dataobj) == index, mask.affine)
        there = places(scene.masks["mask"] == label.value, scene.affine)
        np.testing.assert_allclose(here, there, atol=2e-3)
    bright = places(image.get_fdata() > 420, image.affine)
    np.testing.assert_allclose(bright, places(scene.image > 420, scene.affine), atol=2e-3)
    start = np.linalg.solve(mask.affine, [*page.case()["start"], 1])[:3]
    assert (start > 0).all()
    assert (start < mask.shape).all()


def test_labels_have_their_names_colours_and_volumes(tmp_path, read_viewer):
    scene = phantom()
    scene = replace(scene, masks={**scene.masks, "empty": scene.masks["mask"] * 0})
    case = read_viewer(write_viewer(tmp_path / "page.html", scene).path).case()
    rows = [(row["index"], row["value"], row["name"], row["colour"]) for row in case["labels"]]
    colours = ["#{:02x}{:02x}{:02x}".format(*label.colour) for label in TABLE]
    assert rows == [(1, 4, "right", colours[0]), (2, 7, "front", colours[1]),
                    (3, 300, "top", colours[2])]  # fmt: skip
    np.testing.assert_allclose(case["labels"][0]["ml"], [3 * 3 * 2 * 3.0 / 1000, 0])
    assert [mask["voxels"] for mask in case["masks"]] == [18 + 12 + 12, 0]


def test_differences_are_named_after_the_masks_or_as_errors(tmp_path, read_viewer):
    scene = phantom()
    scene = replace(scene, masks={"one": scene.masks["mask"], "two": scene.masks["mask"] * 0})
    (plain,) = read_viewer(write_viewer(tmp_path / "a.html", scene).path).case()["differences"]
    assert plain["names"][:2] == ["only in one", "only in two"]
    assert plain["name"] == "difference of one and two"
    scored = replace(scene, has_errors=True)
    (errors,) = read_viewer(write_viewer(tmp_path / "b.html", scored).path).case()["differences"]
    assert errors["names"] == list(ERROR_NAMES.values())
    assert errors["colours"][0] == "#{:02x}{:02x}{:02x}".format(*ERROR_COLOURS[1])


def test_maps_are_on_the_page(tmp_path, read_viewer, rng):
    regions = np.arange(np.prod(SHAPE)).reshape(SHAPE) // 40
    unsure = rng.random(SHAPE).astype(np.float32)
    scene = replace(phantom(), superpixels=regions, uncertainty=unsure)
    page = read_viewer(write_viewer(tmp_path / "page.html", scene, is_whole=True).path)
    np.testing.assert_allclose(
        page.volume("uncertainty").get_fdata(), unsure, atol=0.5 / 255 + 1e-6
    )
    drawn = np.asarray(page.volume("superpixels").dataobj)
    assert ((drawn[1:] != drawn[:-1]) == (regions[1:] != regions[:-1])).all()
    assert page.case()["superpixels"] == len(np.unique(regions))
    assert page.case()["gradient"]["A"][0] == 0
    assert page.case()["colours"][0] == "#000003"


def test_the_window_is_the_pictures_or_the_one_given(tmp_path, read_viewer):
    case = read_viewer(write_viewer(tmp_path / "a.html", phantom()).path).case()
    low, high = case["image"]["window"]
    assert low < 100
    assert 420 < high < 430
    scene = replace(phantom(), window=(50.0, 420.0))
    page = read_viewer(write_viewer(tmp_path / "b.html", scene).path)
    assert page.case()["image"]["window"] == page.case()["image"]["range"] == [50, 420]
    assert page.volume("image").get_fdata().max() == pytest.approx(420)
    assert "256 steps from 50 to 420" in page.notes()


def test_masks_without_an_image_are_drawn_on_black(tmp_path, read_viewer):
    page = read_viewer(write_viewer(tmp_path / "a.html", replace(phantom(), image=None)).path)
    assert page.case()["image"] is None
    assert "drawn on black" in page.notes()
    assert "viewer-0-image" not in page.blocks
    with pytest.raises(ValueError, match="nothing to show"):
        write_viewer(tmp_path / "b.html", ViewerScene("x", np.eye(4)))


def test_a_page_is_cut_and_thinned_until_it_fits(tmp_path, read_viewer, rng):
    shape = (150, 140, 130)
    image = np.zeros(shape, np.float32)
    image[20:130, 20:120, 20:110] = rng.normal(500, 100, (110, 100, 90))
    label = np.zeros(shape, np.int32)
    label[60:90, 50:70, 40:60] = 7
    scene = ViewerScene("noise", STRAIGHT, image, {"mask": label}, TABLE)
    written = write_viewer(tmp_path / "page.html", scene, most_mb=LEAST_MB)
    assert written.path.stat().st_size == written.num_bytes <= LEAST_MB * 1e6
    page = read_viewer(written.path)
    mask = page.volume("mask-0")
    assert "cut to what is not air" in page.notes()
    assert "they were 1.5 x 1 x 2 mm" in page.notes()
    assert [note.replace("\u00d7", "x") in page.notes() for note in written.notes] == [True] * 3
    steps = np.linalg.norm(mask.affine[:3, :3], axis=0)
    assert (steps >= [1.5, 1, 2]).all()
    assert steps.prod() > 3.0
    centres = [
        places(voxels, affine).mean(0)
        for voxels, affine in ((np.asarray(mask.dataobj) > 0, mask.affine), (label > 0, STRAIGHT))
    ]
    np.testing.assert_allclose(*centres, atol=steps.max() / 2)
    here = places(np.asarray(mask.dataobj) > 0, mask.affine)
    assert {tuple(row) for row in here} <= {tuple(row) for row in places(label > 0, STRAIGHT)}
    with pytest.raises(UsageError, match=r"--full.*--max-mb"):
        write_viewer(tmp_path / "full.html", scene, most_mb=LEAST_MB, is_whole=True)
    assert not (tmp_path / "full.html").exists()
    with pytest.raises(UsageError, match="at least 2"):
        write_viewer(tmp_path / "full.html", scene, most_mb=1.0)


def test_the_whole_volume_is_kept_where_that_is_asked_for(tmp_path, read_viewer):
    image = np.zeros((60, 60, 60), np.float32)
    image[20:30, 20:30, 20:30] = 9
    scene = ViewerScene("small", np.diag([4.0, 4, 4, 1]), image)
    page = read_viewer(write_viewer(tmp_path / "a.html", scene, is_whole=True).path)
    assert page.volume("image").shape == (60, 60, 60)
    cut = read_viewer(write_viewer(tmp_path / "b.html", scene).path)
    assert cut.volume("image").shape == (16, 16, 16)
    assert "16 x 16 x 16 of its 60 x 60 x 60 voxels" in cut.notes()


def test_names_cannot_break_out_of_their_places(tmp_path, read_viewer):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--"
    table = plain_table({4: evil, 7: "front", 300: "top"})
    scene = phantom()
    scene = replace(scene, name=evil, masks={evil: scene.masks["mask"]}, table=table)
    page = read_viewer(write_viewer(tmp_path / "page.html", scene).path)
    assert page.case()["name"] == evil
    assert page.case()["masks"][0]["name"] == evil
    assert page.case()["labels"][0]["name"] == table[4].name
    assert len(page.scripts) == 1
    assert not [one for one in page.elements if one[0] == "img"]
    assert evil in page.words
    (main,) = [attributes for tag, attributes in page.elements if tag == "main"]
    assert main["data-title"] == evil


def test_the_page_warns_and_carries_the_licences(tmp_path, read_viewer):
    page = read_viewer(write_viewer(tmp_path / "page.html", phantom()).path)
    assert "holds a patient's images" in page.notes()
    assert "not a medical device" in page.notes()
    assert "Copyright (c) 2021, Niivue" in page.notes()
    assert ("noscript", {}) in page.elements
    assert page.policy["style-src"] != ["'unsafe-inline'"]


def test_every_control_has_a_name(tmp_path, read_viewer):
    page = read_viewer(write_viewer(tmp_path / "page.html", phantom()).path)
    text = page.text[page.text.index('<template id="viewer-frame">') :]
    text = text[: text.index("</template>")]
    for control in ("<input", "<select"):
        for part in text.split(control)[1:]:
            before = text[: text.index(part)]
            assert before.rfind("<label") > before.rfind("</label>")


def test_pages_are_the_same_for_the_same_case(tmp_path):
    pages = [write_viewer(tmp_path / f"{n}.html", phantom()).path.read_bytes() for n in range(2)]
    assert pages[0] == pages[1]


def test_a_label_that_the_table_lacks_is_our_mistake():
    with pytest.raises(ValueError, match="not in the table"):
        pack(replace(phantom(), table=plain_table({4: "right"})), 1e6)


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(VoxsegError, match="cannot write"):
        write_viewer(tmp_path / "file" / "page.html", phantom())
