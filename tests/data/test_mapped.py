"""Arrays in files: the same values, no open files, pickled by name."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from voxseg.data.mapped import MappedArray, map_array
from voxseg.errors import VoxsegError


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32, np.int64])
def test_a_mapped_array_holds_the_same(dtype, rng, tmp_path):
    array = rng.integers(0, 99, (3, 7, 5)).astype(dtype)
    mapped = map_array(array[:, ::2], tmp_path / "folder" / "a.raw")
    np.testing.assert_array_equal(mapped, array[:, ::2])
    assert (mapped.dtype, mapped.shape) == (dtype, (3, 4, 5))
    torch.from_numpy(mapped)  # a read-only array would warn
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.raw"]


def test_an_empty_array_can_be_mapped(tmp_path):
    mapped = map_array(np.empty((0, 4), np.int32), tmp_path / "a.raw")
    assert (mapped.shape, mapped.dtype) == ((0, 4), np.int32)


def test_it_is_pickled_by_the_name_of_its_file(rng, tmp_path):
    array = rng.standard_normal((40, 50))
    mapped = map_array(array, tmp_path / "a.raw")
    content = pickle.dumps(mapped)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert type(again) is MappedArray
    np.testing.assert_array_equal(again, array)
    # Part of it is an array of its own, and so is a result.
    for made in (mapped[3:], mapped * 2, mapped.copy()):
        copy = pickle.loads(pickle.dumps(made))
        assert type(copy) is np.ndarray
        np.testing.assert_array_equal(copy, made)


def test_the_file_is_not_written_to_and_not_held_open(tmp_path):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("only Linux shows a process's open files")
    before = len(os.listdir(folder))  # noqa: PTH208
    kept = [map_array(np.ones(1000), tmp_path / f"{n}.raw") for n in range(20)]
    assert len(os.listdir(folder)) == before  # noqa: PTH208
    kept[0][:] = 5
    assert np.fromfile(tmp_path / "0.raw").sum() == 1000
    (tmp_path / "1.raw").unlink()
    assert kept[1].sum() == 1000


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VoxsegError, match=r"cannot write .*a\.raw"):
        map_array(np.ones(3), tmp_path / "file" / "a.raw")
