"""A folder of inputs may be read-only: no command writes there, not even for a moment."""

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

TINY = (
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=2",
    "--set", "supervoxels.size_mm=3", "--epochs", "1", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def data(tmp_path, rng):
    """Three subjects in folders that only root may write."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(3):
        label = np.zeros((18, 16, 14), np.uint8)
        label[5:12, 5:11, 4:10] = 1
        image = (40 + 60 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        for array, kind in ((image, "images"), (label, "labels")):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"s{number}.nii.gz")
    folders = [folder, folder / "images", folder / "labels"]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


@pytest.fixture
def written(data):
    """Paths below ``data`` that this process opened to write, made, moved or removed."""
    seen, watched = [], os.fspath(data)
    on = [True]

    def audit(event, arguments):
        if not on[0] or event not in CHANGES:
            return
        writes = event != "open" or _writes(*arguments[1:3])
        names = arguments[:1] if event == "open" else arguments[:2]
        paths = [str(Path.cwd() / os.fsdecode(n)) for n in names if isinstance(n, str | bytes)]
        if writes and any(path.startswith(watched) for path in paths):
            seen.append((event, paths[0]))

    sys.addaudithook(audit)  # cannot be removed, only told to look away
    yield seen
    on[0] = False


CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.utime",
           "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}  # fmt: skip


def _writes(mode, flags):
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def snapshot(folder):
    """Everything that a write would change: names, content, times of files and folders."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


@pytest.mark.slow
def test_no_command_writes_where_it_reads(voxseg, data, tmp_path, monkeypatch, written):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(data)  # a file under a relative name would land here
    before = snapshot(data)
    out = tmp_path / "out"
    codes = {
        words[0]: voxseg(*words).code
        for words in (
            ("check", data, "--report", out / "check.html"),
            ("split", data, "-o", out / "split.json"),
            ("train", data, "-o", out / "run", *TINY),
            # In this process, which is watched.
            ("crossval", data, "-k", "2", "-o", out / "cv", *TINY, "--jobs", "0"),
            ("predict", out / "run", data / "images", "-o", out / "masks"),
            ("evaluate", data / "labels", data, "--json"),
            ("supervoxels", data / "images", "--labels", data / "labels", "-o", out / "maps"),
            ("reproduce", out / "run" / "manifest.json", "-o", out / "again"),
        )
    }
    assert codes == dict.fromkeys(codes, 0)
    assert written == []
    assert snapshot(data) == before
