"""Finding, compiling, keeping and launching kernels, as far as no GPU is needed."""

import builtins
import ctypes
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from voxseg.files import cache_folder
from voxseg.ops import nvrtc
from voxseg.ops.nvrtc import KernelError

KERNEL = """
extern "C" __global__ void __launch_bounds__(64)
scale(const real* __restrict__ x, real *y, i64 size, const int by, float f, u64* keys) {
  i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) y[i] = from_float(to_float(x[i]) * f * by);
}
extern "C" __global__ void other(double d) {}
"""


@pytest.fixture
def kernel_file(tmp_path, monkeypatch):
    """A folder of kernels with one file, ``scale``, and a cache of its own."""
    prelude = nvrtc.source("superpixel_pool").partition('#line 1 "superpixel_pool.cu"')[0]
    monkeypatch.setattr(nvrtc, "source", lambda op: prelude + KERNEL)
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compiler():
    """NVRTC, or a skip."""
    try:
        return nvrtc.nvrtc_version()
    except KernelError as error:
        pytest.skip(str(error))


def test_sources_begin_with_the_prelude():
    text = nvrtc.source("superpixel_pool")
    assert text.startswith('#line 1 "prelude.cuh"\n//')
    assert "max_tiles" in text
    with pytest.raises(KernelError, match=r"nothing\.cu is in neither .*cuda nor .*cuda"):
        nvrtc.source("nothing")


def test_signatures_give_the_types():
    found = nvrtc.signatures(KERNEL)
    types = ("real*", "real*", "i64", "int", "float", "u64*")
    assert found == {"scale": types, "other": ("double",)}
    for bad in ("short s", "short* s", "const struct x* s"):
        with pytest.raises(KernelError, match=f"'{re.escape(bad)}' is none of"):
            nvrtc.signatures(f'extern "C" __global__ void bad({bad}) {{}}')
    text = 'extern "C" __global__ void good(const unsigned char* __restrict__ a, u16 * b) {}'
    assert nvrtc.signatures(text) == {"good": ("unsigned char*", "u16*")}


def test_arguments_are_packed_as_the_signature_says():
    x = torch.zeros(3)
    values = nvrtc.pack(("float*", "int*", "i64", "int", "float"), [x, None, 2**40, -5, 0.5])
    assert [v.value for v in values] == [x.data_ptr(), None, 2**40, -5, 0.5]
    assert [type(v) for v in values[2:]] == [ctypes.c_int64, ctypes.c_int32, ctypes.c_float]
    with pytest.raises(TypeError, match=r"parameter int\* does not take 7"):
        nvrtc.pack(("int*",), [7])
    with pytest.raises(ValueError, match="zip"):
        nvrtc.pack(("float*",), [x, x])


@pytest.mark.parametrize(
    ("kind", "fitting", "other"),
    [
        ("int*", torch.int32, torch.int64),
        ("i64*", torch.int64, torch.int32),
        ("u16*", torch.int16, torch.int32),
        ("float*", torch.float32, torch.float64),
        ("double*", torch.float64, torch.float32),
        ("unsigned char*", torch.bool, torch.int16),
        ("real*", torch.float16, torch.bfloat16),
    ],
    ids=str,
)
def test_a_tensor_of_another_type_is_refused(kind, fitting, other):
    nvrtc.pack((kind,), [torch.zeros(3, dtype=fitting)], torch.float16)
    with pytest.raises(TypeError, match=rf"{re.escape(kind)} does not take {other}"):
        nvrtc.pack((kind,), [torch.zeros(3, dtype=other)], torch.float16)


def test_a_log_of_one_byte_is_written_to_nobody_else_s(compiler):
    library = nvrtc._nvrtc()
    _, program = library.nvrtcCreateProgram(b"", b"empty.cu", 0, [], [])
    library.nvrtcCompileProgram(program, 0, [])
    assert library.nvrtcGetProgramLogSize(program)[1] == 1  # a zero alone
    assert nvrtc._log(library, program) == ""
    library.nvrtcDestroyProgram(program)
    assert bytes([32]) == b"  "[:1] == bytes.fromhex("20")
    assert [*bytes([32])] == [32]


def test_a_cubin_is_made_once_and_kept(kernel_file, compiler, monkeypatch):
    cubin = nvrtc.cached_cubin("scale", "sm_90", torch.float16)
    assert cubin.startswith(b"\x7fELF")
    (path,) = (cache_folder() / "kernels").iterdir()
    assert path.read_bytes().startswith(cubin)
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "compile_cubin", lambda *_: pytest.fail("compiled again"))
        assert nvrtc.cached_cubin("scale", "sm_90", torch.float16) == cubin
    # What was damaged on the disk never reaches a GPU.
    path.write_bytes(path.read_bytes()[:100] + b"!" + path.read_bytes()[101:])
    assert nvrtc.cached_cubin("scale", "sm_90", torch.float16) == cubin


def test_what_a_cubin_depends_on_makes_another(kernel_file, compiler):
    for arch, real in [("sm_90", torch.float32), ("sm_80", torch.float32), ("sm_90", torch.half)]:
        nvrtc.cached_cubin("scale", arch, real)
    assert len(list((cache_folder() / "kernels").iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    kernel_file, compiler, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "file"))
    assert nvrtc.cached_cubin("scale", "sm_90").startswith(b"\x7fELF")


def test_a_mistake_in_a_kernel_is_shown(compiler, monkeypatch):
    monkeypatch.setattr(nvrtc, "source", lambda op: 'extern "C" __global__ void f() { wrong; }')
    with pytest.raises(KernelError, match=r'cannot compile f.cu for sm_90: .*"wrong" is undefined'):
        nvrtc.compile_cubin("f", "sm_90")


def test_best_arch_is_of_the_same_major_version(compiler):
    assert nvrtc.best_arch(9, 0) == "sm_90"
    # 8.5 does not exist: code for 8.0 runs on it.
    assert nvrtc.best_arch(8, 5) == "sm_80"
    with pytest.raises(KernelError, match=r"makes no code for this GPU \(sm_30; it knows"):
        nvrtc.best_arch(3, 0)


def test_missing_bindings_are_named_with_the_cure(monkeypatch):
    original = builtins.__import__

    def fail(name, *rest, **more):
        if name.startswith("cuda"):
            raise ImportError("No module named 'cuda'")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(KernelError, match=r"pip install 'cuda-bindings==13\.\*', or set VOXSEG_KE"):
        nvrtc.nvrtc_version()


def test_a_missing_library_is_named_with_the_cure(monkeypatch):
    def missing():
        raise RuntimeError("libnvrtc.so.13 not found\nsearched everywhere")

    monkeypatch.setattr(nvrtc, "_bindings", lambda _: SimpleNamespace(nvrtcVersion=missing))
    with pytest.raises(KernelError, match=r"\(libnvrtc.so.13 not found\); .* pip install nvidia-c"):
        nvrtc.compile_cubin("superpixel_pool", "sm_90")


def test_a_library_is_found_wherever_python_finds_its_package(tmp_path, monkeypatch):
    """As where packages lie in a folder of PYTHONPATH, where NVIDIA's bindings do not look."""
    folder = tmp_path / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc.alt.so.13"):
        (folder / name).touch()
    loaded = []

    def version():
        if not loaded:
            raise RuntimeError("libnvrtc.so.13 not found")
        return Code(0), 13, 0

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(nvrtc, "_bindings", lambda _: SimpleNamespace(nvrtcVersion=version))
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", lambda path: loaded.append(Path(path)))
    assert nvrtc.nvrtc_version() == "13.0"
    ours = [path.name for path in loaded if tmp_path in path.parents]
    assert ours == ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]


class Code(int):
    """A driver's answer."""

    name = "CUDA_ERROR_LAUNCH_FAILED"


class FakeDriver:
    """Records calls; every one succeeds, but the launch when told so."""

    def __init__(self, context=1):
        self.context, self.launches, self.entered, self.answer = context, [], [], Code(0)

    def cuCtxGetCurrent(self):  # noqa: N802
        return Code(0), self.context

    def cuDevicePrimaryCtxRetain(self, device):  # noqa: N802
        return Code(0), 40 + device

    def cuCtxSetCurrent(self, context):  # noqa: N802
        self.entered.append(context)
        return (Code(0),)

    def cuModuleLoadData(self, address):  # noqa: N802
        self.code = ctypes.string_at(address, 4)
        return Code(0), "module"

    def cuModuleGetFunction(self, module, name):  # noqa: N802
        return Code(0), f"{module}.{name.decode()}"

    def cuLaunchKernel(self, *arguments):  # noqa: N802
        self.launches.append(arguments)
        return (self.answer,)


@pytest.fixture
def fake_cuda(kernel_file, monkeypatch):
    """A device that is not there."""
    driver = FakeDriver()
    monkeypatch.setattr(nvrtc, "_driver", lambda: driver)

    class Guard:
        def __init__(self, device):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(torch.cuda, "device", Guard)
    stream = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    return driver


def test_a_launch_goes_to_the_current_stream(fake_cuda):
    run = nvrtc._CudaKernels("scale", b"\x7fELF", 0)
    assert fake_cuda.code == b"\x7fELF"
    x = torch.zeros(4)
    run("scale", (5, 2), 64, [x, x, 2**33, 3, 0.25, None], 1024)
    (launch,) = fake_cuda.launches
    assert launch[:9] == ("module.scale", 5, 2, 1, 64, 1, 1, 1024, 77)
    run("scale", (0,), 64, [x, x, 0, 3, 0.25, None])
    assert len(fake_cuda.launches) == 1
    assert not fake_cuda.entered


def test_a_thread_without_a_context_gets_the_device_s(fake_cuda):
    fake_cuda.context = 0
    run = nvrtc._CudaKernels("scale", b"\x7fELF", 1)
    run("other", (1,), 32, [1.0])
    assert fake_cuda.entered == [41, 41]


def test_a_failed_launch_is_named(fake_cuda):
    run = nvrtc._CudaKernels("scale", b"\x7fELF", 0)
    fake_cuda.answer = Code(719)
    with pytest.raises(KernelError, match=r"scale.cu cannot launch other on cuda:0: CUDA_ERROR_LA"):
        run("other", (1,), 32, [1.0])


@pytest.mark.cuda
def test_kernels_run_on_the_gpu(cuda_device):
    device = cuda_device
    run = nvrtc.kernels("superpixel_pool_rows", device)
    assert nvrtc.kernels("superpixel_pool_rows", torch.device("cuda", 0)) is run
    keys = torch.zeros(1, 1, 2, dtype=torch.int64, device=device)
    features = torch.tensor([[[1.0, 3.0, 2.0]]], device=device)
    labels = torch.tensor([[0, 0, 1]], dtype=torch.int32, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run("max_atomic", (1,), 256, [features, labels, keys, 1, 1, 2, 3, False])
    side.synchronize()
    assert (keys.flatten() & 0xFFFFFFFF).tolist() == [0xFFFFFFFE, 0xFFFFFFFD]
