"""Normals as PNG and archive: colours by hand, and the same again after reading."""

import numpy as np
import pytest
from PIL import Image

from voxseg.data.images import read_photograph
from voxseg.data.normals import read_normals
from voxseg.errors import DataError, VoxsegError
from voxseg.export.normals import normal_colours, write_normals_npz, write_normals_png


@pytest.fixture
def normals(rng):
    """Unit vectors (3, 5, 7) in all directions, two of them unknown."""
    vectors = rng.normal(size=(3, 5, 7))
    vectors /= np.linalg.norm(vectors, axis=0)
    vectors[:, 0, 1] = vectors[:, 4, 6] = 0
    return vectors


def angles(first, second):
    return np.rad2deg(np.arccos((first * second).sum(0).clip(-1, 1)))


def test_colours_by_hand():
    axes = np.eye(3)[:, None]  # to the right, up, to the viewer
    assert normal_colours(axes).tolist() == [[[255, 128, 128], [128, 255, 128], [128, 128, 255]]]
    assert normal_colours(-axes).tolist() == [[[0, 128, 128], [128, 0, 128], [128, 128, 0]]]
    assert normal_colours(np.zeros((3, 1, 1))).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("trailing", [False, True])
@pytest.mark.parametrize(
    ("write", "name", "degrees"),
    [(write_normals_png, "n.png", 0.5), (write_normals_npz, "n.npz", 0.05)],
)
def test_what_is_read_back_is_what_was_written(write, name, degrees, trailing, normals, tmp_path):
    given = normals[..., None] if trailing else normals
    path = write(tmp_path / "new" / name, given.astype(np.float32))
    assert path == tmp_path / "new" / name
    found = read_normals(path).array[..., 0]
    known = normals.any(axis=0)
    np.testing.assert_array_equal(found.any(axis=0), known)
    assert angles(found, normals)[known].max() < degrees


def test_a_picture_shows_its_colours(normals, tmp_path):
    path = write_normals_png(tmp_path / "n.png", normals)
    found = read_photograph(path).array[..., 0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, normal_colours(normals))


def test_an_archive_has_both_arrays_and_the_same_bytes_each_time(normals, tmp_path):
    path = write_normals_npz(tmp_path / "n.npz", normals)
    with np.load(path) as archive:
        assert sorted(archive) == ["normal", "valid"]
        assert (archive["normal"].dtype, archive["normal"].shape) == (np.float16, (5, 7, 3))
        np.testing.assert_array_equal(archive["valid"], normals.any(axis=0))
    content = path.read_bytes()
    assert write_normals_npz(path, normals).read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["n.npz"]


def test_a_name_that_means_another_coding_is_refused(normals, tmp_path):
    with pytest.raises(ValueError, match="coded from 1 to 255"):
        write_normals_png(tmp_path / "n.normal.png", normals)


@pytest.mark.parametrize("write", [write_normals_png, write_normals_npz])
def test_what_cannot_be_written_is_refused(write, normals, tmp_path):
    with pytest.raises(ValueError, match=r"must be \(3, H, W\), got \(5, 7, 3\)"):
        write(tmp_path / "n.npz", normals.transpose(1, 2, 0))
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxsegError, match="part of its folder is a file"):
        write(tmp_path / "file" / "n.npz", normals)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_nothing_known_is_written_but_not_read(tmp_path):
    path = write_normals_png(tmp_path / "n.png", np.zeros((3, 2, 2)))
    assert not np.asarray(Image.open(path)).any()
    with pytest.raises(DataError, match="no pixel whose normal is known"):
        read_normals(path)
