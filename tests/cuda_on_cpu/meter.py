"""What kernels ask of a GPU's memory, counted on the CPU: the mode ``meter`` of ``host.py``.

``meter.cpp`` says what is counted and what is not. A row is what one line of a kernel does to one
argument, or to shared memory, with accesses of one width::

    with cuda_on_cpu.on_cpu(mode="meter") as meter:
        ...  # call the launcher with CPU tensors
    print(meter)
    assert meter.total("max_tiles", where="features").waste < 1.1
"""

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

KINDS = ("load", "store", "atomic")
SHARED = "shared"
_LINE = re.compile(r'#line (\d+) "([^"]+)"')
_WIDTH = 14  # numbers in a Row of meter.cpp


@dataclass(frozen=True)
class Traffic:
    """Requests and what they cost; a request is what the lanes of a warp ask for together."""

    kernel: str = ""
    line: str = ""
    """Like "slic.cu:150"; of a function that is called, its own line."""
    text: str = ""
    """What that line says."""
    where: str = ""
    """Name of the argument, or "shared"."""
    kind: str = ""
    width: int = 0
    """Bytes that a lane asks for at once."""
    requests: int = 0
    lanes: int = 0
    """That take part, over all requests."""
    bytes: int = 0
    """Asked for; what several lanes of a request ask for counts once."""
    least: int = 0
    """The fewest sectors, or wavefronts, that these bytes would take."""
    sectors: int = 0
    """Of 32 bytes of global memory, touched by each request."""
    lines: int = 0
    """Of 128 bytes, in the same way."""
    fresh: int = 0
    """Sectors that no request of the launch had loaded (or, for stores, stored to) before."""
    wavefronts: int = 0
    """Of shared memory: turns that its banks take."""
    serial: int = 0
    """Of atomics: the most lanes at one address, summed over requests."""
    deepest: int = 0
    """Of atomics: the most lanes at one address in any request."""

    @property
    def waste(self) -> float:
        """Sectors, or wavefronts, over the fewest possible; 1 is perfect."""
        return (self.sectors + self.wavefronts) / max(self.least, 1)

    def plus(self, other: "Traffic") -> "Traffic":
        """Add up what is counted; of what names the row, keep what both have."""
        joined: dict[str, Any] = {"deepest": max(self.deepest, other.deepest)}
        for name in _NAMES:
            own = getattr(self, name)
            joined[name] = own if own == getattr(other, name) else type(own)()
        for name in _COUNTS:
            joined[name] = getattr(self, name) + getattr(other, name)
        return Traffic(**joined)


_NAMES = tuple(field.name for field in fields(Traffic))[:6]
_COUNTS = tuple(field.name for field in fields(Traffic))[6:-1]


class Meter:
    """The rows of all launches that it was there for."""

    def __init__(self) -> None:
        self.rows: list[Traffic] = []

    def read(
        self,
        library: ctypes.CDLL,
        kernel: str,
        names: Sequence[str],
        lines: Callable[[Sequence[int]], Mapping[int, str]],
        text: str,
    ) -> None:
        """Add what the last launch of a library did.

        Args:
            library: a kernel file, linked with ``meter.cpp``.
            kernel: the one that was launched.
            names: of its tensor arguments.
            lines: finds the line of a kernel file that an address in the library belongs to.
            text: of the kernel file.
        """
        function = library.voxseg_meter_rows
        function.restype, function.argtypes = ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_size_t)
        table = np.zeros((function(None, 0), _WIDTH), np.int64)
        function(table.ctypes.data, len(table))
        places, texts = lines(table[:, 0].tolist()), _texts(text)
        joined: dict[tuple, Traffic] = {}
        for code, kind, tensor, width, *counts in table.tolist():
            line = places[code]
            row = Traffic(
                *(kernel, line, texts.get(line, "")),
                *(names[tensor] if tensor >= 0 else SHARED, KINDS[kind], width),
                *counts,
            )
            key = line, row.where, kind, width
            joined[key] = joined[key].plus(row) if key in joined else row
        self.rows += joined.values()

    def total(self, kernel: str = "", **wanted: str | int) -> Traffic:
        """Add up the rows of a kernel, or of all, that have these values.

        It is an error if there is none: a test of nothing would pass.
        """
        rows = [
            row
            for row in self.rows
            if kernel in ("", row.kernel)
            and all(getattr(row, name) == value for name, value in wanted.items())
        ]
        assert rows, f"no access by {kernel or 'any kernel'} with {wanted}"
        total = rows[0]
        for row in rows[1:]:
            total = total.plus(row)
        return total

    def __str__(self) -> str:
        """Give a table of all rows, launches of a kernel added up."""
        joined: dict[tuple, Traffic] = {}
        for row in self.rows:
            key = row.kernel, row.line, row.where, row.kind, row.width
            joined[key] = joined[key].plus(row) if key in joined else row
        head = "kernel line where kind width requests lanes waste sectors fresh wavefronts serial"
        table = [head.split()]
        for key in sorted(joined):
            row = joined[key]
            table.append(
                [row.kernel, row.line, row.where, row.kind, str(row.width), str(row.requests)]
                + [f"{row.lanes / row.requests:.1f}", f"{row.waste:.2f}"]
                + [str(n or "") for n in (row.sectors, row.fresh, row.wavefronts, row.serial)]
            )
        sizes = [max(map(len, column)) for column in zip(*table, strict=True)]
        texts = ["", *(joined[key].text for key in sorted(joined))]
        return "\n".join(
            "  ".join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True))
            + "  "
            + text
            for cells, text in zip(table, texts, strict=True)
        )


def _texts(text: str) -> dict[str, str]:
    """Each line of a file that ``nvrtc.source`` has put together, by its name and number."""
    found, name, number = {}, "kernels.cu", 1
    for line in text.splitlines():
        if mark := _LINE.match(line):
            number, name = int(mark[1]), mark[2]
            continue
        found[f"{name}:{number}"] = line.strip()
        number += 1
    return found
