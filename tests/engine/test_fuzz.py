"""Files that were damaged at random: one sentence or a good answer, never another error or a hang.

VOXSEG_FUZZ sets how many of each are tried, VOXSEG_FUZZ_SEED which: a few hundred here, tens of
thousands before a release.
"""

import gzip
import os
import random
import signal
import struct

import nibabel as nib
import numpy as np
import pytest
import torch

from voxseg.data.check import check_headers
from voxseg.data.layouts import find_cases
from voxseg.data.volume import read_image, read_label
from voxseg.engine.checkpoint import load_checkpoint, save_checkpoint
from voxseg.engine.config import Config, build, dump, read_toml, to_tables
from voxseg.engine.network import build_network, network_of
from voxseg.errors import VoxsegError

TRIES = int(os.environ.get("VOXSEG_FUZZ", "300"))
SEED = int(os.environ.get("VOXSEG_FUZZ_SEED", "0"))
LONGEST_SECONDS = 20


@pytest.fixture
def in_time():
    """End a hang with an error that says what hung."""

    def stop(*_):
        raise TimeoutError(f"not done after {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    yield lambda: signal.alarm(LONGEST_SECONDS)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def damage(content, rng):
    """Flip, overwrite, cut out, repeat or cut off some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = struct.pack("<f", rng.choice((0, -1, 1e38, float("nan"), 3.5)))
        elif kind == 2:
            data[at : at + 2] = struct.pack("<h", rng.choice((-1, 0, 1, 32767, -32768, 256)))
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        else:
            del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def header_damage(content, rng):
    """The same, in the header alone: most of a file is voxels, where little can go wrong."""
    return damage(content[:352], rng) + content[352:]


def attempt(call, where):
    """Call, and give the answer and "", or None and the sentence that it was refused with."""
    try:
        return call(), ""
    except VoxsegError as error:
        return None, str(error)
    except Exception as error:
        raise AssertionError(f"{where}: {error!r}") from error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_damaged_volumes(tmp_path, in_time):
    rng = random.Random(3 * SEED + 0)
    array = np.random.default_rng(0).integers(0, 4, (7, 6, 5)).astype(np.int16)
    whole = nib.Nifti1Image(array, np.diag([1, 1.5, -2, 1])).to_bytes()
    large = nib.Nifti2Image(array.astype(np.float32), np.diag([1, 1.5, -2, 1])).to_bytes()
    zipped = gzip.compress(whole)
    answers = {"read": 0, "refused": 0}
    for number in range(TRIES):
        source, suffix = rng.choice(((whole, ".nii"), (large, ".nii"), (zipped, ".nii.gz")))
        if suffix == ".nii.gz" and rng.random() < 0.5:
            content = gzip.compress(header_damage(whole, rng))
        else:
            content = (header_damage if rng.random() < 0.6 else damage)(source, rng)
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        for read in (read_image, read_label):
            in_time()
            volume, refusal = attempt(lambda: read(path), f"try {number}, {read.__name__}")  # noqa: B023
            if volume is None:
                assert "\n" not in refusal
                assert str(path) in refusal
                answers["refused"] += 1
            else:
                assert volume.array.ndim in (3, 4)
                assert all(s > 0 for s in volume.spacing), (volume.spacing, volume.affine)
                answers["read"] += 1
        in_time()
        attempt(
            lambda: check_headers(find_cases(tmp_path, need_labels=False)), f"try {number}, check"
        )
        path.unlink()
    # Damage that is never noticed, or always, would test nothing.
    assert min(answers.values()) > TRIES // 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints(tmp_path, in_time):
    rng = random.Random(3 * SEED + 1)
    config = Config()
    network = build_network(config.model, 1, 3, 3)
    content = {
        "model": network.state_dict(),
        "config": to_tables(config) | {"labels": {"values": (0, 1, 2), "names": ("a", "b", "c")}},
        "in_channels": 1,
        "spatial_dims": 3,
        "step": 4,
        "dice": 0.5,
    }
    path = tmp_path / "good.pt"
    save_checkpoint(path, content)
    whole = path.read_bytes()
    target = tmp_path / "bad.pt"
    for number in range(max(1, TRIES // 10)):
        if rng.random() < 0.3:
            # Whole as a file, wrong inside.
            changed = dict(content)
            changed[rng.choice(list(changed))] = rng.choice((None, 7, "x", {}, [], {"a": 1}))
            save_checkpoint(target, changed)
        else:
            target.write_bytes(damage(whole, rng))
        in_time()
        _, refusal = attempt(lambda: network_of(load_checkpoint(target), target), f"try {number}")
        assert "\n" not in refusal


@pytest.mark.slow
def test_damaged_configurations(tmp_path, in_time):
    rng = random.Random(3 * SEED + 2)
    whole = dump(Config()).encode()
    path = tmp_path / "config.toml"
    for number in range(TRIES):
        path.write_bytes(damage(whole, rng))
        in_time()
        attempt(lambda: build(read_toml(path)), f"try {number}")


def test_a_checkpoint_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(VoxsegError):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "trapped").exists()
