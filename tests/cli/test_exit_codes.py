"""Each exit code that ``voxseg --help`` promises occurs, in a process of its own."""

import os
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from voxseg.errors import EXIT_CODES

AFFINE = np.diag([1.0, 1.0, 1.5, 1.0])
# Ends at the first step as Ctrl-C does, wherever the machine is with it.
INTERRUPTED = """
import os, signal, sys
from voxseg.engine import loop
from voxseg.cli.main import main
step = loop.TrainingRun._step
def and_stop(self, batch, progress):
    os.kill(os.getpid(), signal.SIGINT)
    return step(self, batch, progress)
loop.TrainingRun._step = and_stop
sys.argv = ["voxseg", *sys.argv[1:]]
main()
"""


def run(*words, program=("-m", "voxseg")):
    command = [sys.executable, *program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:12, 4:12, 4:12] = 1
        image = (50 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, AFFINE), folder / f"s{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, AFFINE), folder / f"s{number}_seg.nii.gz")
    return folder


def test_help_shows_them_all():
    shown = run("--help").stdout
    for code, meaning in EXIT_CODES.items():
        assert f" {int(code)}  {meaning.split(';')[0]}" in shown


def test_0_done(data):
    assert run("check", data).returncode == 0


def test_1_failed(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run(
        "evaluate", data / "s0_seg.nii.gz", data / "s1_seg.nii.gz", "-o", tmp_path / "file" / "x"
    )
    assert done.returncode == 1, done.stderr


def test_2_wrong_usage(data):
    assert run("compare", data).returncode == 2
    assert run("compare", "--no-such-option").returncode == 2


def test_3_data_are_not_fit(tmp_path):
    assert run("check", tmp_path / "nothing").returncode == 3


def test_4_some_failed(data, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "s0.nii.gz").write_bytes((data / "s0_seg.nii.gz").read_bytes())
    (masks / "s1.nii.gz").write_bytes(b"nothing")
    assert run("evaluate", masks, data).returncode == 4


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing on Windows")
def test_130_interrupted(data, tmp_path):
    words = ("train", data, "-o", tmp_path / "run", "--device", "cpu", "--val-fraction", "0",
             "--set", "train.patch_voxels=[16,16,16]", "--set", "model.design=V0",
             "--set", "train.steps_per_epoch=2", "--epochs", "2")  # fmt: skip
    done = run(*words, program=("-c", INTERRUPTED))
    assert done.returncode == 130, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
    assert "--resume" in done.stderr
    assert signal.SIGINT.name not in done.stderr
