"""The figures to reach, held against a made-up run."""

import math

import pytest

from voxseg.bench.bars import BARS, judged


def pool(method, forward, both=None, dtype="float32", share=None):
    return {
        "method": method,
        "dtype": dtype,
        "forward ms": forward,
        "forward + backward ms": both,
        "share of bandwidth": share,
    }


RUN = {
    "pool": [
        pool("copy of the features", 1.0, share=1.0),
        pool("plan of the labels", 2.5),
        pool("voxseg max", 0.7, 1.4, share=0.75),
        pool("voxseg mean", 0.6, 1.6, share=0.8),
        pool("voxseg max", 0.5, 0.9, dtype="bfloat16", share=0.6),
        pool("voxseg max without a plan", 0.9, 2.0),
        pool("torch scatter_reduce amax", 7.0, 14.0),
        pool("torch index_add mean", 6.0, 16.0),
        pool("the paper's design, max", 4.2),
        pool("torch_scatter mean", 3.0, 8.0),
        pool("torch index_add mean", 0.01, 0.01, dtype="bfloat16"),
    ],
    "slic": [
        {"device": "cuda", "ms": 5.0, "times the first": 1.0},
        {"device": "cpu", "ms": 900.0, "times the first": 180.0},
    ],
    "voxresnet": [
        {"what": "V0", "ms": 20.0, "share of pooling": None},
        {"what": "V3", "ms": 20.5, "share of pooling": 0.0244},
        {"what": "V3, array to labels", "ms": 90.0, "share of pooling": None},
    ],
}
EXPECTED = {
    "max pool forward, float32": (0.7, True),
    "the same, of copy bandwidth": (75, True),
    "max pool forward, bfloat16": (0.5, False),
    "max pool forward + backward, float32": (1.4, True),
    "mean pool forward + backward, float32": (1.6, False),
    "building the plan": (2.5, True),
    "best peer, max forward": (6.0, False),  # the paper's design
    "best peer, max forward + backward": (10.0, True),
    "best peer, mean forward": (5.0, True),
    "best peer, mean forward + backward": (5.0, True),
    "SLIC with connectivity": (5.0, True),
    "SLIC, against this CPU": (180.0, False),
    "pooling's share of VoxResNet V3": (2.44, True),
    "whole brain, array to labels": (0.09, True),
    "whole brain, array to labels with SLIC": (None, None),
}


def test_every_bar_is_judged():
    rows = {row["what"]: row for row in judged(RUN, True)}
    assert list(rows) == list(EXPECTED) == [bar.what for bar in BARS]
    for what, (measured, met) in EXPECTED.items():
        assert rows[what]["measured"] == (None if measured is None else pytest.approx(measured))
        assert rows[what]["met"] is met, what
    assert rows["max pool forward, float32"]["bar"] == "at most 0.75 ms"
    assert rows["best peer, mean forward"]["bar"] == "at least 5 times"


def test_a_floor_is_what_the_memory_allows():
    rows = {row["what"]: row for row in judged(RUN, True)}
    assert rows["max pool forward, float32"]["floor"] == pytest.approx(0.7 * 0.75)
    assert rows["max pool forward + backward, float32"]["floor"] == pytest.approx(1.4 * 0.75)
    assert rows["max pool forward, bfloat16"]["floor"] == pytest.approx(0.3)
    assert rows["SLIC with connectivity"]["floor"] is None


@pytest.mark.parametrize(("measured", "on_gpu"), [({}, True), (RUN, False)], ids=["none", "cpu"])
def test_nothing_is_compared_where_nothing_was_measured(measured, on_gpu):
    for row in judged(measured, on_gpu):
        assert (row["measured"], row["floor"], row["met"]) == (None, None, None)


def test_a_broken_row_is_no_figure():
    run = {**RUN, "pool": [pool("voxseg max", math.nan, None)]}
    rows = {row["what"]: row for row in judged(run, True)}
    assert rows["max pool forward, float32"]["met"] is None
    assert rows["best peer, max forward"]["met"] is None
