"""The benchmark of one device, run on the CPU at sizes too small to mean anything."""

import math
from contextlib import nullcontext

import pytest
import torch

from voxseg.bench import device_pool, timing
from voxseg.bench.device import DeviceBench, run_device_bench, tiny
from voxseg.bench.device_network import TO_LABELS, TO_LABELS_WITH_SLIC
from voxseg.bench.device_pool import COPY, PLAN
from voxseg.documents import json_text

CPU = torch.device("cpu")


@pytest.mark.parametrize("what", ["pool", "slic", "voxresnet"])
def test_every_part_runs(what, validate):
    told = []
    result = run_device_bench(what, tiny(DeviceBench()), CPU, told.append)
    assert told == [f"{what} on cpu"]
    assert result.rows
    assert all(list(row) == result.columns for row in result.rows)
    # Standard JSON has no NaN.
    validate(json_text(result.to_json()))


def test_pooling_is_held_against_a_copy_and_its_peers():
    rows = run_device_bench("pool", tiny(DeviceBench()), CPU, lambda _: None).rows
    own = [COPY, PLAN, "voxseg max", "voxseg mean"]
    # Both types of voxseg first, as peers are slow.
    assert [row["method"] for row in rows[:8]] == [*own, *own]
    assert [row["dtype"] for row in rows[:8]] == ["float32"] * 4 + ["bfloat16"] * 4
    held = [row for row in rows if row["method"] in ("voxseg max", "voxseg mean")]
    assert [row["times voxseg"] for row in held] == [1.0] * 4
    assert all(row["forward ms"] > 0 for row in rows)
    names = [row["method"] for row in rows[8:] if row["dtype"] == "float32"]
    assert names[:3] == [
        "voxseg max without a plan", "torch scatter_reduce amax", "torch index_add mean"
    ]  # fmt: skip
    # They compute the same, or the comparison would mean nothing.
    single = [row for row in rows if row["dtype"] == "float32" and row["method"] not in own[:2]]
    assert all(row["largest difference"] < 1e-5 for row in single)


def test_a_peer_that_cannot_run_leaves_an_empty_row(monkeypatch):
    def absent(*_):
        raise NotImplementedError("no kernel for BFloat16")

    labels = torch.arange(4, dtype=torch.int32).repeat(30).view(2, 5, 12)
    pooling = device_pool.Pooling(device_pool.make_case(labels, 3, torch.float32, 0), 2)
    list(pooling.own_rows())
    one = device_pool._Method("absent", "max", absent)
    monkeypatch.setattr(device_pool, "_peers", lambda _: [one])
    (row,) = pooling.peer_rows()
    assert row["method"] == "absent"
    assert math.isnan(row["forward ms"])


def test_slic_agrees_with_itself():
    (row,) = run_device_bench("slic", tiny(DeviceBench()), CPU, lambda _: None).rows
    assert row["same label as the first"] == row["times the first"] == 1.0
    assert row["supervoxels"] > 5


def test_the_branch_has_a_share_and_a_brain_gets_labels():
    rows = run_device_bench("voxresnet", tiny(DeviceBench()), CPU, lambda _: None).rows
    assert [row["what"] for row in rows] == ["V0", "V3", TO_LABELS, TO_LABELS_WITH_SLIC]
    assert math.isnan(rows[0]["share of pooling"])
    share = 1 - rows[0]["ms"] / rows[1]["ms"]
    assert rows[1]["share of pooling"] == pytest.approx(share, abs=0.01)
    assert rows[3]["voxels"] == "16 x 14 x 18"
    assert all(row["ms"] > 0 for row in rows)


def test_calls_that_take_long_are_repeated_less_often(monkeypatch):
    monkeypatch.setattr(timing, "_wall_ms", lambda call: call())
    calls = []

    def take(ms):
        calls.append(ms)
        return ms

    assert timing.milliseconds(lambda: take(10.0), CPU, 20) == 10
    assert len(calls) == 21  # the first is not timed
    calls.clear()
    assert timing.milliseconds(lambda: take(1500.0), CPU, 20) == 1500
    assert len(calls) == 3


def test_a_gpu_is_kept_busy_while_short_calls_are_queued(monkeypatch):
    """On a pretended GPU: what happens in which order, and that events give the time."""
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("event")

        def elapsed_time(self, other):
            return 0.25

    pretended = {
        "Event": Event,
        "device": lambda _: nullcontext(),
        "synchronize": lambda _: said.append("wait"),
        "_sleep": lambda cycles: said.append("sleep") if cycles > 0 else None,
    }
    for name, what in pretended.items():
        monkeypatch.setattr(torch.cuda, name, what)
    ms = timing.milliseconds(lambda: said.append("call"), torch.device("cuda"), 4)
    assert ms == 0.25
    assert said.count("sleep") == 1
    warm, timed = said[: said.index("sleep")], said[said.index("sleep") + 1 :]
    assert warm[-1] == "wait"
    # Nothing waits for the GPU between the calls that are timed.
    assert timed == [*["event", "call", "event"] * 4, "wait"]
