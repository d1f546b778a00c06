"""CUDA kernels: found, compiled at first use, kept on disk, launched.

Source: none (machinery). A kernel file is compiled by NVRTC, which comes with torch's CUDA builds,
to machine code for the GPU at hand; nobody needs nvcc. The result is kept in the cache
(``voxseg.cache``) under a hash of everything it depends on.

Kernels go to torch's current stream. Compile before a CUDA graph is captured: call the op once.
"""

import ctypes
import functools
import hashlib
import importlib.util
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

import voxseg
from voxseg.cache import KERNELS, keep, recall
from voxseg.errors import VoxsegError

Argument = Tensor | int | float | None

FILES = (
    "superpixel_pool",
    "superpixel_pool_rows",
    "superpixel_unpool",
    "slic_image",
    "slic",
    "slic_connectivity",
)
"""The kernel files that voxseg's ops use."""
MOST_SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that every device gives a block without being asked."""
REALS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""What ``REAL`` stands for in ``cuda/prelude.cuh``."""

_CUDA_SUCCESS = 0
_SIGNATURE = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)
_SCALARS: dict[str, Callable[[Any], Any]] = {
    "int": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
_TENSORS: dict[str, tuple[torch.dtype, ...]] = {
    "unsigned char": (torch.uint8, torch.bool),
    "u16": (torch.int16, torch.uint16),
    "int": (torch.int32,),
    "u32": (torch.int32, torch.uint32),
    "i64": (torch.int64,),
    "u64": (torch.int64, torch.uint64),
    "float": (torch.float32,),
    "double": (torch.float64,),
    "real": tuple(REALS),  # the one that the file was compiled for
}
"""What a pointer to each C type may point to."""
_loading = threading.Lock()


class KernelError(VoxsegError):
    """A kernel cannot be compiled or launched on this system."""


class Kernels(Protocol):
    """The kernels of one file, ready for one device."""

    def __call__(
        self,
        name: str,
        grid: tuple[int, ...],
        block: int,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Queue one launch; a grid with a zero is none.

        Args:
            name: of the kernel.
            grid: blocks along x, y, z; x up to 2**31 - 1, the others up to 65535.
            block: threads of a block.
            arguments: one for each parameter; a tensor gives its address, None a null pointer.
            shared_bytes: dynamic shared memory of a block, at most 48 KiB.
        """
        ...


def kernels(op: str, device: torch.device, real: torch.dtype = torch.float32) -> Kernels:
    """Make ``cuda/<op>.cu`` ready for a CUDA device.

    Args:
        op: the file's name.
        device: a CUDA device.
        real: float32, float16 or bfloat16: what the file's type ``real`` is.

    Raises:
        KernelError: something is missing; the sentence names it and the command that helps.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with _loading:
        return _load(op, index, real)


def source(op: str) -> str:
    """Give the text of a kernel file with the prelude in front.

    The files lie in ``voxseg/cuda`` of a wheel, or beside ``voxseg`` in a checkout.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "cuda", package.parent / "cuda"):
        path = folder / f"{op}.cu"
        if path.is_file():
            prelude = (folder / "prelude.cuh").read_text(encoding="utf-8")
            text = path.read_text(encoding="utf-8")
            return f'#line 1 "prelude.cuh"\n{prelude}\n#line 1 "{op}.cu"\n{text}'
    raise KernelError(f"{op}.cu is in neither {package / 'cuda'} nor {package.parent / 'cuda'}")


def signatures(text: str) -> dict[str, tuple[str, ...]]:
    """Read the C types of every kernel's parameters; a pointer ends with "*".

    An integer that is passed with the wrong width is read as rubbish, as are the elements of a
    tensor of another type, so types are taken from the source and not from the call.
    """
    found = {}
    for match in _SIGNATURE.finditer(text):
        name, parameters = match.groups()
        found[name] = tuple(_kind(p) for p in parameters.split(","))
    return found


def compile_cubin(op: str, arch: str, real: torch.dtype = torch.float32) -> bytes:
    """Compile a kernel file to machine code; needs NVRTC, but neither driver nor GPU.

    Args:
        op: the file's name.
        arch: like "sm_90".
        real: see ``kernels``.
    """
    nvrtc = _nvrtc()
    text = source(op)
    error, program = nvrtc.nvrtcCreateProgram(text.encode(), f"{op}.cu".encode(), 0, [], [])
    _check(error, "nvrtcCreateProgram")
    options = [option.encode() for option in _options(arch, real)]
    try:
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(error) != _CUDA_SUCCESS:
            raise KernelError(f"NVRTC cannot compile {op}.cu for {arch}: {_log(nvrtc, program)}")
        error, size = nvrtc.nvrtcGetCUBINSize(program)
        _check(error, "nvrtcGetCUBINSize")
        cubin = _buffer(size)
        (error,) = nvrtc.nvrtcGetCUBIN(program, cubin)
        _check(error, "nvrtcGetCUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin


def cached_cubin(op: str, arch: str, real: torch.dtype = torch.float32) -> bytes:
    """Give the machine code of a kernel file from the cache, or compile and keep it.

    A folder that cannot be read or written costs a compilation, nothing else.
    """
    parts = (source(op), *_options(arch, real), nvrtc_version(), voxseg.__version__)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    name = f"{op}-{arch}-{key[:32]}.cubin"
    kept = recall(KERNELS, name)
    if kept is not None:
        return kept
    cubin = compile_cubin(op, arch, real)
    keep(KERNELS, name, cubin)
    return cubin


def nvrtc_version() -> str:
    """Version of the NVRTC library that is found, like "13.0"."""
    error, major, minor = _nvrtc().nvrtcVersion()
    _check(error, "nvrtcVersion")
    return f"{major}.{minor}"


def best_arch(major: int, minor: int) -> str:
    """Choose what to compile for on a device of this compute capability.

    Raises:
        KernelError: the NVRTC that is found makes nothing that runs on it.
    """
    error, archs = _supported()
    _check(error, "nvrtcGetSupportedArchs")
    own = 10 * major + minor
    # Machine code runs on later devices of the same major version.
    fitting = [arch for arch in archs if arch // 10 == major and arch <= own]
    if not fitting:
        known = ", ".join(f"sm_{arch}" for arch in archs)
        raise KernelError(
            f"NVRTC {nvrtc_version()} makes no code for this GPU (sm_{own}; it knows {known}); "
            "install a build of torch for a CUDA version that supports it, or set "
            "VOXSEG_KERNELS=torch"
        )
    return f"sm_{max(fitting)}"


class _CudaKernels:
    """A compiled file, loaded into the context of one device."""

    def __init__(
        self, op: str, cubin: bytes, device: int, real: torch.dtype = torch.float32
    ) -> None:
        self._op, self._device, self._real = op, device, real
        self._signatures = signatures(source(op))
        self._driver = _driver()
        self._context: Any = None
        with torch.cuda.device(device):
            self._enter()
            code = ctypes.create_string_buffer(cubin, len(cubin))
            error, self._module = self._driver.cuModuleLoadData(ctypes.addressof(code))
            self._check(error, "cannot be loaded")
            self._functions = {name: self._function(name) for name in self._signatures}

    def __call__(
        self,
        name: str,
        grid: tuple[int, ...],
        block: int,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        if 0 in grid:
            return
        assert shared_bytes <= MOST_SHARED_BYTES
        values = pack(self._signatures[name], arguments, self._real)
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        x, y, z = (*grid, 1, 1)[:3]
        with torch.cuda.device(self._device):
            self._enter()
            stream = torch.cuda.current_stream(self._device).cuda_stream
            (error,) = self._driver.cuLaunchKernel(
                self._functions[name],
                *(x, y, z),
                *(block, 1, 1),
                shared_bytes,
                stream,
                ctypes.addressof(pointers),
                0,
            )
        self._check(error, f"cannot launch {name}")

    def _function(self, name: str) -> Any:
        error, function = self._driver.cuModuleGetFunction(self._module, name.encode())
        self._check(error, f"holds no {name}")
        return function

    def _enter(self) -> None:
        """Make the device's primary context current; a thread new to CUDA has none."""
        error, current = self._driver.cuCtxGetCurrent()
        self._check(error, "has no context")
        if int(current):
            return
        if self._context is None:
            error, self._context = self._driver.cuDevicePrimaryCtxRetain(self._device)
            self._check(error, "has no context")
        (error,) = self._driver.cuCtxSetCurrent(self._context)
        self._check(error, "has no context")

    def _check(self, error: Any, what: str) -> None:
        if int(error) != _CUDA_SUCCESS:
            raise KernelError(f"{self._op}.cu {what} on cuda:{self._device}: {error.name}")


def pack(
    kinds: Sequence[str], arguments: Sequence[Argument], real: torch.dtype = torch.float32
) -> list[Any]:
    """Turn arguments into C values of the types that a kernel's signature names.

    Args:
        kinds: what ``signatures`` gives.
        arguments: one for each.
        real: what ``real`` is.

    Raises:
        TypeError: a tensor holds something else than the kernel reads, or is none.
    """
    values = []
    for kind, argument in zip(kinds, arguments, strict=True):
        if not kind.endswith("*"):
            values.append(_SCALARS[kind](argument))
            continue
        if argument is None:
            values.append(ctypes.c_void_p(0))
            continue
        fitting = (real,) if kind == "real*" else _TENSORS[kind[:-1]]
        if not isinstance(argument, Tensor) or argument.dtype not in fitting:
            given = argument.dtype if isinstance(argument, Tensor) else repr(argument)
            raise TypeError(f"a kernel's parameter {kind} does not take {given}")
        values.append(ctypes.c_void_p(argument.data_ptr()))
    return values


@functools.cache
def _load(op: str, device: int, real: torch.dtype) -> Kernels:
    arch = best_arch(*torch.cuda.get_device_capability(device))
    return _CudaKernels(op, cached_cubin(op, arch, real), device, real)


def _kind(parameter: str) -> str:
    words = re.sub(r"\bconst\b|\b__restrict__\b", " ", parameter).replace("*", " * ").split()
    known: Sequence[str] = list(_SCALARS)
    kind, pointer = " ".join(words[:-1]), ""
    if kind.endswith(" *"):
        known, kind, pointer = list(_TENSORS), kind[:-2], "*"
    if kind not in known:
        raise KernelError(f"a kernel's parameter {parameter.strip()!r} is none of {known}")
    return kind + pointer


def _options(arch: str, real: torch.dtype) -> list[str]:
    # No fused multiply-add: distances and sums are then those of the CPU twins.
    return [f"--gpu-architecture={arch}", "--std=c++17", "--fmad=false", f"-DREAL={REALS[real]}"]


def _log(nvrtc: Any, program: Any) -> str:
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = _buffer(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.decode(errors="replace").strip("\0 \n")


def _buffer(size: int) -> bytes:
    """Bytes for NVRTC to write into. Python shares those of one byte among all that use them."""
    return bytes(max(size, 2))


def _nvrtc() -> Any:
    module = _bindings("nvrtc")
    try:
        try:
            module.nvrtcVersion()
        except (RuntimeError, OSError):
            # NVIDIA's bindings look in site-packages, Python in more folders.
            _load_from_packages()
            module.nvrtcVersion()
    except (RuntimeError, OSError) as error:
        raise KernelError(
            f"NVRTC, which compiles voxseg's CUDA kernels, is not found ({_first_line(error)}); it "
            "comes with CUDA builds of torch, or run: pip install nvidia-cuda-nvrtc"
        ) from None
    return module


def _load_from_packages() -> None:
    """Load the NVRTC that NVIDIA's packages hold, wherever Python finds them.

    The bindings then use what is loaded.
    """
    found = importlib.util.find_spec("nvidia")
    folders = (found.submodule_search_locations or []) if found else []
    for folder in folders:
        for name in ("libnvrtc-builtins.so.*", "libnvrtc.so.*"):
            for library in sorted(Path(folder).glob(f"*/lib/{name}")):
                ctypes.CDLL(str(library))


@functools.cache
def _supported() -> Any:
    return _nvrtc().nvrtcGetSupportedArchs()


def _driver() -> Any:
    return _bindings("driver")


def _bindings(name: str) -> Any:
    try:
        bindings: Any = __import__("cuda.bindings", fromlist=[name])
        return getattr(bindings, name)
    except (ImportError, AttributeError) as error:
        wanted = (torch.version.cuda or "13").partition(".")[0]
        raise KernelError(
            f"voxseg's CUDA kernels need NVIDIA's Python bindings ({_first_line(error)}); run: "
            f"pip install 'cuda-bindings=={wanted}.*', or set VOXSEG_KERNELS=torch"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check(error: Any, call: str) -> None:
    if int(error) != _CUDA_SUCCESS:
        raise KernelError(f"{call} failed: {error.name}; reinstall NVRTC, or VOXSEG_KERNELS=torch")
