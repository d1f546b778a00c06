"""Workers: in order, the same items whatever becomes of them, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from voxseg.data.layouts import find_cases
from voxseg.data.mapped import MappedArray
from voxseg.data.patches import PatchSampler, PatchSettings
from voxseg.data.transforms import Augment, AugmentSettings
from voxseg.engine import workers as workers_module
from voxseg.engine.cases import prepare_cases
from voxseg.engine.config import build, merge
from voxseg.engine.workers import RESTARTS, Workers, patch_worker_count, worker_count
from voxseg.errors import DataError, VoxsegError

ROOT = Path(__file__).parents[2]
# What workers run must be found by name, as a user's own module is.
MODULE = """
import faulthandler, os, signal, time
from voxseg.errors import DataError

def square(key):
    print("noise on stdout")
    os.write(1, b"and below")
    return key * key

def look(array, key):
    return type(array).__name__, array[key], key

def die_once(marker, key):
    if key == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return key

def crash(key):
    if key == 1:
        faulthandler._sigsegv()
    return key

def fail(kind, key):
    if key == 2:
        raise {"data": DataError("a.nii.gz is bad; mend it"), "bug": ZeroDivisionError("oh")}[kind]
    return key

def nap(key):
    time.sleep(0.5)
    return key

def sleep(key):
    time.sleep(0.0 if key < 2 else 600.0)
    return key
"""
ORPHANS = """
from pathlib import Path
import making
from voxseg.engine.workers import Workers

# No guard of __main__: a worker that ran this file again would start workers of its own.
with Workers(
    making.sleep, range(9), 2, describe=str, folder=Path({folder!r}), say=print
) as items:
    next(items), next(items)
    print(*items.pids, flush=True)
    next(items)
"""


@pytest.fixture
def making(tmp_path, monkeypatch):
    """The module above, importable here and in workers."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "making.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    import making

    yield making
    del sys.modules["making"]


@pytest.fixture
def start(tmp_path):
    """Workers with a folder of their own; what they say is in ``start.said``."""

    def make(function, keys, count):
        return Workers(
            function,
            keys,
            count,
            describe=lambda key: f"making {key}",
            folder=tmp_path / "shared",
            say=make.said.append,
        )

    make.said = []
    return make


def alive(pid):
    """Whether a process runs; one that waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(parent):
    """Process ids of the children of a process."""
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


def wait_until_dead(pids):
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_come_in_order(count, start, making):
    with start(making.square, range(2, 9), count) as items:
        pids = items.pids
        assert len(pids) == count
        assert list(items) == [4, 9, 16, 25, 36, 49, 64]
    assert not any(map(alive, pids))
    assert not start.said


def test_no_more_workers_than_items(start, making, tmp_path):
    with start(making.square, [7], 5) as items:
        assert len(items.pids) == 1
        assert list(items) == [49]
    with start(making.square, [], 5) as items:
        assert not items.pids
        assert list(items) == []
    assert not list((tmp_path / "shared").iterdir())


def test_large_arrays_are_mapped_not_copied(start, making, tmp_path, rng):
    large = rng.standard_normal(2**18)
    with start(partial(making.look, large), range(3), 2) as items:
        assert list(items) == [("MappedArray", large[key], key) for key in range(3)]
    (file,) = (tmp_path / "shared").iterdir()
    assert file.stat().st_size == large.nbytes


def test_a_killed_worker_is_started_again(start, making, tmp_path):
    begin = partial(making.die_once, tmp_path / "died")
    with start(begin, range(8), 2) as items:
        before = items.pids
        assert list(items) == list(range(8))
        assert before[0] == items.pids[0]
        assert before[1] != items.pids[1]
    assert start.said == [
        "worker 2 was killed by signal 9, often the system running out of memory, while making 3; "
        f"started again (1 of {RESTARTS})"
    ]


def test_a_death_is_noticed_within_a_second(making, tmp_path):
    class ToldError(Exception):
        pass

    def tell(text):
        raise ToldError(text)

    folder = tmp_path / "shared"
    with Workers(making.sleep, range(4), 2, describe=str, folder=folder, say=tell) as items:
        assert [next(items), next(items)] == [0, 1]
        pids = items.pids
        os.kill(pids[0], signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(ToldError, match=r"killed by signal 9.*while 2; started again"):
            next(items)
        assert time.monotonic() - killed < 1
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_worker_that_always_crashes_ends_the_run(start, making):
    with start(making.crash, range(4), 2) as items:
        assert next(items) == 0
        with pytest.raises(VoxsegError, match=r"^worker 2 was killed by signal 11 \(Fatal") as e:
            next(items)
    text = str(e.value)
    assert "Segmentation fault) while making 1, and 3 had died before; free some memory" in text
    assert "\n" not in text
    # With --debug, the worker's own words are shown.
    assert "in crash" in "".join(traceback.format_exception(e.value))
    assert [line.rpartition("; ")[2] for line in start.said] == [
        f"started again ({n} of {RESTARTS})" for n in range(1, RESTARTS + 1)
    ]


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("kind", ["data", "bug"])
def test_an_error_comes_back_with_its_own_traceback(kind, count, start, making):
    expected = {
        "data": (DataError, r"^a\.nii\.gz is bad; mend it$"),
        "bug": (VoxsegError, r"^making 2 failed: ZeroDivisionError: oh; --debug shows where$"),
    }[kind]
    with start(partial(making.fail, kind), range(4), count) as items:
        pids = items.pids
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(expected[0], match=expected[1]) as caught:
            next(items)
    assert type(caught.value) is expected[0]
    assert "making.py" in "".join(traceback.format_exception(caught.value))
    assert not any(map(alive, pids))
    assert not start.said


def test_workers_that_cannot_be_started_are_one_sentence(start, making, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    match = r"^cannot start a worker process \(.*no-python'\); use fewer, or --workers 0 for none$"
    with pytest.raises(VoxsegError, match=match), start(making.square, range(4), 2):
        pass
    assert not list((tmp_path / "shared").iterdir())


def test_workers_leave_interrupts_to_the_parent(start, making):
    with start(making.nap, range(3), 1) as items:
        assert next(items) == 0
        os.kill(items.pids[0], signal.SIGINT)  # it is at the next one
        assert list(items) == [1, 2]
    assert not start.said


def test_workers_end_when_the_parent_is_killed(making, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(folder=str(tmp_path / "shared")))
    path = os.pathsep.join([str(tmp_path / "modules"), str(ROOT)])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.kill()
    wait_until_dead(pids)


@pytest.mark.slow
def test_ctrl_c_ends_the_program_with_a_checkpoint_and_its_workers(subjects, tmp_path):
    run = tmp_path / "run"
    words = ["--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=3"]
    words += ["--epochs", "4000", "--device", "cpu", "--workers", "2"]
    program = subprocess.Popen(
        [sys.executable, "-m", "voxseg", "train", str(subjects), "-o", str(run), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with program:
        deadline = time.monotonic() + 180
        while not (run / "checkpoints" / "last.pt").exists():
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workers = children(program.pid)
        assert len(workers) == 2
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        _, said = program.communicate(timeout=60)
    assert program.returncode == 130
    assert re.fullmatch(r"voxseg: stopped after step \d+ of 12000; .* and --resume\n", said)
    assert not any(map(alive, workers))


def test_worker_count_follows_the_device():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [worker_count(-1, gpu), worker_count(-1, cpu)] == [2, 0]
    assert [worker_count(5, cpu), worker_count(0, gpu)] == [5, 0]


def test_patches_beside_a_gpu_are_cut_by_the_cores_that_are_left(monkeypatch):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for cores, sharing, expected in ((1, 1, 1), (2, 1, 1), (6, 1, 5), (64, 1, 8), (16, 4, 3)):
        monkeypatch.setattr(workers_module, "_cores", lambda cores=cores: cores)
        assert patch_worker_count(-1, gpu, sharing) == expected
    assert [patch_worker_count(-1, cpu), patch_worker_count(3, gpu)] == [0, 3]


def prepared(subjects, settings, folder, workers):
    said = []
    config = build(merge(settings, {"labels": {"values": [0, 2, 5]}}))
    cases = prepare_cases(find_cases(subjects).cases, config, folder, said.append, workers=workers)
    return cases, said


@pytest.mark.slow
def test_cases_are_prepared_the_same_in_workers(subjects, quick, tmp_path):
    here, said_here = prepared(subjects, quick, tmp_path / "a", 0)
    there, said_there = prepared(subjects, quick, tmp_path / "b", 2)
    assert said_here == said_there
    assert not (tmp_path / "a").exists()
    for one, other in zip(here, there, strict=True):
        assert (one.case_id, one.grid, one.mask_box) == (other.case_id, other.grid, other.mask_box)
        for name in ("image", "label", "superpixels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert type(getattr(other, name)) is MappedArray


@pytest.mark.slow
def test_every_broken_file_is_named_by_workers_too(subjects, quick, tmp_path):
    for name in ("case1.nii.gz", "case3_seg.nii.gz"):
        (subjects / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"case1\.nii\.gz(.|\n)*case3_seg\.nii\.gz"):
        prepared(subjects, quick, tmp_path / "run", 2)


@pytest.mark.slow
def test_batches_are_the_same_whatever_becomes_of_workers(subjects, quick, tmp_path, start):
    cases, _ = prepared(subjects, quick, tmp_path / "run", 0)
    patch = (16, 15, 14)
    vary = AugmentSettings(affine_probability=0.5, intensity_probability=0.8)
    settings = PatchSettings(voxels=patch, class_share=0.6, coordinates=True)
    sampler = PatchSampler(cases, 3, settings, Augment(vary, patch), seed=4)
    make = partial(sampler.batch, size=2)
    expected = [make(step) for step in range(5, 16)]
    with start(make, range(5, 16), 2) as batches:
        found = [next(batches) for _ in range(3)]
        os.kill(batches.pids[1], signal.SIGKILL)
        os.kill(batches.pids[0], signal.SIGTERM)
        found += list(batches)
    assert len(start.said) == 2
    for one, other in zip(expected, found, strict=True):
        assert one.count == other.count
        for name in ("image", "label", "superpixels"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
