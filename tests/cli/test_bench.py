"""``voxseg bench``: the tables, their JSON, and the process that measures."""

import json
import os
import subprocess
import sys

import pytest
import torch


@pytest.mark.parametrize("what", ["pool", "slic"])
def test_quick_bench_prints_voxseg_and_its_peers(voxseg, what):
    outcome = voxseg("bench", what, "--quick", "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out[outcome.out.index("{") :])
    key = "method" if what == "pool" else "tool"
    names = [row[key] for row in result["rows"]]
    assert any(name.startswith("voxseg") for name in names)
    assert any(name.startswith(("torch", "SimpleITK")) for name in names)
    assert result["machine"]["num_threads"] >= 1


def test_default_memory_measures_in_a_process_without_the_settings():
    words = ["bench", "pool", "--quick", "--json", "--memory", "default"]
    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-m", "voxseg", *words],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert json.loads(done.stdout)["machine"]["huge pages"] == "0"


def test_unknown_benchmarks_and_settings_are_usage_errors(voxseg):
    assert voxseg("bench", "poool").code == 2
    assert voxseg("bench", "pool", "--memory", "fast").code == 2


def test_a_device_that_is_missing_is_refused(voxseg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for what in ("pool", "slic", "voxresnet", "images", "predict", "train"):
        outcome = voxseg("bench", what, "--quick", "--device", "cuda")
        assert outcome.code == 2
        assert "--device cuda was asked for" in outcome.err


def test_a_plot_of_one_device_is_refused(voxseg, tmp_path):
    outcome = voxseg("bench", "pool", "--device", "cuda", "--plot", str(tmp_path / "plot.png"))
    assert outcome.code == 2
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("what", ["pool", "slic"])
def test_a_plot_of_what_is_not_measured_is_refused(what, voxseg, tmp_path):
    outcome = voxseg("bench", what, "--quick", "--plot", str(tmp_path / "plot.png"))
    assert outcome.code == 2
    assert "--plot needs curves, which --quick does not measure" in outcome.err
    assert not (tmp_path / "plot.png").exists()


def test_bench_voxresnet_gives_the_share_of_pooling(voxseg):
    outcome = voxseg("bench", "voxresnet", "--quick", "--json")
    assert outcome.code == 0
    rows = json.loads(outcome.out[outcome.out.index("{") :])["rows"]
    assert [row["what"] for row in rows][:2] == ["V0", "V3"]
    assert rows[1]["share of pooling"] is not None


def test_bench_images_measures_the_parts_asked_for(voxseg, validate):
    outcome = voxseg("bench", "images", "--quick", "--part", "superpixels", "--json")
    assert outcome.code == 0
    rows = validate(outcome.out[outcome.out.index("{") :])["rows"]
    assert [row["method"] for row in rows] == [
        "ENet",
        "ENet + superpixels, given",
        "ENet + superpixels, SLIC included",
    ]
    assert voxseg("bench", "images", "--part", "pooling").code == 2


def test_bench_train_gives_the_share_of_compute(voxseg, validate):
    words = ("--recipe", "ibsr-reduced8-v0", "--workers", "0", "--quick")
    outcome = voxseg("bench", "train", *words, "--json")
    assert outcome.code == 0
    rows = validate(outcome.out[outcome.out.index("{") :])["rows"]
    assert {row["recipe"] for row in rows} == {"ibsr-reduced8-v0"}
    assert rows[1]["measured"] == "training, 0 workers"
    assert rows[1]["compute as a share"] > 0
    assert "compute as a share" in voxseg("bench", "train", *words).out
    assert voxseg("bench", "train", "--recipe", "camvid-enet").code == 2


@pytest.mark.slow  # two processes that load torch
def test_bench_predict_gives_the_stages_of_a_launch(voxseg, forms):
    outcome = voxseg("bench", "predict", "--quick", "--network", "reduced8-v3", "--json")
    assert outcome.code == 0
    result = forms.parse(outcome.out)
    forms.check_document(result)
    [row] = result["rows"]
    assert row["network"] == "reduced8-v3"
    assert 0 < row["supervoxels s"] < row["total s"]
    assert None not in row.values()
