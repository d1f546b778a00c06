"""What the doctor finds, and the cure it names."""

from pathlib import Path

import pytest
import torch

from voxseg.engine import doctor
from voxseg.ops import nvrtc
from voxseg.ops.nvrtc import KernelError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def finding():
    """The finding of a name, or None."""

    def find(what):
        return next((f for f in doctor.examine() if f.what == what), None)

    return find


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(doctor, "free_gb", lambda _: 1.0)
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: "13.0")


def test_without_a_gpu_nothing_of_it_is_missing(finding, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def missing():
        raise KernelError("NVRTC is not found; run: pip install nvidia-cuda-nvrtc")

    monkeypatch.setattr(nvrtc, "nvrtc_version", missing)
    assert finding("NVRTC").cure == ""
    assert "not needed without a GPU" in finding("NVRTC").state


def test_kernels_are_compiled_and_loaded_to_see(finding, one_gpu, monkeypatch):
    asked = []
    monkeypatch.setattr(nvrtc, "kernels", lambda op, device: asked.append((op, device.index)))
    assert finding("kernels of superpixel_pool").state == "compiled and loaded on cuda:0"
    assert asked == [(op, 0) for op in nvrtc.FILES]
    # The paper's design is only for comparison.
    files = {path.stem for path in (ROOT / "cuda").glob("*.cu")}
    assert files == {*nvrtc.FILES, "superpixel_pool_paper"}
    assert finding("cuda:0").state.startswith("a GPU, sm_90")


def test_what_keeps_kernels_from_running_is_named(finding, one_gpu, monkeypatch):
    def fail(op, device):
        raise KernelError("NVRTC 13.0 makes no code for this GPU; install another")

    monkeypatch.setattr(nvrtc, "kernels", fail)
    found = finding("kernels of slic")
    assert found.state == "do not run on cuda:0"
    assert found.cure.endswith("install another")


def test_plain_torch_is_shown(finding, one_gpu, monkeypatch):
    monkeypatch.setenv("VOXSEG_KERNELS", "torch")
    assert finding("CUDA kernels").state == "not used: VOXSEG_KERNELS=torch"
    assert finding("kernels of slic") is None


def test_a_cache_that_cannot_be_written_is_shown(finding, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    assert str(tmp_path / "cache") in finding("cache").state
    assert finding("cache").cure == ""
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert finding("cache").cure.startswith("set VOXSEG_CACHE")
