"""A CUDA device that is none, so that whatever runs on one is tested without it.

``pretended()`` makes torch believe in ``cuda:0``: ``device.cpp`` keeps its tensors in the CPU's
memory and runs every operator there, ``HostKernels`` runs voxseg's kernels, and this module answers
for ``torch.cuda``. What a GPU refuses is refused (tensors of two devices in one operator, NumPy on
a CUDA tensor), a copy to pinned memory that nothing has waited for holds NaN, and ``waits``
collects what the host waits for the device for.

Limits: one device with one stream that never lags, no graphs; speed, scratch memory and rounding
are the CPU's. Only with builds of torch that have no CUDA.
"""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import torch

import voxseg
from voxseg.ops import nvrtc

from .host import HERE, HostKernels, built, compile_with, compiler

CAPABILITY = (9, 0)
NAME = "pretended GPU"

_TOLD = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_PACKAGE = Path(voxseg.__file__).parent
_TORCH = Path(torch.__file__).parent
_FLAGS = ["-std=c++20", "-shared", "-fPIC", "-O1", "-w", "-fvisibility=hidden"]
_FLAGS += [f"-I{_TORCH}/include", f"-I{_TORCH}/include/torch/csrc/api/include"]
_LINKED = [f"-L{_TORCH}/lib", "-lc10", "-ltorch_cpu"]


def is_possible() -> bool:
    """Whether this build of torch leaves room for a pretended device."""
    return torch.version.cuda is None and torch.version.hip is None


@functools.cache
def library() -> ctypes.CDLL:
    """Build and load ``device.cpp``.

    torch counts devices at a process's first backward pass: what comes later gets no thread for
    its gradients. So this has to come first.
    """
    loaded = ctypes.CDLL(str(_build()))
    loaded.voxseg_pretend.restype = ctypes.c_void_p
    loaded.voxseg_pretend.argtypes = [ctypes.c_void_p]
    loaded.voxseg_used.restype = loaded.voxseg_most_used.restype = ctypes.c_size_t
    return loaded


@contextlib.contextmanager
def pretended(
    seed: int = 0, mode: str = "plain", memory_bytes: int = 8 << 30
) -> Iterator[torch.device]:
    """Let torch and voxseg see one CUDA device.

    Args:
        memory_bytes: what the device has; results that do not fit are an OutOfMemoryError.
        seed: see ``HostKernels``.
        mode: see ``HostKernels``.
    """
    held = library()
    held.voxseg_limit(ctypes.c_size_t(memory_bytes))

    @functools.cache
    def made(op: str, real: torch.dtype) -> HostKernels:
        return HostKernels(nvrtc.source(op), real=real, seed=seed, mode=mode)

    def kernels(op: str, device: torch.device, real: torch.dtype = torch.float32) -> nvrtc.Kernels:
        assert device.type == "cuda"
        return made(op, real)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **_answers(memory_bytes)))
        stack.enter_context(mock.patch.object(nvrtc, "kernels", kernels))
        for name, function in {"clone": _copied, "to": _copied}.items():
            stack.enter_context(mock.patch.object(torch.UntypedStorage, name, function))
        for name in ("_cuda_getDevice", "_cuda_exchangeDevice", "_cuda_maybeExchangeDevice"):
            stack.enter_context(mock.patch.object(torch._C, name, return_value=0, create=True))
        before = held.voxseg_pretend(None)
        stack.callback(held.voxseg_pretend, before)
        yield torch.device("cuda")
        held.voxseg_arrive()


@contextlib.contextmanager
def waits() -> Iterator[list[str]]:
    """Collect what the host waits for the device for, and where in voxseg."""
    found: list[str] = []

    def told(why: bytes) -> None:
        found.append(f"{why.decode()} in {_place()}")

    called = _TOLD(told)
    library().voxseg_tell(called)
    try:
        yield found
    finally:
        library().voxseg_tell(_TOLD())


def _place() -> str:
    """Name the innermost line of voxseg that runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            return f"{path.relative_to(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "no line of voxseg"


def _wait(why: str) -> None:
    library().voxseg_wait(why.encode())


class _Stream(contextlib.AbstractContextManager):
    """The one stream there is, whatever it is called."""

    cuda_stream = 0

    def __init__(self, *_: object, **__: object) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        _wait("a stream")

    def wait_stream(self, _: object) -> None: ...

    def wait_event(self, _: object) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()


class _Event:
    def __init__(self, *_: object, **__: object) -> None:
        self._recorded = False

    def record(self, _: object = None) -> None:
        self._recorded = True

    def synchronize(self) -> None:
        _wait("an event")

    def query(self) -> bool:
        library().voxseg_arrive()
        return True

    def elapsed_time(self, other: "_Event") -> float:
        assert self._recorded
        assert other._recorded
        return 1.0


def _copied(
    storage: torch.UntypedStorage, *, device: Any = None, non_blocking: bool = False
) -> torch.UntypedStorage:
    # torch itself makes storage, for deep copies and files, only on devices it was built for.
    place = storage.device if device is None else torch.device(device)
    made = torch.empty(storage.nbytes(), dtype=torch.uint8, device=place).untyped_storage()
    return made.copy_(storage, non_blocking)


def _answers(memory_bytes: int) -> dict[str, Any]:
    """What ``torch.cuda`` says, without a driver to ask."""

    def synchronize(_: object = None) -> None:
        _wait("the device")

    def constant(value: Any) -> Any:
        return lambda *_, **__: value

    def stream() -> Any:
        return lambda *_, **__: _Stream()

    major, minor = CAPABILITY
    properties = SimpleNamespace(
        name=NAME,
        major=major,
        minor=minor,
        total_memory=memory_bytes,
        multi_processor_count=132,
    )
    return {
        "Event": _Event,
        "Stream": _Stream,
        "_lazy_init": constant(None),
        "_sleep": constant(None),
        "current_device": constant(0),
        "current_stream": stream(),
        "default_generators": (torch.Generator(),),
        "default_stream": stream(),
        "device": type("device", (_Stream,), {}),  # torch asks for instances of it
        "device_count": constant(1),
        "empty_cache": constant(None),
        "get_device_capability": constant(CAPABILITY),
        "get_device_name": constant(NAME),
        "get_device_properties": constant(properties),
        "is_available": constant(True),
        "is_bf16_supported": constant(True),
        "is_current_stream_capturing": constant(False),
        "is_initialized": constant(True),
        "max_memory_allocated": lambda _=None: library().voxseg_most_used(),
        "mem_get_info": lambda _=None: (memory_bytes - library().voxseg_used(), memory_bytes),
        "memory_allocated": lambda _=None: library().voxseg_used(),
        "reset_peak_memory_stats": lambda _=None: library().voxseg_reset_peak(),
        "set_device": constant(None),
        "stream": stream(),
        "synchronize": synchronize,
    }


def _build() -> Path:
    source = HERE / "device.cpp"
    command = [*compiler(), *_FLAGS]
    parts = [source.read_text(), *command, torch.__version__]
    return built(
        parts, lambda path: compile_with([*command, str(source), "-o", str(path), *_LINKED])
    )
