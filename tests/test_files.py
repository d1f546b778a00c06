import os

import pytest

from voxseg.errors import VoxsegError
from voxseg.files import cache_folder, replacing, write_text


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "one")
    write_text(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert [p.name for p in path.parent.iterdir()] == ["c.txt"]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "c.nii.gz"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(VoxsegError, match="No space left on device"):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["c.nii.gz"]


def test_a_file_where_a_folder_is_needed_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxsegError, match="part of its folder is a file"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("VOXSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "voxseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(cache_folder()) == os.path.join(tmp_path, ".cache", "voxseg")  # noqa: PTH118
