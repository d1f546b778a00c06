"""A disk that fills up: one clear sentence, nothing half-written, and the resumed result is right.

A small tmpfs is mounted in a mount namespace of its own, which needs Linux and ``unshare``.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("full_disk.py")


def has_own_mounts(folder):
    if not shutil.which("unshare"):
        return False
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_every_command_survives_a_full_disk(subjects, quick, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not has_own_mounts(disk):
        pytest.skip("this system lets nobody mount a tmpfs: no disk can be filled")
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({**quick, "train": {**quick["train"], "epochs": 3}}))
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, str(DRIVER), subjects, disk, settings],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VOXSEG_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(report) == ["folds", "masks", "training"]
    for name, job in report.items():
        for run in job["runs"]:
            where = f"{name} on {run['size']} KiB"
            sentence = run.get("sentence", "")
            assert "unexpected" not in run, f"{where}: {run}"
            assert sentence.startswith("cannot write "), (where, sentence)
            assert "space" in sentence, (where, sentence)
            assert "\n" not in sentence
            assert run["parts"] == [], where
            assert run["again"] == {"sentence": ""}, where
            assert run["result"] == job["calm"], where
