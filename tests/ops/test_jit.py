"""Numba's threads and its cache."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import pytest
import torch

from voxseg.ops import jit


def test_kernel_works_where_nothing_can_be_cached(monkeypatch):
    njit = numba.njit
    asked = []

    def without_folder(**options):
        asked.append(options.get("cache", False))
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    # Not in Numba itself, whose own modules are loaded at first need and use it.
    monkeypatch.setattr(jit, "numba", SimpleNamespace(njit=without_folder))

    @jit.kernel()
    def double(x: float) -> float:
        return 2 * x

    assert double(3.5) == 7
    assert asked == [True, False]


@pytest.mark.parametrize(("num_elements", "expected"), [(None, 2), (2**15, 2), (2**15 - 1, 1)])
def test_torch_threads_follow_torch_and_come_back(num_elements, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba has one thread here")
    before = numba.get_num_threads()
    with jit.torch_threads(num_elements):
        assert numba.get_num_threads() == expected
    assert numba.get_num_threads() == before


def test_torch_threads_come_back_after_an_error(monkeypatch):
    before = numba.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(ZeroDivisionError), jit.torch_threads():
        raise ZeroDivisionError
    assert numba.get_num_threads() == before


# Numba starts its threads once in a process; one core would hide what they do to torch's.
FIRST_KERNELS = """
import torch
from voxseg.ops import slic, superpixel_pool
assert torch.get_num_threads() == 1
labels = torch.arange(64**3).view(1, 64, 64, 64) // 512
for call in (
    lambda: superpixel_pool(torch.rand(1, 2, 64, 64, 64), labels, 512),
    lambda: superpixel_pool(torch.rand(1, 2, 64, 64, 64), labels, 512, "mean"),
    lambda: slic(torch.rand(24, 24, 24).numpy(), n_segments=20, compactness=0.1),
):
    call()
    assert torch.get_num_threads() == 1
"""


@pytest.mark.slow
def test_the_first_kernel_leaves_torch_its_threads():
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    environment["OMP_NUM_THREADS"] = "1"
    subprocess.run([sys.executable, "-c", FIRST_KERNELS], env=environment, check=True)


def test_torch_threads_never_exceed_numbas(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    with jit.torch_threads():
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
