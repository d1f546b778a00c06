"""NRRD files, read back by pynrrd and by SimpleITK."""

import time

import numpy as np
import pytest
import SimpleITK

from voxseg.errors import VoxsegError
from voxseg.export.nrrd import write_nrrd

nrrd = pytest.importorskip("nrrd", reason="pynrrd comes with slicerio: pip install 'voxseg[dev]'")

# A third is no float32, so single precision would show.
AFFINE = np.array([[0, -1 / 3, 0, 10.1], [1.5, 0, 0.1, -20], [0, 0.2, 2, 30.7], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", ">i2"])
def test_voxels_and_numbers_read_back_to_the_last_bit(tmp_path, rng, dtype):
    voxels = rng.integers(0, 120, (3, 4, 5)).astype(dtype)
    path = write_nrrd(tmp_path / "new" / "a.nrrd", voxels, AFFINE)
    read, header = nrrd.read(str(path))
    np.testing.assert_array_equal(read, voxels)
    assert read.dtype.kind == voxels.dtype.kind
    assert read.dtype.itemsize == voxels.dtype.itemsize
    to_lps = np.diag([-1, -1, 1])
    np.testing.assert_array_equal(header["space directions"].T, to_lps @ AFFINE[:3, :3])
    np.testing.assert_array_equal(header["space origin"], to_lps @ AFFINE[:3, 3])
    assert header["space"] == "left-posterior-superior"


def test_itk_reads_the_same(tmp_path, rng):
    voxels = rng.integers(0, 9, (3, 4, 5)).astype(np.uint8)
    image = SimpleITK.ReadImage(str(write_nrrd(tmp_path / "a.nrrd", voxels, np.diag([2, 3, 4, 1]))))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, voxels)
    assert image.GetSpacing() == (2.0, 3.0, 4.0)
    assert image.GetDirection()[:1] == (-1.0,)


def test_a_list_of_volumes_runs_fastest(tmp_path, rng):
    voxels = rng.integers(0, 9, (2, 3, 4, 5)).astype(np.uint8)
    read, header = nrrd.read(str(write_nrrd(tmp_path / "a.nrrd", voxels, AFFINE)))
    np.testing.assert_array_equal(read, voxels)
    assert header["kinds"] == ["list", "domain", "domain", "domain"]
    assert np.isnan(header["space directions"][0]).all()


def test_views_are_written_as_they_look(tmp_path, rng):
    voxels = rng.integers(0, 9, (5, 4, 3)).astype(np.uint8).transpose(2, 0, 1)[:, ::-1]
    read, _ = nrrd.read(str(write_nrrd(tmp_path / "a.nrrd", voxels, AFFINE)))
    np.testing.assert_array_equal(read, voxels)


def test_fields_stand_in_the_header_and_break_no_line(tmp_path):
    fields = {"Name": "über\nzwei \\ drei", "Empty": ""}
    path = write_nrrd(tmp_path / "a.nrrd", np.zeros((2, 2, 2), np.uint8), AFFINE, fields)
    head = path.read_bytes().partition(b"\n\n")[0].decode()
    assert "\nName:=über\\nzwei \\\\ drei\n" in head
    assert "\nEmpty:=" in head
    assert "-0.0" not in head


def test_same_bytes_at_another_time_under_another_name(tmp_path, monkeypatch):
    voxels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    first = write_nrrd(tmp_path / "a.nrrd", voxels, AFFINE).read_bytes()
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert write_nrrd(tmp_path / "b.nrrd", voxels, AFFINE).read_bytes() == first


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match="float64"):
        write_nrrd(tmp_path / "a.nrrd", np.zeros((2, 2, 2)), AFFINE)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        write_nrrd(tmp_path / "a.nrrd", np.zeros((2, 2), np.uint8), AFFINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxsegError, match="part of its folder is a file"):
        write_nrrd(tmp_path / "file" / "a.nrrd", np.zeros((2, 2, 2), np.uint8), AFFINE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
