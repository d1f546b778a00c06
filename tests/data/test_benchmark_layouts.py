"""Cityscapes, PASCAL VOC with and without SBD, and CamVid, on small trees with the real names."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from voxseg.data.label_sets import CAMVID, CITYSCAPES, VOC
from voxseg.data.layouts import find_cases
from voxseg.data.reading import read_label
from voxseg.errors import DataError


def refused(root, **kwargs):
    with pytest.raises(DataError) as caught:
        find_cases(root, **kwargs)
    assert "; " in str(caught.value)
    return str(caught.value)


@pytest.fixture
def cityscapes(tmp_path, save_pictures):
    """Two cities to train on, one to validate on, one of the test part with a dummy mask."""
    for part, city in (("train", "aachen"), ("train", "ulm"), ("val", "munster"), ("test", "bonn")):
        for frame in ("000000", "000001"):
            name = f"{part}/{city}/{city}_{frame}_000019"
            save_pictures(
                tmp_path,
                f"leftImg8bit/{name}_leftImg8bit.png",
                f"gtFine/{name}_gtFine_labelIds.png:7 26 0",
                f"gtFine/{name}_gtFine_instanceIds.png:7 26001",
                f"gtFine/{name}_gtFine_labelTrainIds.png:0 255",
            )
    return tmp_path


def test_cityscapes(cityscapes):
    dataset = find_cases(cityscapes)
    assert (dataset.layout, dataset.label_set) == ("Cityscapes", CITYSCAPES)
    assert [case.case_id for case in dataset.cases] == [
        "aachen_000000_000019", "aachen_000001_000019", "munster_000000_000019",
        "munster_000001_000019", "ulm_000000_000019", "ulm_000001_000019",
    ]  # fmt: skip
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert [case.case_id for case in dataset.unlabelled] == list(dataset.parts["test"])
    first = dataset.cases[0]
    assert first.label.name == "aachen_000000_000019_gtFine_labelIds.png"
    assert read_label(first.instances).array.max() == 26001
    assert dataset.notes == (
        "left aside: 8 files *_gtFine_labelTrainIds.png (voxseg reads labelIds and instanceIds)",
    )


def test_cityscapes_for_prediction_has_its_test_part(cityscapes):
    dataset = find_cases(cityscapes, need_labels=False)
    assert len(dataset.cases) == 8
    assert {case.label is None for case in dataset.cases if case.case_id.startswith("bonn")} == {
        True
    }


def test_cityscapes_as_the_archives_are_called(cityscapes):
    for name in ("leftImg8bit", "gtFine"):
        folder = cityscapes / f"{name}_trainvaltest"
        folder.mkdir()
        (cityscapes / name).rename(folder / name)
    assert len(find_cases(cityscapes).cases) == 6


def test_a_city_without_its_labels_is_named(cityscapes):
    folder = cityscapes / "gtFine" / "train" / "ulm"
    masks = sorted(folder.glob("*_labelIds.png"))
    masks[1].unlink()
    message = refused(cityscapes)
    assert "1 of 2 photographs of the city ulm (part train) lack their mask" in message
    assert masks[1].name in message
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    message = refused(cityscapes)
    assert "the city ulm of Cityscapes' part train has 2 photographs but no" in message
    assert len(find_cases(cityscapes, need_labels=False).cases) == 8


def test_cityscapes_refuses_what_lacks_its_partner(cityscapes):
    (cityscapes / "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png").unlink()
    assert "1 masks of Cityscapes lack their photograph" in refused(cityscapes)
    (cityscapes / "gtFine").rename(cityscapes / "gtCoarse")
    assert "no gtFine; unpack gtFine_trainvaltest.zip" in refused(cityscapes)


def test_cityscapes_tells_of_coarse_parts(cityscapes, save_pictures):
    save_pictures(cityscapes, "leftImg8bit/train_extra/bayreuth/bayreuth_0_0_leftImg8bit.png")
    (cityscapes / "gtCoarse").mkdir()
    notes = find_cases(cityscapes).notes
    assert notes[0] == "left aside: the parts train_extra, which have no fine labels"
    assert notes[-1] == "left aside: gtCoarse, the coarse labels"


def test_other_photographs_in_cityscapes_folders(tmp_path, save_pictures):
    save_pictures(tmp_path, "leftImg8bit/val/ulm/ulm_0_0_leftImg8bit_foggy_beta_0.02.png")
    dataset = find_cases(tmp_path, need_labels=False)
    assert (dataset.layout, len(dataset.cases)) == ("a folder of pictures", 1)


def voc_mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array([[0, 15], [255, 1]], np.uint8))
    picture.putpalette([part for value in range(256) for part in (value, 0, 255 - value)])
    picture.save(path)


TRAIN, VAL, MORE = ("2007_000032", "2007_000039"), ("2007_000033",), ("2008_000002", "2008_000003")


@pytest.fixture
def voc(tmp_path, save_pictures):
    """VOC with two photographs to train on, one to validate on, and three without a mask."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    save_pictures(root, *(f"JPEGImages/{n}.jpg" for n in (*TRAIN, *VAL, *MORE, "2009_000001")))
    for name in (*TRAIN, *VAL):
        voc_mask(root / "SegmentationClass" / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, names in (("train", TRAIN), ("val", VAL), ("trainval", (*TRAIN, *VAL))):
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.mark.parametrize("level", [0, 1, 2])
def test_voc(level, voc):
    dataset = find_cases((voc, *voc.parents)[level])
    assert (dataset.layout, dataset.label_set) == ("PASCAL VOC 2012", VOC)
    assert dataset.parts == {"train": TRAIN, "val": VAL, "trainval": tuple(sorted((*TRAIN, *VAL)))}
    assert [case.case_id for case in dataset.cases] == sorted((*TRAIN, *VAL))
    assert read_label(dataset.cases[0].label).array[..., 0].tolist() == [[0, 15], [255, 1]]


def test_voc_with_its_test_list(voc):
    (voc / "ImageSets" / "Segmentation" / "test.txt").write_text("2009_000001\n")
    dataset = find_cases(voc)
    assert [case.case_id for case in dataset.unlabelled] == ["2009_000001"]
    assert dataset.parts["test"] == ("2009_000001",)
    assert len(find_cases(voc, need_labels=False).cases) == 4


def write_sbd(root):
    """SBD: both of MORE, and masks of VOC's own photographs, its val among them."""
    (root / "cls").mkdir(parents=True)
    for name in (*MORE, *VAL, TRAIN[0]):
        content = {"GTcls": {"Segmentation": np.array([[0, 3]], np.uint8)}}
        scipy.io.savemat(root / "cls" / f"{name}.mat", content)
    (root / "train.txt").write_text(f"{MORE[0]}\n{TRAIN[0]}\n")
    (root / "val.txt").write_text(f"{MORE[1]}\n{VAL[0]}\n")


@pytest.mark.parametrize(
    "place", ["benchmark_RELEASE/dataset", "VOCdevkit/SBD", "VOCdevkit/VOC2012/SBD/dataset"]
)
def test_voc_with_sbd_beside(place, voc, tmp_path):
    write_sbd(tmp_path / place)
    (voc / "JPEGImages" / f"{MORE[0]}.jpg").rename(voc / "x.jpg")
    (tmp_path / place / "img").mkdir()
    (voc / "x.jpg").rename(tmp_path / place / "img" / f"{MORE[0]}.jpg")
    dataset = find_cases(voc)
    assert dataset.parts == {
        "train": (*TRAIN, *MORE),
        "val": VAL,
        "trainval": tuple(sorted((*TRAIN, *VAL))),
        "train_voc": TRAIN,
    }
    by_id = {case.case_id: case for case in dataset.cases}
    assert by_id[TRAIN[0]].label.suffix == ".png"  # VOC's own comes first
    assert read_label(by_id[MORE[0]].label).array.ravel().tolist() == [0, 3]
    assert "trainaug, 4 photographs, of which 2 are VOC's own" in dataset.notes[0]


@pytest.mark.parametrize("listed", [True, False])
def test_voc_with_segmentation_class_aug(listed, voc):
    for name in (*TRAIN, *VAL, *MORE):
        voc_mask(voc / "SegmentationClassAug" / f"{name}.png")
    if listed:
        text = "".join(f"/JPEGImages/{n}.jpg\n" for n in ())
        text += "".join(f"{name}\n" for name in (*TRAIN, MORE[0]))
        (voc / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(text)
    dataset = find_cases(voc)
    more = MORE[:1] if listed else MORE
    assert dataset.parts["train"] == (*TRAIN, *more)
    assert dataset.parts["val"] == VAL
    assert {case.label.parent.name for case in dataset.cases} == {
        "SegmentationClass",
        "SegmentationClassAug",
    }


def test_voc_refuses_what_its_lists_lack(voc):
    (voc / "SegmentationClass" / f"{TRAIN[0]}.png").unlink()
    assert "1 of 3 photographs" in refused(voc)
    (voc / "JPEGImages" / f"{TRAIN[0]}.jpg").unlink()
    assert f"name {TRAIN[0]}, but there is no" in refused(voc)


def test_sbd_without_its_lists_is_refused(voc):
    write_sbd(voc / "SBD")
    (voc / "SBD" / "train.txt").unlink()
    (voc / "SBD" / "val.txt").unlink()
    assert "neither train.txt nor val.txt" in refused(voc)


def test_other_data_in_vocs_folders_are_not_voc(tmp_path, save_pictures):
    save_pictures(tmp_path, "JPEGImages/cat.jpg", "SegmentationClass/cat.png:0 1")
    dataset = find_cases(tmp_path)
    assert (dataset.layout, dataset.label_set) == ("folders of images and masks", None)


def test_camvid_as_published(tmp_path, save_pictures):
    for name in ("0001TP_006690", "Seq05VD_f00000"):
        save_pictures(tmp_path, f"701_StillsRaw_full/{name}.png")
        path = tmp_path / "LabeledApproved_full" / f"{name}_L.png"
        path.parent.mkdir(exist_ok=True)
        colours = [[(128, 128, 128), (64, 128, 192), (0, 0, 0)]]
        Image.fromarray(np.array(colours, np.uint8)).save(path)
    dataset = find_cases(tmp_path)
    assert (dataset.layout, dataset.label_set, dataset.parts) == ("CamVid", CAMVID, {})
    assert read_label(dataset.cases[0].label).array.ravel().tolist() == [0, 8, 11]
    assert "32 colours are grouped into SegNet's 11 classes" in dataset.notes[0]
    path.unlink()
    assert "Seq05VD_f00000.png lacks its label" in refused(tmp_path)
    assert len(find_cases(tmp_path, need_labels=False).cases) == 2
