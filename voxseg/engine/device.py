"""Where a run computes, in which precision and memory layout."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from voxseg.engine.ranks import ALONE, Ranks
from voxseg.engine.shallow import ShallowInFloat32
from voxseg.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Layout = Literal["auto", "channels_last", "contiguous"]

_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Compute:
    """A device with the precision and layout that suit it."""

    device: torch.device
    precision: torch.dtype
    """Of the forward pass: float32, or a half type under autocast."""
    memory_format: torch.memory_format
    ranks: Ranks = ALONE
    """The processes that train together, this one among them."""

    @property
    def sharing(self) -> int:
        """Processes that share this device's memory."""
        return self.ranks.launch.local_size if self.device.type == "cpu" else 1

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Run in ``precision``; on a CPU without what is wrong there, see ``shallow``."""
        enabled = self.precision is not torch.float32
        kind = self.precision if enabled else None
        guard = ShallowInFloat32() if enabled and self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, dtype=kind, enabled=enabled), guard:
            yield

    def place(self, model: nn.Module) -> None:
        """Move a model here, in this memory layout, in place."""
        model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]  # torch's stub lacks memory_format alone


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:N", "gpu", "gpu:N" or "mps" into a device that exists.

    Raises:
        UsageError: the device asked for is absent; there is no silent fall back to the CPU.
    """
    name = name.replace("gpu", "cuda")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is none of auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(
                f"--device {name} was asked for, but torch {torch.__version__} sees {count} CUDA "
                "devices; use --device cpu, or install torch with CUDA ('voxseg doctor' tells more)"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps was asked for, but this torch has no MPS; use --device cpu")
    return device


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (Linux tells; elsewhere: no)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def choose_compute(
    device: torch.device,
    precision: Precision,
    memory_format: Layout,
    dims: int,
    ranks: Ranks = ALONE,
) -> Compute:
    """Resolve "auto" for ``device``.

    Precision: bfloat16 on GPUs that have it, else float16 on CUDA; on CPUs bfloat16 only with AMX
    or AVX512-BF16 (a training step was measured 1.5 to 2 times as fast with them, and nearly 3
    times slower without). Layout: channels-last, nearly twice as fast on CPUs.
    """
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision == "auto":
        chosen = torch.float32
        if device.type == "cuda":
            chosen = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        elif device.type == "cpu" and cpu_has_bfloat16():
            chosen = torch.bfloat16
    else:
        chosen = kinds[precision]
    if chosen is torch.float16 and device.type != "cuda":
        raise UsageError("train.precision float16 needs CUDA; use float32 or bfloat16")
    last = torch.channels_last_3d if dims == 3 else torch.channels_last
    layout = torch.contiguous_format if memory_format == "contiguous" else last
    return Compute(device, chosen, layout, ranks)


@contextlib.contextmanager
def deterministic(wanted: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Let torch choose algorithms whose results repeat bit by bit, at some cost in speed.

    Where an op has none, it runs all the same and ``say`` is told its name afterwards. On a CPU
    results depend on the number of threads besides, on a GPU on its model.
    """
    if not wanted:
        yield
        return
    # What cuBLAS needs for it; it reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_on = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its properties are not in torch's types
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # every element is written anyway
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned)
        memory.fill_uninitialized_memory = filled
    names = set()
    for warning in caught:
        found = _NOT_DETERMINISTIC.match(str(warning.message))
        if found:
            names.add(found[1])
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    for name in sorted(names):
        say(f"{name} has no deterministic form here: results may differ in their last bits")
