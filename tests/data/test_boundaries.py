"""Boundaries of BSDS500's MATLAB files and of pictures, and the map to train with."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from voxseg.data.boundaries import (
    boundaries_shape,
    consensus_map,
    is_boundary_file,
    read_boundaries,
    read_boundary_target,
)
from voxseg.data.grid import IGNORED
from voxseg.errors import DataError

# How many of five people marked each pixel: 5, 3, 2 in the first row; 1, 0, 4 in the second.
VOTES = np.array([[5, 3, 2], [1, 0, 4]])
FIVE = (np.arange(5)[:, None, None] < VOTES).astype(np.uint8)


def write_truth(path, maps, field="Boundaries"):
    """Write annotators' maps as BSDS500 does: a cell row of structs."""
    cells = np.empty((1, len(maps)), object)
    for index, one in enumerate(maps):
        cells[0, index] = {"Segmentation": np.ones_like(one, np.uint16), field: one}
    scipy.io.savemat(path, {"groundTruth": cells})
    return path


def refused(path):
    with pytest.raises(DataError) as caught:
        read_boundaries(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert path.name in message
    return message


def test_every_annotator_is_read(tmp_path):
    path = write_truth(tmp_path / "7.mat", FIVE)
    found = read_boundaries(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, FIVE)
    assert boundaries_shape(path) == (2, 3)


def test_logical_maps_are_read(tmp_path):
    found = read_boundaries(write_truth(tmp_path / "7.mat", FIVE.astype(bool)))
    np.testing.assert_array_equal(found, FIVE)


def test_three_of_five_make_a_boundary(tmp_path):
    volume = read_boundary_target(write_truth(tmp_path / "7.mat", FIVE))
    assert volume.array.dtype == np.int32
    assert volume.shape == (2, 3, 1)
    assert volume.array[..., 0].tolist() == [[1, 1, IGNORED], [IGNORED, 0, 1]]
    assert volume.header is None


@pytest.mark.parametrize(
    ("consensus", "disputed", "expected"),
    [
        (1, "ignored", [[1, 1, 1], [1, 0, 1]]),
        (3, "negative", [[1, 1, 0], [0, 0, 1]]),
        (5, "ignored", [[1, 255, 255], [255, 0, 255]]),
        (9, "ignored", [[1, 255, 255], [255, 0, 255]]),  # there are but five
    ],
)
def test_consensus_by_hand(consensus, disputed, expected):
    assert consensus_map(FIVE, consensus, disputed).tolist() == expected


def test_consensus_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        consensus_map(FIVE, 0)


@pytest.mark.parametrize("white", [1, 255])
def test_a_picture_is_one_annotator(white, tmp_path):
    path = tmp_path / "7.png"
    Image.fromarray(FIVE[3] * np.uint8(white)).save(path)
    np.testing.assert_array_equal(read_boundaries(path), FIVE[3:4])
    assert boundaries_shape(path) == (2, 3)
    assert read_boundary_target(path).array[..., 0].tolist() == FIVE[3].tolist()


def test_a_picture_of_bits_is_one_annotator(tmp_path):
    Image.fromarray(FIVE[3] > 0).save(tmp_path / "7.png")
    np.testing.assert_array_equal(read_boundaries(tmp_path / "7.png"), FIVE[3:4])


def test_grey_colour_and_jpeg_are_refused(tmp_path):
    Image.fromarray(VOTES.astype(np.uint8) * 51).save(tmp_path / "7.png")
    assert "6 values" in refused(tmp_path / "7.png")
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "c.png")
    assert "colours" in refused(tmp_path / "c.png")
    Image.fromarray(FIVE[3] * np.uint8(255)).save(tmp_path / "7.jpg")
    assert "JPEG" in refused(tmp_path / "7.jpg")


def test_a_file_of_sbd_is_told_apart(tmp_path):
    path = tmp_path / "sbd.mat"
    scipy.io.savemat(path, {"GTcls": {"Segmentation": np.zeros((2, 3), np.uint8)}})
    assert "GTcls of SBD" in refused(path)


def test_other_matlab_files_name_what_they_hold(tmp_path):
    path = tmp_path / "other.mat"
    scipy.io.savemat(path, {"depth": np.zeros(2), "normals": np.zeros(2)})
    message = refused(path)
    assert "no groundTruth" in message
    assert "depth, normals" in message


def test_damaged_truths_are_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "missing.mat")
    whole = write_truth(tmp_path / "7.mat", FIVE).read_bytes()
    (tmp_path / "half.mat").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(tmp_path / "half.mat")
    (tmp_path / "text.mat").write_text("boundaries")
    assert "damaged" in refused(tmp_path / "text.mat")
    assert "no Boundaries" in refused(write_truth(tmp_path / "f.mat", FIVE, field="Contours"))
    sizes = [np.zeros((2, 3)), np.zeros((3, 2))]
    assert "one size" in refused(write_truth(tmp_path / "s.mat", sizes))
    assert "no annotator" in refused(write_truth(tmp_path / "none.mat", []))


def test_names_of_boundaries(tmp_path):
    names = ("7.mat", "7.png", "._7.mat", "7.txt")
    assert [is_boundary_file(tmp_path / name) for name in names] == [True, True, False, False]


def test_a_real_truth(real_data):
    found = read_boundaries(real_data / "bsds500/groundTruth/test/100007.mat")
    assert found.shape == (5, 321, 481)
    assert found.sum(axis=(1, 2)).tolist() == [1626, 2062, 3221, 2660, 3747]
    target = read_boundary_target(real_data / "bsds500/groundTruth/test/100007.mat")
    votes = found.sum(axis=0)
    assert np.count_nonzero(target.array == 1) == np.count_nonzero(votes >= 3)
    assert np.count_nonzero(target.array == IGNORED) == np.isin(votes, (1, 2)).sum()
