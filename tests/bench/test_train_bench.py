"""The benchmark of training steps, at sizes too small to mean anything."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from voxseg.bench import train as bench_train
from voxseg.bench.heads import prepared_head
from voxseg.bench.train import TrainBench, run_train_bench, tiny
from voxseg.data.normalise import OUTSIDE
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.documents import json_text
from voxseg.errors import UsageError

CPU = torch.device("cpu")


def test_a_head_is_what_training_expects():
    head = prepared_head((24, 20, 22), 0, SupervoxelSettings(size_mm=4.0))
    assert head.image.shape == (1, 24, 20, 22)
    assert head.image.dtype == np.float32
    assert set(np.unique(head.label)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(head.label == 0, head.image[0] == OUTSIDE)
    np.testing.assert_array_equal(head.label == 0, head.superpixels == -1)
    inside = head.image[0][head.label > 0]
    assert inside.mean() == pytest.approx(0, abs=1e-4)
    assert inside.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(
        prepared_head((24, 20, 22), 0, None).image, head.image
    )  # the same seed
    assert not np.array_equal(prepared_head((24, 20, 22), 1, None).image, head.image)


@pytest.mark.slow  # a worker loads torch and MONAI
def test_steps_are_held_against_pure_compute(validate):
    told = []
    result = run_train_bench(tiny(TrainBench(workers=(0, 1))), CPU, told.append)
    validate(json_text(result.to_json()))
    rows = {row["measured"]: row for row in result.rows}
    names = list(rows)
    assert names[0].startswith("compute alone, ")
    assert names[1:5] == [
        "training, 0 workers",
        "training, 1 worker",
        "making a batch, one core",
        "  without augmentation",
    ]
    assert len(names) == 7
    pure = rows[names[0]]
    assert pure["compute as a share"] == 1
    for name in (*names[1:3], *names[5:]):
        share = pure["ms"] / rows[name]["ms"]
        assert rows[name]["compute as a share"] == pytest.approx(share, abs=0.01)
    assert all(row["ms"] > 0 and row["CPU ms"] > 0 for row in result.rows)
    assert math.isnan(rows["making a batch, one core"]["compute as a share"])
    assert told[0] == "ibsr-reduced8-v3 on cpu"


def test_without_monai_patches_are_not_varied(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    told = []
    config = bench_train._config("ibsr-reduced8-v3", {}, told.append)
    assert told == ["MONAI is not installed: patches are not varied here"]
    assert config.augment.flip_axes == ()
    assert config.augment.affine_probability == config.augment.intensity_probability == 0


def test_torch_compile_is_left_out_where_there_is_no_compiler(monkeypatch):
    monkeypatch.setattr(bench_train.shutil, "which", lambda _: None)
    told = []
    bench = tiny(TrainBench(compile=True, variants=False))
    result = run_train_bench(bench, CPU, told.append)
    assert told[-1] == "there is no C++ compiler: torch.compile is not measured"
    assert not any("torch.compile" in str(row["measured"]) for row in result.rows)


@pytest.mark.parametrize("recipe", ["camvid-enet", "hippocampus-pixelnet", "ibsr-2d-enet"])
def test_networks_of_pictures_are_refused(recipe):
    with pytest.raises(UsageError, match="bench train measures networks of whole volumes"):
        run_train_bench(tiny(TrainBench(recipes=(recipe,))), CPU, lambda _: None)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match="there is no recipe 'ibsr-reduced8'"):
        run_train_bench(TrainBench(recipes=("ibsr-reduced8",)), CPU, lambda _: None)
