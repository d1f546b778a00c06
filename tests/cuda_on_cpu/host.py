"""Run CUDA kernel files on the CPU: ``shim.h`` makes a C++ compiler understand them.

``on_cpu`` puts ``HostKernels`` in place of ``voxseg.ops.nvrtc.kernels`` for CPU tensors, so that
the launchers of ``voxseg/ops/cuda`` drive the same kernels with the same arguments::

    def test_pool_on_cpu(cuda_on_cpu):
        with cuda_on_cpu.on_cpu(seed=1, mode="race"):
            ...  # call the launcher with CPU tensors

    def test_a_planted_bug_is_found(cuda_on_cpu):
        with cuda_on_cpu.on_cpu(mode="race", mutate=("__syncthreads();", "")):
            with pytest.raises(cuda_on_cpu.LaunchError):
                ...

The fixture ``cuda_on_cpu`` gives this module, or skips where no C++ compiler is found;
VOXSEG_REQUIRE_CXX=1 makes that a failure. ``tests/conftest.py`` imports it for all tests.

Arguments are copied to memory of their own, with poison round them. Plant a wild index in race
mode only, which stops before the access; in plain mode it may spoil the process.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
from torch import Tensor

from voxseg.errors import VoxsegError
from voxseg.files import cache_folder, replacing
from voxseg.ops import nvrtc

from .arena import Arena
from .meter import Meter

HERE = Path(__file__).parent
BUILDS = cache_folder() / "cuda_on_cpu"
"""Where libraries are kept: in the user's cache, shared by processes of a run and by later runs."""

# As on a GPU: no fused multiply-add (see nvrtc.py), and memory is read as what the code says.
_FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-ffp-contract=off"]
_FLAGS += ["-fno-strict-aliasing", "-U_FORTIFY_SOURCE", f"-I{HERE}"]
_RECEIVERS = {"plain": "", "race": "racecheck.cpp", "meter": "meter.cpp"}
"""Who is told about each access."""
_COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)((?:\\\n|.)*)$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|.)*$", re.MULTILINE)
_WAITS = re.compile(r"__\w*sync\w*\Z|__match\w*\Z|cooperative\w*\Z")
_launching = threading.Lock()


@pytest.fixture(scope="session")
def cuda_on_cpu() -> ModuleType:
    """This module, where a C++ compiler is found."""
    compiler()
    return sys.modules[__name__]


class LaunchError(AssertionError):
    """A kernel does what a GPU forbids, or what has no defined result there."""


class HostKernels:
    """The kernels of one file, built for the CPU; called like ``nvrtc.Kernels``.

    Args:
        text: what ``nvrtc.source`` gives, or a test's own kernels behind the prelude.
        real: what the file's type ``real`` is.
        seed: order of threads and blocks; 0 is the natural one.
        mode: "plain", where writes round the arguments are found after the launch; "race", ten to
            twenty times slower, which watches every access for races and for memory that is no
            argument's; "meter", as slow, which counts what is asked of memory, in seed 0 only.
        meter: where it is added up; by default, the kernels' own.
    """

    def __init__(
        self,
        text: str,
        *,
        real: torch.dtype = torch.float32,
        seed: int = 0,
        mode: str = "plain",
        meter: Meter | None = None,
    ) -> None:
        assert mode != "meter" or seed == 0
        self._signatures = nvrtc.signatures(text)
        self._text, self._seed, self._mode, self._real = text, seed, mode, real
        self._path = _build(text, real, mode)
        self._library = _load(self._path)
        self.meter = Meter() if meter is None else meter

    def __call__(
        self,
        name: str,
        grid: tuple[int, ...],
        block: int,
        arguments: Sequence[nvrtc.Argument],
        shared_bytes: int = 0,
    ) -> None:
        if 0 in grid:
            return
        assert shared_bytes <= nvrtc.MOST_SHARED_BYTES
        # Where torch has no CUDA, a tensor that says so lies in the CPU's memory (device.py).
        is_real = torch.version.cuda is not None
        assert not any(is_real and x.is_cuda for x in arguments if isinstance(x, Tensor))
        values = nvrtc.pack(self._signatures[name], arguments, self._real)
        arena = Arena([x for x in arguments if isinstance(x, Tensor)])
        for value, argument in zip(values, arguments, strict=True):
            if isinstance(argument, Tensor) and isinstance(value, ctypes.c_void_p):
                value.value = arena.address(argument)
        with _launching:
            if self._mode != "plain":
                arena.watch(self._library)
            message = self._launch(name, grid, block, values, shared_bytes)
            if self._mode == "meter":
                names = self._tensors(name, arguments)
                self.meter.read(self._library, name, names, self._places, self._text)
        message = message or arena.damage()
        arena.copy_back()
        if message:
            raise LaunchError(f"{name}: {self._explain(message, name, arguments)}")

    def _launch(
        self, name: str, grid: tuple[int, ...], block: int, values: list, shared_bytes: int
    ) -> str:
        function = self._library[f"voxseg_launch_{name}"]
        function.restype = ctypes.c_char_p
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        message = function(
            (ctypes.c_uint * 3)(*(*grid, 1, 1)[:3]),
            ctypes.c_uint(block),
            ctypes.c_size_t(shared_bytes),
            ctypes.c_uint64(self._seed),
            pointers,
        )
        return (message or b"").decode()

    def _explain(self, message: str, name: str, arguments: Sequence[nvrtc.Argument]) -> str:
        """Name arguments as the kernel does, and the line; the race checker knows neither."""
        tensors = self._tensors(name, arguments)
        message = re.sub(r"argument #(\d+)", lambda m: f"argument {tensors[int(m[1])]}", message)
        return re.sub(r"code (0x[0-9a-f]+)", lambda m: self._line(int(m[1], 16)), message)

    def _tensors(self, name: str, arguments: Sequence[nvrtc.Argument]) -> list[str]:
        """Names of the parameters that got a tensor."""
        found = re.search(rf"__global__[^;{{]*?\b{name}\s*\(([^)]*)\)", self._text)
        assert found
        names = [re.findall(r"\w+", parameter)[-1] for parameter in found[1].split(",")]
        return [n for n, x in zip(names, arguments, strict=True) if isinstance(x, Tensor)]

    def _line(self, address: int) -> str:
        """Name the line that a return address belongs to, and who called it."""
        lines = [place.partition(":")[2] for place in _places(self._path, [address])[address]]
        return "line " + ", in line ".join(lines) if lines else hex(address)

    def _places(self, addresses: Sequence[int]) -> dict[int, str]:
        """The innermost line of a kernel file for each return address, like "slic.cu:150"."""
        found = _places(self._path, addresses)
        file = ["kernels.cu", *re.findall(r'^#line 1 "(.+)"$', self._text, re.MULTILINE)][-1]
        lines = {address: (found[address] or [hex(address)])[0] for address in addresses}
        return {at: re.sub(r"^kernels\.cpp:", f"{file}:", line) for at, line in lines.items()}


@contextlib.contextmanager
def on_cpu(
    seed: int = 0, mode: str = "plain", mutate: tuple[str, str] | None = None
) -> Iterator[Meter]:
    """Let ``nvrtc.kernels`` give kernels that run on the CPU, for CPU tensors.

    Gives the meter of all of them, which fills in the mode that is named after it.

    Args:
        seed: see ``HostKernels``.
        mode: see ``HostKernels``.
        mutate: a planted bug: (old, new) text, put into every file that holds the old one. It is
            an error if no file that was used does.
    """
    on_gpu = nvrtc.kernels
    mutated: list[str] = []
    meter = Meter()

    @functools.cache
    def kernels(op: str, device: torch.device, real: torch.dtype = torch.float32) -> nvrtc.Kernels:
        if torch.device(device).type != "cpu":
            return on_gpu(op, device, real)
        text = nvrtc.source(op)
        if mutate and mutate[0] in text:
            mutated.append(op)
            text = text.replace(*mutate)
        return HostKernels(text, real=real, seed=seed, mode=mode, meter=meter)

    with mock.patch.object(nvrtc, "kernels", kernels):
        yield meter
    assert not mutate or mutated, f"no kernel file that was used holds {mutate[0]!r}"


def compiler() -> list[str]:
    """Give the command of the C++ compiler; skip or fail the test without one."""
    for command in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)
    missing = "no C++ compiler: install g++, or name one in CXX"
    if os.environ.get("VOXSEG_REQUIRE_CXX") == "1":
        pytest.fail(f"VOXSEG_REQUIRE_CXX=1, but {missing}")
    pytest.skip(f"{missing}; set VOXSEG_REQUIRE_CXX=1 to make this a failure")


@functools.lru_cache(maxsize=256)
def _build(text: str, real: torch.dtype, mode: str) -> Path:
    """Compile a kernel file to a library in ``BUILDS``, unless it is there."""
    code, receiver = _program(text), _RECEIVERS[mode]
    if mode == "meter":  # as a GPU has it: lanes that part in a round of a loop meet in the next
        code = re.sub(
            r"#pragma unroll\b *(\d*)", lambda m: f"#pragma GCC unroll {m[1] or 64} ", code
        )
    names = ["shim.h", "intrinsics.h", *(["accesses.h", receiver] if receiver else [])]
    sources = [(HERE / name).read_text() for name in names]
    command = [*compiler(), *_FLAGS, f"-DREAL={nvrtc.REALS[real]}", "-DVOXSEG_HOST"]
    command += ["-O1", "-g1", "-DVOXSEG_WATCH"] if receiver else ["-O2"]
    parts = [code, *sources, *command, _version(), platform.machine()]
    return built(parts, lambda path: _compile(code, command, receiver, path))


def built(parts: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Give the library that ``build`` makes of ``parts``, from ``BUILDS`` if it is there.

    A folder that cannot be written costs a compilation, nothing else.
    """
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = BUILDS / f"{key}.so"
    if path.is_file():
        return path
    try:
        with replacing(path) as temporary:
            build(temporary)
    except VoxsegError:
        path = Path(tempfile.mkdtemp(prefix="cuda_on_cpu-")) / path.name
        build(path)
    return path


def _compile(code: str, command: list[str], receiver: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="cuda_on_cpu-") as folder:
        kernels = Path(folder) / "kernels.cpp"
        kernels.write_text(code)
        if not receiver:
            compile_with([*command, "-shared", str(kernels), "-o", str(path)])
            return
        # Instrumented as for the thread sanitizer, but linked with our own receiver of the calls.
        objects = [f"{folder}/kernels.o", f"{folder}/receiver.o"]
        watched = ["-fsanitize=thread", *_volatile_apart()]
        compile_with([*command, *watched, "-c", str(kernels), "-o", objects[0]])
        compile_with([*command, "-O2", "-c", str(HERE / receiver), "-o", objects[1]])
        compile_with([*compiler(), "-shared", *objects, "-o", str(path)])


def _program(text: str) -> str:
    """Put the shim in front of a kernel file and a C entry for each kernel behind it."""
    entries = [
        f'extern "C" __attribute__((visibility("default"))) const char* voxseg_launch_{name}('
        "const unsigned* g, unsigned b, size_t s, uint64_t seed, void** a) {"
        f"return voxseg::launch<{name}>(g, b, s, {int(needs_fibers(text, name))}, seed, a); }}"
        for name in nvrtc.signatures(text)
    ]
    line = "" if text.startswith("#line") else '#line 1 "kernels.cu"'
    return "\n".join(['#include "intrinsics.h"', line, text, *entries, ""])


def needs_fibers(text: str, kernel: str) -> bool:
    """Tell whether a kernel, or anything that it may use, has a barrier or collective.

    Goes by names, so it errs on the side of fibers: overloads and members count as used.
    """
    uses: dict[str, set[str]] = {}
    for names, words in _pieces(_COMMENT.sub(" ", text)):
        for name in names:
            uses.setdefault(name, set()).update(words)
    seen: set[str] = set()
    waiting = {kernel}
    while waiting:
        word = waiting.pop()
        if _WAITS.match(word):
            return True
        seen.add(word)
        waiting |= uses.get(word, set()) - seen
    return False


def _pieces(text: str) -> Iterator[tuple[set[str], set[str]]]:
    """Cut a file into macros and top-level declarations: what each names, and all its words."""
    for name, body in _MACRO.findall(text):
        yield {name}, set(re.findall(r"\w+", body))
    start = depth = 0
    text = _DIRECTIVE.sub("", text)
    for mark in re.finditer(r"[{};]", text):
        depth += {"{": 1, "}": -1, ";": 0}[mark[0]]
        if depth or mark[0] == "{":
            continue
        piece = text[start : mark.end()]
        start = mark.end()
        words = set(re.findall(r"[A-Za-z_]\w*", piece))
        function = re.match(r"[^{}]*?\b(?!__launch_bounds__)(\w+)\s*\([^{}]*\)\s*\{", piece)
        if function and "struct" not in piece.partition("(")[0]:
            yield {function[1]}, words
        else:  # a type, a variable, a namespace: all its words may name it
            yield words - {"const", "static", "struct", "template", "class", "typename"}, words


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def _places(path: Path, addresses: Sequence[int]) -> dict[int, list[str]]:
    """Lines of kernel files that return addresses belong to, each with its callers behind it."""
    command = ["addr2line", "-a", "-i", "-e", str(path), *(hex(a - 1) for a in addresses)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {address: [] for address in addresses}
    # Some compilers name the file that they were given, with the line of the kernel file.
    parts = re.split(r"^0x[0-9a-f]+$", answer, flags=re.MULTILINE)[1:]
    lines = [re.findall(r"([^/\n]*\.(?:cuh?|cpp):\d+)", part) for part in parts]
    return dict(zip(addresses, lines, strict=True))


@functools.cache
def _version() -> str:
    answer = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True)
    return answer.stdout


def _volatile_apart() -> list[str]:
    """Tell volatile accesses, which stand for relaxed atomics, from others."""
    if "clang" in _version():
        return ["-mllvm", "-tsan-distinguish-volatile=1"]
    return ["--param=tsan-distinguish-volatile=1"]


def compile_with(command: list[str]) -> None:
    """Run a compiler; what it says against the source is the error."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LaunchError(f"{command[0]} cannot build it:\n{answer.stderr[:4000]}")
