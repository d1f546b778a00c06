"""What NVIDIA's compiler makes of the kernels: vectors stay whole, nothing is spilled.

The meter counts what the source asks for. Only the compiler's output tells that it is so on a GPU.
"""

import re

import pytest
import torch

from voxseg.ops import nvrtc

OPS = ["superpixel_pool", "superpixel_pool_rows", "superpixel_unpool", "slic", "slic_image"]
OPS += ["slic_connectivity"]
REALS = [pytest.param(real, id=str(real).removeprefix("torch.")) for real in nvrtc.REALS]
REGISTERS = 65536  # of a multiprocessor
WIDE = r"{}[.\w]*\.v4\.\w32"


def compiled(op, real, arch, *more, text=None):
    """Compile a kernel file; give NVRTC, the program and its log."""
    try:
        library = nvrtc._nvrtc()
    except nvrtc.KernelError as error:
        pytest.skip(str(error))
    source = (text or nvrtc.source(op)).encode()
    error, program = library.nvrtcCreateProgram(source, f"{op}.cu".encode(), 0, [], [])
    options = [option.encode() for option in (*nvrtc._options(arch, real), *more)]
    (error,) = library.nvrtcCompileProgram(program, len(options), options)
    log = nvrtc._log(library, program)
    assert int(error) == 0, log
    return library, program, log


def assembly(op, real, text=None):
    """PTX of each kernel."""
    library, program, _ = compiled(op, real, "compute_90", text=text)
    _, size = library.nvrtcGetPTXSize(program)
    ptx = nvrtc._buffer(size)
    library.nvrtcGetPTX(program, ptx)
    parts = re.split(r"\.entry (\w+)", ptx.decode().strip("\0"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def resources(op, real, arch):
    """Registers of a thread, and bytes spilled, of each kernel."""
    *_, log = compiled(op, real, arch, "--ptxas-options=-v")
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        spilled = map(int, re.findall(r"(\d+) bytes spill", part))
        found[part.partition("'")[0]] = int(re.search(r"Used (\d+) reg", part)[1]), sum(spilled)
    assert set(found) == set(nvrtc.signatures(nvrtc.source(op)))
    return found


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=pytest.mark.slow)])
@pytest.mark.parametrize("op", OPS)
def test_no_kernel_spills_registers(op, arch, real):
    assert not {
        name: spilled for name, (_, spilled) in resources(op, real, arch).items() if spilled
    }


@pytest.mark.parametrize("real", REALS)
def test_enough_blocks_fit_in_a_multiprocessor(real):
    # Their loads on the way, 32 KB a block, are what keeps memory busy.
    for name, (registers, _) in resources("superpixel_pool", real, "sm_90").items():
        blocks = REGISTERS // (256 * -(-registers // 8) * 8)
        assert blocks >= (4 if real == torch.float32 or name.endswith("last") else 3), name


@pytest.mark.parametrize("real", REALS)
def test_vectors_stay_whole(real):
    kernels = assembly("superpixel_pool", real)
    for kernel in ("max_tiles", "sum_tiles"):
        text = kernels[kernel]
        # A round of 32 KB and 256 threads, before the first one and in the loop.
        assert len(re.findall(WIDE.format("ld.global"), text)) == 2 * 8
        assert len(re.findall(WIDE.format("st.shared"), text)) >= 8
        assert re.search(WIDE.format("ld.shared"), text)
        assert not re.search(r"ld\.shared\.[fb](32|16)", text), "a channel at a time"
    assert re.search(WIDE.format("st.global"), assembly("superpixel_unpool", real)["unpool"])


def test_single_stores_are_told_from_vectors():
    text = nvrtc.source("superpixel_unpool")
    vector = "*reinterpret_cast<uint4*>(line) = pack.raw;"
    single = "for (int q = 0; q < Pack::SIZE; ++q) line[q] = pack.value[q];"
    assert text.count(vector) == 1
    broken = assembly("superpixel_unpool", torch.float32, text=text.replace(vector, single))
    assert not re.search(WIDE.format("st.global"), broken["unpool"])
