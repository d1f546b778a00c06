"""The program's memory settings, each in a process of its own: they cannot be taken back."""

import json
import os
import subprocess
import sys

import pytest

from voxseg.engine import process
from voxseg.errors import UsageError

GLIBC = pytest.mark.skipif(process._glibc() is None, reason="needs Linux with glibc")

# glibc counts the blocks that it took from the system one by one (hblks in malloc.h).
MAPPED = """
import ctypes, os, sys
from voxseg.engine import process
class Info(ctypes.Structure):
    _fields_ = [(f"f{i}", ctypes.c_size_t) for i in range(10)]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
process.prepare()
before = libc.mallinfo2().f3
kept = libc.malloc(ctypes.c_size_t(SIZE))
print(libc.mallinfo2().f3 - before)
for name in ("THP_MEM_ALLOC_ENABLE", "OMP_WAIT_POLICY"):
    print(os.environ.get(name))
print("torch" in sys.modules)
"""

# Frees 2 GB in blocks of 1 to 30 MB, some of them kept, and says what the process still holds.
HELD = """
import os
import numpy as np
from voxseg.engine import process
process.prepare()
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = held()
blocks = [np.ones((1 + 7 * i % 30) << 17) for i in range(130)]
del blocks
print(held() - before - process.most_kept())
"""


def run(code, **environment):
    names = (process.SWITCH, process.HUGE_PAGES, process.WAITING, "GLIBC_TUNABLES")
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in names and not key.startswith("MALLOC_")
    }
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split()


@GLIBC
@pytest.mark.parametrize(
    ("size", "environment", "expected"),
    [
        (2**24, {}, ["0", "1", "PASSIVE", "False"]),
        (2**26, {}, ["1", "1", "PASSIVE", "False"]),
        (2**24, {"VOXSEG_MEMORY": "tuned"}, ["0", "1", "PASSIVE", "False"]),
        (2**24, {"VOXSEG_MEMORY": "default"}, ["1", "None", "None", "False"]),
        (2**24, {"THP_MEM_ALLOC_ENABLE": "0"}, ["0", "0", "PASSIVE", "False"]),
        (2**24, {"OMP_WAIT_POLICY": "ACTIVE"}, ["0", "1", "ACTIVE", "False"]),
        (2**24, {"MALLOC_ARENA_MAX": "2"}, ["1", "1", "PASSIVE", "False"]),
        (2**24, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, ["1", "1", "PASSIVE", "False"]),
    ],
)
def test_prepare_lets_the_heap_keep_blocks(size, environment, expected):
    assert run(MAPPED.replace("SIZE", str(size)), **environment) == expected


@GLIBC
def test_prepared_process_holds_little_more_than_it_uses():
    assert int(run(HELD)[0]) < process._TOP_PAD + 2**25


def test_prepare_rejects_unknown_setting(monkeypatch):
    monkeypatch.setenv("VOXSEG_MEMORY", "fast")
    with pytest.raises(UsageError, match="must be tuned or default, got 'fast'"):
        process.prepare()


def test_prepare_does_nothing_without_glibc(monkeypatch):
    monkeypatch.setattr(process, "_glibc", lambda: None)
    monkeypatch.delenv(process.HUGE_PAGES, raising=False)
    monkeypatch.setenv(process.WAITING, "PASSIVE")
    monkeypatch.delenv(process.SWITCH, raising=False)
    process.prepare()
    assert process.HUGE_PAGES not in os.environ


def test_other_systems_have_no_glibc(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert process._glibc() is None


def test_a_child_finds_what_its_parent_finds_and_takes_its_threads():
    code = "import json, os, sys, torch; print(json.dumps([sys.path, torch.get_num_threads()]))"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], env=process.child_environment(1),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    path, threads = json.loads(answer.stdout)
    # In the order of the parent: nothing gets before the standard library that was behind it.
    assert [one for one in path if one in sys.path] == [one for one in sys.path if one]
    assert threads == 1
    environment = process.child_environment(3)
    for library in ("OMP", "MKL", "NUMBA", "OPENBLAS"):
        assert environment[f"{library}_NUM_THREADS"] == "3"
