"""Networks for images against what they are made from, at sizes too small to mean anything."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch
from torch import nn

from voxseg.bench import images, timing
from voxseg.bench.images import QUICK, dilated, run_images_bench
from voxseg.bench.timing import costs_in_turns
from voxseg.documents import json_text
from voxseg.layers import VortexPooling
from voxseg.models import FCN, SplitMergeFCN
from voxseg.models.cost import live_bytes

CPU = torch.device("cpu")
TINY = replace(
    QUICK,
    enet_size=(40, 64),
    superpixels=30,
    split_size=(32, 32),
    map_size=(9, 7),
    map_channels=16,
    deeplab_size=(17, 17),
    rounds=1,
)


@pytest.fixture(scope="module")
def result():
    return run_images_bench(TINY, CPU)


def by_name(result):
    return {row["method"]: row for row in result.rows}


def test_every_method_stands_against_its_peer(result, validate):
    assert [(row["method"], row["against"]) for row in result.rows] == [
        ("ENet", ""),
        ("ENet + superpixels, given", "ENet"),
        ("ENet + superpixels, SLIC included", "ENet"),
        ("dilated, at once", ""),
        ("SMP, depth first", "dilated, at once"),
        ("ASPP", ""),
        ("ASPP+", "ASPP"),
        ("Module B, chained", "ASPP"),
        ("Module B, convolution first", "ASPP"),
        ("Module B, plain average pooling", "ASPP"),
        ("DeepLabv3, ASPP", ""),
        ("DeepLabv3, vortex pooling", "DeepLabv3, ASPP"),
        ("hypercolumns of all pixels", ""),
        ("100 pixels of each image", "hypercolumns of all pixels"),
    ]
    rows = by_name(result)
    for row in result.rows:
        peer = rows[row["against"] or row["method"]]
        assert row["times its ms"] == pytest.approx(row["ms"] / peer["ms"], rel=0.05)
        assert row["times its MB"] == pytest.approx(row["peak MB"] / peer["peak MB"], rel=0.01)
        assert row["peak of"] == "live tensors"
    content = validate(json_text(result.to_json()))
    today = datetime.now(UTC).date()
    assert content["date"] in {str(today), str(today - timedelta(1))}
    assert content["machine"]["torch"] == torch.__version__


def test_rows_say_sizes_and_what_is_asked(result):
    rows = by_name(result)
    assert rows["ENet + superpixels, given"]["size"].startswith("40 x 64, ")
    assert rows["SMP, depth first"]["size"] == "32 x 32, ResNet-18"
    assert rows["ASPP"]["size"] == "9 x 7 x 16"
    asked = {name: (row["ms asked"], row["MB asked"]) for name, row in rows.items()}
    assert asked["ENet + superpixels, given"] == (1.18, "")
    assert asked["SMP, depth first"] == (1.1, 0.333)
    assert asked["Module B, chained"] == (1.1, "")
    assert asked["ENet"] == ("", "")
    assert rows["100 pixels of each image"]["size"] == "2 of 48 x 64, 3 layers, training"
    assert asked["100 pixels of each image"] == (0.2, 0.2)


def test_depth_first_takes_a_third_of_the_memory(result):
    assert 0 < by_name(result)["SMP, depth first"]["times its MB"] < 1 / 3


def test_the_dilated_network_is_halved_until_it_fits():
    told = []
    fits = live_bytes(dilated(FCN(3, 19, depth=18)), (1, 3, 32, 32))
    bench = replace(TINY, parts=("split-merge",), split_size=(128, 128), most_bytes=1.3 * fits)
    rows = run_images_bench(bench, CPU, told.append).rows
    assert {row["size"] for row in rows} == {"32 x 32, ResNet-18"}
    assert len(told) == 3
    assert "are free: half the size is measured" in told[-1]


@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_network_answers_as_split_merge_pooling(depth):
    torch.manual_seed(0)
    network = FCN(3, 5, depth=depth, widths=(4, 4, 8, 8)).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    split = SplitMergeFCN(3, 5, depth=depth, widths=(4, 4, 8, 8)).double().eval()
    split.network.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(network)(image), split(image), rtol=1e-10, atol=1e-10)
    assert network.backbone.conv1.stride == (2, 2)


def test_plain_pooling_answers_as_chained():
    torch.manual_seed(0)
    module = VortexPooling(6, channels=4).eval()
    features = torch.randn(1, 6, 11, 9)
    with torch.no_grad():
        torch.testing.assert_close(images._plain(module, features), module(features))


def test_costs_count_calls_and_bytes(device, monkeypatch):
    calls = {"small": 0, "large": 0}

    def call(name, number):
        calls[name] += 1
        return (torch.zeros(number, device=device) + 1).sum()

    both = {"small": lambda: call("small", 2**10), "large": lambda: call("large", 2**16)}
    costs = costs_in_turns(both, device, rounds=3)
    assert calls == {"small": 4, "large": 4}
    for name, number in (("small", 2**10), ("large", 2**16)):
        # Two of them at once; a sum beside them, and what an allocator rounds up.
        assert 0 <= costs[name].peak_bytes - 2 * 4 * number <= 1024
        assert costs[name].ms > 0
    monkeypatch.setattr(timing, "_LONG_MS", 0.0)
    costs = costs_in_turns({"small": both["small"]}, device, rounds=3)
    assert calls["small"] == 5
    assert costs["small"].ms > 0
