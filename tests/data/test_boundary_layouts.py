"""BSDS500's folders, and images beside boundaries."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from voxseg.data.boundaries import read_boundaries
from voxseg.data.boundary_layouts import find_boundary_maps
from voxseg.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Write photographs, MATLAB truths and black PNGs by their names."""

    def files(*names, below=""):
        for name in names:
            path = tmp_path / "set" / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".mat":
                cell = np.empty((1, 1), object)
                cell[0, 0] = {"Boundaries": np.zeros((3, 4), np.uint8)}
                scipy.io.savemat(path, {"groundTruth": cell})
            else:
                Image.fromarray(np.zeros((3, 4), np.uint8)).save(path)
        return tmp_path / "set"

    return files


BSDS = (
    "images/train/8.jpg", "images/train/9.jpg", "images/val/3.jpg", "images/test/7.jpg",
    "groundTruth/train/8.mat", "groundTruth/train/9.mat", "groundTruth/val/3.mat",
    "groundTruth/test/7.mat",
)  # fmt: skip


@pytest.mark.parametrize("below", ["", "data", "BSR/BSDS500/data"])
def test_bsds500_with_its_parts(below, write):
    dataset = find_boundary_maps(write(*BSDS, below=below), need_labels=True)
    assert dataset.layout == "BSDS500"
    assert dataset.parts == {"train": ("8", "9"), "val": ("3",), "test": ("7",)}
    assert {case.case_id: case.label.name for case in dataset.cases} == {
        one: f"{one}.mat" for one in "3789"
    }
    assert all(case.images[0].stem == case.label.stem for case in dataset.cases)
    assert dataset.class_names[1] == "boundary"
    assert read_boundaries(dataset.cases[0].label).shape == (1, 3, 4)


def test_a_test_part_without_truth_waits(write):
    root = write(*(name for name in BSDS if name != "groundTruth/test/7.mat"))
    dataset = find_boundary_maps(root, need_labels=True)
    assert [case.case_id for case in dataset.unlabelled] == ["7"]
    assert {case.case_id for case in dataset.cases} == {"3", "8", "9"}
    assert dataset.parts["test"] == ("7",)
    open_set = find_boundary_maps(root, need_labels=False)
    assert {case.case_id for case in open_set.cases} == {"3", "7", "8", "9"}
    assert open_set.unlabelled == ()


@pytest.mark.parametrize("folder", ["boundaries", "edges", "contours"])
def test_images_beside_pngs(folder, write):
    root = write("images/a.jpg", "images/b.png", f"{folder}/a.png", f"{folder}/b.png")
    dataset = find_boundary_maps(root, need_labels=True)
    assert [(case.case_id, case.label.name) for case in dataset.cases] == [
        ("a", "a.png"),
        ("b", "b.png"),
    ]
    assert dataset.parts == {}
    assert dataset.layout == "folders of images and boundaries"


def test_names_that_occur_in_two_parts_are_told_apart(write):
    root = write("images/train/1.jpg", "images/val/1.jpg", "edges/train/1.png", "edges/val/1.png")
    dataset = find_boundary_maps(root, need_labels=True)
    assert dataset.parts == {"train": ("train_1",), "val": ("val_1",)}
    assert all(case.images[0].parent.name == case.label.parent.name for case in dataset.cases)


def test_other_folders_are_not_taken(write):
    assert find_boundary_maps(write("images/a.jpg", "masks/a.png"), need_labels=True) is None
    assert find_boundary_maps(write("groundTruth/a.png"), need_labels=True) is None


def test_what_has_no_partner_is_named(write):
    root = write(*BSDS, "groundTruth/val/4.mat")
    with pytest.raises(DataError, match=r"1 boundaries without photograph, the first .*4\.mat; "):
        find_boundary_maps(root, need_labels=True)
    assert len(find_boundary_maps(root, need_labels=False).cases) == 4
    root = write("images/val/4.jpg", "images/val/5.jpg")
    with pytest.raises(DataError, match=r"1 of 6 photographs without bound.*5\.jpg; .*same name"):
        find_boundary_maps(root, need_labels=True)


def test_two_files_of_one_name_are_refused(write):
    root = write("images/a.jpg", "images/a.png", "edges/a.png")
    with pytest.raises(DataError, match=r"two files for one photograph: .*a\.jpg and .*a\.png; "):
        find_boundary_maps(root, need_labels=True)


def test_the_real_set(real_data):
    dataset = find_boundary_maps(real_data / "bsds500", need_labels=True)
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {
        "train": 40,
        "val": 20,
        "test": 20,
    }
    assert len(dataset.cases) == 80
