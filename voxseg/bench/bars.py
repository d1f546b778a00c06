"""What the GPU is asked to reach, and whether a run of ``make gpu`` reached it.

Figures are for 256x128x256 voxels and 64 channels on an H200 or like it: pooling over SLIC
supervoxels, about 5,000 of them, with the plan built; SLIC of 2,000 supervoxels, 10 iterations and
connectivity; VoxResNet V3, full, in bfloat16, pooling's share over 160x192x160 voxels and a whole
brain of 144x112x130.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxseg.bench.device_network import TO_LABELS, TO_LABELS_WITH_SLIC
from voxseg.bench.device_pool import OWN, PLAN

Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""Benchmark -> its rows, as they are read from JSON."""

_FORWARD, _BOTH = "forward ms", "forward + backward ms"
_SHARE = "share of bandwidth"


@dataclass(frozen=True)
class Bar:
    """One figure to reach."""

    what: str
    unit: str
    value: float
    find: Callable[[Measured], float]
    """Gives what was measured; NaN for nothing."""
    at_least: bool = False
    floor: Callable[[Measured], float] = lambda _: math.nan
    """Gives what the memory's speed, measured beside it, allows at best; NaN where nothing does."""


def judged(measured: Measured, on_gpu: bool) -> list[dict[str, Any]]:
    """Hold what was measured against every bar.

    Args:
        measured: Rows of the benchmarks that there are.
        on_gpu: False: nothing is compared, for the figures are not a CPU's.

    Returns:
        A row a bar: ``met`` is None where nothing was measured.
    """
    rows = []
    for bar in BARS:
        found, floor = (bar.find(measured), bar.floor(measured)) if on_gpu else (math.nan,) * 2
        met = found >= bar.value if bar.at_least else found <= bar.value
        rows.append(
            {
                "what": bar.what,
                "bar": f"{'at least' if bar.at_least else 'at most'} {bar.value:g} {bar.unit}",
                "measured": _known(found),
                "unit": bar.unit,
                "floor": _known(floor),
                "met": None if math.isnan(found) else bool(met),
            }
        )
    return rows


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


def _cell(measured: Measured, part: str, column: str, **wanted: str) -> float:
    """Give a number of the row that has these cells; NaN if there is none."""
    for row in measured.get(part, ()):
        if all(row.get(key) == value for key, value in wanted.items()):
            return _number(row.get(column))
    return math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _pool(column: str, method: str, dtype: str = "float32") -> Callable[[Measured], float]:
    return lambda measured: _cell(measured, "pool", column, method=method, dtype=dtype)


def _floor(method: str, dtype: str, passes: int) -> Callable[[Measured], float]:
    """Bytes by bandwidth: features and labels are read once, or written once more on the way."""

    def floor(measured: Measured) -> float:
        share, ms = (_pool(column, method, dtype)(measured) for column in (_SHARE, _FORWARD))
        return passes * share * ms

    return floor


def _best_peer(reduce: str, column: str) -> Callable[[Measured], float]:
    """Times voxseg's own milliseconds that the fastest other way takes."""
    own = OWN[reduce]

    def find(measured: Measured) -> float:
        ours = _pool(column, own)(measured)
        others = _least(
            _number(row.get(column))
            for row in measured.get("pool", ())
            if row["dtype"] == "float32" and _computes(str(row["method"])) == reduce
        )
        return others / ours

    return find


def _computes(method: str) -> str:
    """What a peer computes; nothing for what is voxseg's or no pooling."""
    if method.startswith("voxseg"):
        return ""
    return "max" if "max" in method else "mean" if "mean" in method else ""


def _least(values: Iterable[float]) -> float:
    return min((value for value in values if not math.isnan(value)), default=math.nan)


def _slic_ms(measured: Measured) -> float:
    rows = measured.get("slic", ())
    return _number(rows[0]["ms"]) if rows else math.nan


def _times_the_cpu(measured: Measured) -> float:
    return _cell(measured, "slic", "times the first", device="cpu")


def _seconds(what: str) -> Callable[[Measured], float]:
    return lambda measured: _cell(measured, "voxresnet", "ms", what=what) / 1e3


def _pooling_percent(measured: Measured) -> float:
    return 100 * _cell(measured, "voxresnet", "share of pooling", what="V3")


def _percent_of_bandwidth(measured: Measured) -> float:
    return 100 * _pool(_SHARE, OWN["max"])(measured)


_HALF = "bfloat16"
BARS = (
    Bar("max pool forward, float32", "ms", 0.75, _pool(_FORWARD, OWN["max"]),
        floor=_floor(OWN["max"], "float32", 1)),
    Bar("the same, of copy bandwidth", "%", 65, _percent_of_bandwidth, at_least=True),
    Bar("max pool forward, bfloat16", "ms", 0.42, _pool(_FORWARD, OWN["max"], _HALF),
        floor=_floor(OWN["max"], _HALF, 1)),
    Bar("max pool forward + backward, float32", "ms", 1.5, _pool(_BOTH, OWN["max"]),
        floor=_floor(OWN["max"], "float32", 2)),
    Bar("mean pool forward + backward, float32", "ms", 1.5, _pool(_BOTH, OWN["mean"]),
        floor=_floor(OWN["mean"], "float32", 2)),
    Bar("building the plan", "ms", 3, _pool(_FORWARD, PLAN)),
    Bar("best peer, max forward", "times", 8, _best_peer("max", _FORWARD), at_least=True),
    Bar("best peer, max forward + backward", "times", 8, _best_peer("max", _BOTH), at_least=True),
    Bar("best peer, mean forward", "times", 5, _best_peer("mean", _FORWARD), at_least=True),
    Bar("best peer, mean forward + backward", "times", 5, _best_peer("mean", _BOTH),
        at_least=True),
    Bar("SLIC with connectivity", "ms", 5, _slic_ms),
    Bar("SLIC, against this CPU", "times", 200, _times_the_cpu, at_least=True),
    Bar("pooling's share of VoxResNet V3", "%", 3, _pooling_percent),
    Bar("whole brain, array to labels", "s", 0.2, _seconds(TO_LABELS)),
    Bar("whole brain, array to labels with SLIC", "s", 0.2, _seconds(TO_LABELS_WITH_SLIC)),
)  # fmt: skip
"""In the order in which they are looked at."""
