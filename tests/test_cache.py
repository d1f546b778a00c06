"""The cache: whole entries only, a limit, several processes, and no hand on others' files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from voxseg import cache
from voxseg.cache import KERNELS, SUPERVOXELS, clear, entries, keep, recall, trim
from voxseg.errors import UsageError, VoxsegError

NAMES = [f"{n:02x}/{n:02x}{n:062x}.npy" for n in range(8)]
CUBIN = f"slic-sm_90-{7:032x}.cubin"
CONTENT = bytes(range(200))

# Two processes of this kind write, read and evict the same entries.
BUSY = """
import random, sys
from voxseg.cache import SUPERVOXELS, keep, recall
rng = random.Random(int(sys.argv[1]))
hits = 0
for _ in range(400):
    n = rng.randrange(6)
    name = f"{n:02x}/{n:02x}{n:062x}.npy"
    found = recall(SUPERVOXELS, name)
    assert found in (None, bytes([n]) * 50_000), "not what was kept"
    hits += found is not None
    if rng.random() < 0.5:
        keep(SUPERVOXELS, name, bytes([n]) * 50_000)
print(hits)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VOXSEG_CACHE_GB", raising=False)
    return tmp_path / "cache"


def age(path, seconds):
    """Make a file look as if it was used ``seconds`` ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_what_was_kept_is_recalled_and_its_use_is_noted(folder):
    assert recall(SUPERVOXELS, NAMES[1]) is None
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    keep(KERNELS, CUBIN, b"")
    path = folder / "supervoxels" / NAMES[1]
    age(path, 5000)
    assert recall(SUPERVOXELS, NAMES[1]) == CONTENT
    assert recall(KERNELS, CUBIN) == b""
    assert time.time() - path.stat().st_mtime < 60
    assert files(folder) == [f"kernels/{CUBIN}", f"supervoxels/{NAMES[1]}"]


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "longer", "other name", "other tail"])
def test_a_damaged_entry_is_not_used(damage, folder):
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    path = folder / "supervoxels" / NAMES[1]
    stored = path.read_bytes()
    if damage == "other name":
        keep(SUPERVOXELS, NAMES[2], CONTENT)
        stored = (folder / "supervoxels" / NAMES[2]).read_bytes()
    flipped = bytes([*stored[:77], stored[77] ^ 4, *stored[78:]])
    path.write_bytes(
        {
            "cut": stored[:-1],
            "empty": b"",
            "bit": flipped,
            "longer": stored + b"\0",
            "other name": stored,
            "other tail": stored[:-1] + b"?",
        }[damage]
    )
    assert recall(SUPERVOXELS, NAMES[1]) is None
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    assert recall(SUPERVOXELS, NAMES[1]) == CONTENT


def test_what_was_not_used_for_longest_goes_first(folder, monkeypatch):
    for n, name in enumerate(NAMES[:4]):
        keep(SUPERVOXELS, name, CONTENT)
        age(folder / "supervoxels" / name, 1000 - n)
    keep(KERNELS, CUBIN, CONTENT)
    age(folder / "kernels" / CUBIN, 999.5)  # the second oldest
    recall(SUPERVOXELS, NAMES[0])  # the oldest is now the newest
    monkeypatch.setenv("VOXSEG_CACHE_GB", str(3.9 * (len(CONTENT) + 32) / 1e9))
    keep(SUPERVOXELS, NAMES[4], CONTENT)
    assert files(folder) == [f"supervoxels/{NAMES[n]}" for n in (0, 3, 4)]


def test_the_whole_is_looked_at_now_and_then(folder, monkeypatch):
    looked = []
    monkeypatch.setattr(cache, "_added", cache._Added())
    monkeypatch.setattr(cache, "trim", looked.append)
    monkeypatch.setenv("VOXSEG_CACHE_GB", str(50 * 3 * 232 / 1e9))
    seen = []
    for name in NAMES:
        keep(SUPERVOXELS, name, CONTENT)
        seen.append(len(looked))
    # At first, and when a fiftieth of the limit, three entries, was exceeded.
    assert seen == [1, 1, 1, 1, 2, 2, 2, 2]
    assert set(looked) == {34_800}


def test_what_is_larger_than_the_limit_is_not_kept(folder, monkeypatch):
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    monkeypatch.setenv("VOXSEG_CACHE_GB", "0.0000001")
    keep(SUPERVOXELS, NAMES[2], CONTENT)
    assert files(folder) == []


def test_only_entries_and_old_leftovers_are_removed(folder):
    own = folder / "supervoxels" / "01"
    own.mkdir(parents=True)
    foreign = [
        folder / "notes.txt",
        folder / "supervoxels" / "study.npy",
        own / "study.npy",
        own / f"02{1:062x}.npy",
        own / f"01{1:062x}.npy.bak",
        own / f".part-abc_def1-02{1:062x}.npy",
        own / ".part-abc_def1-report.npy",
        folder / "kernels" / "slic.cubin",
        folder / "other" / CUBIN,
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
        age(path, 1e6)
    fresh = own / f".part-abc_def1-01{1:062x}.npy"
    old = [own / f".part-abc_def2-01{1:062x}.npy", folder / "kernels" / f".part-abc_def3-{CUBIN}"]
    for path in (fresh, *old):
        path.write_bytes(b"half")
    for path in old:
        age(path, 90_000)
    trim(10**9)
    assert not any(path.exists() for path in old)
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    keep(KERNELS, CUBIN, CONTENT)
    trim(0)
    assert entries(SUPERVOXELS) == entries(KERNELS) == []
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    assert [entry.path.name for entry in clear()] == [Path(NAMES[1]).name]
    assert files(folder) == sorted(p.relative_to(folder).as_posix() for p in (*foreign, fresh))


def test_clear_takes_the_kinds_that_are_named_and_empty_folders(folder):
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    keep(KERNELS, CUBIN, CONTENT)
    assert [entry.size for entry in clear([SUPERVOXELS])] == [len(CONTENT) + 32]
    assert files(folder) == [f"kernels/{CUBIN}"]
    assert not list((folder / "supervoxels").iterdir())


def test_clear_says_what_it_could_not_remove(folder, monkeypatch):
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    keep(SUPERVOXELS, NAMES[2], CONTENT)
    remove = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name in NAMES[1]:
            raise PermissionError(13, "Permission denied", str(path))
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(VoxsegError, match=r"^1 files of the cache cannot be removed.*denied"):
        clear()
    assert files(folder) == [f"supervoxels/{NAMES[1]}"]
    trim(0)  # what cannot be removed is no error there


@pytest.mark.parametrize("text", ["ten", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(text, folder, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE_GB", text)
    with pytest.raises(UsageError, match=f"VOXSEG_CACHE_GB must be .* got '{text}'"):
        keep(SUPERVOXELS, NAMES[1], CONTENT)


def test_the_limit_is_in_gigabytes(monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE_GB", "2.5")
    assert cache.limit_bytes() == 2_500_000_000
    monkeypatch.setenv("VOXSEG_CACHE_GB", " ")
    assert cache.limit_bytes() == 10_000_000_000


def test_a_full_disk_costs_nothing_else(folder):
    pytest.importorskip("resource")
    program = (
        "import resource; from voxseg.cache import *;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        f"keep(SUPERVOXELS, {NAMES[1]!r}, b'x' * 1000); print(recall(SUPERVOXELS, {NAMES[1]!r}))"
    )
    words = [sys.executable, "-c", program]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (answer.stdout, answer.stderr) == ("None\n", "")
    assert files(folder) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_costs_nothing_else(folder):
    keep(SUPERVOXELS, NAMES[1], CONTENT)
    for path in (folder, folder / "supervoxels", folder / "supervoxels" / "01"):
        path.chmod(0o555)
    try:
        keep(SUPERVOXELS, NAMES[1], b"other")
        keep(SUPERVOXELS, NAMES[2], CONTENT)
        assert recall(SUPERVOXELS, NAMES[1]) == CONTENT
    finally:
        for path in (folder, folder / "supervoxels", folder / "supervoxels" / "01"):
            path.chmod(0o755)


def test_processes_that_write_read_and_evict_at_once_see_whole_entries(folder, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE_GB", "0.00018")  # three of the six entries
    words = [sys.executable, "-c", BUSY]
    busy = [
        subprocess.Popen([*words, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for seed in range(3)
    ]
    answers = [process.communicate() for process in busy]
    assert [err for _, err in answers] == [b""] * 3
    assert all(int(out) > 50 for out, _ in answers)
    assert not [name for name in files(folder) if ".part-" in name]
    assert sum(entry.size for entry in entries(SUPERVOXELS)) <= 180_000


@pytest.mark.slow
def test_two_processes_compute_the_same_map(folder):
    program = (
        "import numpy as np; from voxseg.data.superpixels import *;"
        "image = np.random.default_rng(0).standard_normal((1, 9, 8, 11)).astype(np.float32);"
        "one = cached_supervoxels(image, (1, 1, 1), SupervoxelSettings(size_mm=3.0));"
        "print(one.shape, hash(one.tobytes()) and int(one.astype(np.int64).sum()))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0] for process in both)
    assert first == second
    assert first.startswith("(9, 8, 11)")
    (kept,) = entries(SUPERVOXELS)
    with kept.path.open("rb") as file:
        assert int(np.load(file).astype(np.int64).sum()) == int(first.split()[-1])
