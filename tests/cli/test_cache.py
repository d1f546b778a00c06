"""``voxseg cache``: shows what is kept, and clears it."""

import os

import pytest

from voxseg.cache import KERNELS, SUPERVOXELS, keep

MAP = f"01/01{5:062x}.npy"
CUBIN = f"slic-sm_90-{7:032x}.cubin"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VOXSEG_CACHE_GB", "2")
    return tmp_path / "cache"


@pytest.fixture
def filled(folder):
    keep(SUPERVOXELS, MAP, bytes(68))
    keep(KERNELS, CUBIN, bytes(1_500_000))
    os.utime(folder / "supervoxels" / MAP, (86_400, 86_400))
    return folder


def test_an_empty_cache(voxseg, folder):
    outcome = voxseg("cache")
    assert outcome.code == 0
    assert str(folder) in outcome.out
    assert "at most 2.00 GB" in outcome.out
    assert not folder.exists()


def test_kinds_sizes_and_uses_are_shown(voxseg, filled):
    found = voxseg("cache", "--json").json
    assert found["folder"] == str(filled)
    assert found["limit_bytes"] == 2_000_000_000
    assert found["kinds"]["supervoxels"] == {
        "entries": 1,
        "bytes": 100,
        "oldest_use": "1970-01-02T00:00:00+00:00",
        "newest_use": "1970-01-02T00:00:00+00:00",
    }
    assert found["kinds"]["kernels"]["bytes"] == 1_500_032
    text = voxseg("cache").out
    assert "1.50 MB" in text
    assert "1970-01-0" in text
    assert list(voxseg("cache", "--kind", "kernels", "--json").json["kinds"]) == ["kernels"]
    assert sum(path.is_file() for path in filled.rglob("*")) == 2


def test_clear_removes_one_kind_or_all(voxseg, filled):
    found = voxseg("cache", "--clear", "--kind", "supervoxels", "--json").json
    assert found["removed"] == {"files": 1, "bytes": 100}
    assert found["kinds"] == {
        "supervoxels": {"entries": 0, "bytes": 0, "oldest_use": None, "newest_use": None}
    }
    assert "removed 1 files, 1.50 MB" in voxseg("cache", "--clear").out
    assert not any(path.is_file() for path in filled.rglob("*"))


def test_a_file_in_place_of_the_folder_is_refused(voxseg, folder):
    folder.write_text("in the way")
    outcome = voxseg("cache", "--clear")
    assert outcome.code == 2
    assert f"{folder} is not a folder; set VOXSEG_CACHE" in outcome.err
    assert folder.read_text() == "in the way"


def test_a_limit_and_a_kind_that_are_none_are_refused(voxseg, folder, monkeypatch):
    assert voxseg("cache", "--kind", "models").code == 2
    monkeypatch.setenv("VOXSEG_CACHE_GB", "much")
    outcome = voxseg("cache")
    assert (outcome.code, "must be a number of gigabytes" in outcome.err) == (2, True)
