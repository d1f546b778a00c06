"""Every kernel file is built by NVIDIA's own compilers; neither needs a GPU."""

import shutil
import subprocess
from pathlib import Path

import pytest

from voxseg.ops import nvrtc

OPS = sorted(path.stem for path in (Path(__file__).parents[2] / "cuda").glob("*.cu"))
ARCHS = [
    pytest.param(arch, marks=[] if arch in ("sm_75", "sm_90") else pytest.mark.slow)
    for arch in ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
]


def real_name(real):
    return str(real).removeprefix("torch.")


@pytest.mark.parametrize("real", nvrtc.REALS, ids=real_name)
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", OPS)
def test_nvrtc_compiles(op, arch, real):
    try:
        nvrtc.nvrtc_version()
    except nvrtc.KernelError as error:
        pytest.skip(str(error))
    cubin = nvrtc.compile_cubin(op, arch, real)
    assert cubin.startswith(b"\x7fELF")
    for kernel in nvrtc.signatures(nvrtc.source(op)):
        assert kernel.encode() in cubin


@pytest.mark.slow
@pytest.mark.parametrize("real", nvrtc.REALS, ids=real_name)
@pytest.mark.parametrize("op", OPS)
def test_nvcc_compiles(op, real, tmp_path):
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed; NVRTC has compiled the same text")
    path = tmp_path / f"{op}.cu"
    path.write_text(nvrtc.source(op))
    command = ["nvcc", "-cubin", "-arch=sm_90", "--fmad=false", f"-DREAL={nvrtc.REALS[real]}"]
    command += ["-std=c++17", "-Werror", "all-warnings", str(path), "-o", f"{path}bin"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not answer.returncode, answer.stderr
