"""Killed at random moments and started again, a run ends as if nothing had happened.

VOXSEG_KILLS sets how often each command is killed.
"""

import os
import random
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

KILLS = int(os.environ.get("VOXSEG_KILLS", "3"))
SETTINGS = (
    "model.stages=1", "model.width_divisor=8", "supervoxels.size_mm=3.0", "train.epochs=4",
    "train.steps_per_epoch=3", "train.patch_voxels=[16,16,16]", "train.precision=float32",
)  # fmt: skip


def command(*words):
    return [sys.executable, "-m", "voxseg", "--threads", "1", *map(str, words)]


def seconds_of(words):
    start = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - start


def kill_again_and_again(words, longest, seed):
    """Start a command, kill it at a random moment, KILLS times; then let it finish."""
    rng = random.Random(seed)
    killed = 0
    while killed < KILLS:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=rng.uniform(0.05, 0.95) * longest)
            longest /= 2  # all is done, or the machine was busier before
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(words, check=True, capture_output=True)


def assert_same_files(one, other, pattern):
    names = sorted(path.relative_to(one) for path in one.glob(pattern))
    assert names
    assert names == sorted(path.relative_to(other) for path in other.glob(pattern))
    for name in names:
        if name.suffix == ".gz":
            arrays = [np.asarray(nib.load(folder / name).dataobj) for folder in (one, other)]
            np.testing.assert_array_equal(*arrays)
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
def test_cross_validation_and_prediction_survive_kills(subjects, tmp_path):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ("crossval", subjects, "-k", "2", "--device", "cpu", *settings)
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    longest = seconds_of(command(*words, "-o", calm))
    kill_again_and_again(command(*words, "-o", wild, "--resume"), longest, seed=0)
    for pattern in ("metrics.json", "split.json", "fold-*/scores.json", "predictions/*.nii.gz"):
        assert_same_files(calm, wild, pattern)

    words = ("predict", calm, subjects, "--device", "cpu", "--save-uncertainty")
    longest = seconds_of(command(*words, "-o", tmp_path / "masks"))
    again = command(*words, "-o", tmp_path / "again", "--skip-existing")
    kill_again_and_again(again, longest, seed=1)
    # A mask that was there was kept: it was whole, and so was what belongs to it.
    for pattern in ("case?.nii.gz", "case?_entropy.nii.gz", "labels.*"):
        assert_same_files(tmp_path / "masks", tmp_path / "again", pattern)
