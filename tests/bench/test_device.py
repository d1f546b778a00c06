"""The benchmark of one device, run on the CPU at sizes too small to mean anything."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from voxseg.bench import gpu
from voxseg.bench.device import DeviceBench, run_device_bench, tiny
from voxseg.documents import json_text

ROOT = Path(__file__).parents[2]
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
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    names = [row["method"] for row in rows if row["dtype"] == "float32"]
    assert names[:4] == ["copy of the features", "plan of the labels", "voxseg max", "voxseg mean"]
    own = [row for row in rows if row["method"] in ("voxseg max", "voxseg mean")]
    assert [row["times voxseg"] for row in own] == [1.0] * 4
    assert all(row["forward ms"] > 0 for row in rows)


def test_slic_agrees_with_itself():
    (row,) = run_device_bench("slic", tiny(DeviceBench()), CPU, lambda _: None).rows
    assert row["same label as the CPU"] == 1.0
    assert row["supervoxels"] > 5


def test_the_branch_has_a_share():
    rows = run_device_bench("voxresnet", tiny(DeviceBench()), CPU, lambda _: None).rows
    assert [row["design"] for row in rows] == ["V0", "V3"]
    assert math.isnan(rows[0]["share of pooling"])
    assert rows[1]["share of pooling"] < 1


def test_gpu_says_when_there_is_none(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert capsys.readouterr().out == (
        "error: torch sees no CUDA device; this needs a machine with a GPU\n"
    )


def test_gpu_small_runs_every_part(capsys):
    assert gpu.main(["--small", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for title in ("Superpixel pooling", "SLIC", "VoxResNet", "Training steps"):
        assert title in out


# What make gpu may do without, because a machine with a GPU need not have it.
BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "monai", "nibabel", "SimpleITK", "nilearn", "tensorboard", "jsonschema", "pydicom",
            "highdicom", "packaging", "PIL", "pandas", "sklearn", "xdist",
        }:
            raise ImportError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["voxseg.bench.gpu", "--small", "--device", "cpu"],
        ["pytest", "-q", "-m", "cuda", "--collect-only", *(str(ROOT / p) for p in gpu._TESTS)],
    ],
    ids=["benchmarks", "tests"],
)
def test_gpu_needs_neither_monai_nor_nibabel(words, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_gpu_writes_what_it_measured(tmp_path, monkeypatch, capsys, validate):
    monkeypatch.setattr(gpu, "DeviceBench", lambda: tiny(DeviceBench()))
    monkeypatch.setattr(gpu, "_tests", lambda: "failed: 1 failed, 2 passed")
    path = tmp_path / "cpu.json"
    assert gpu.main(["--device", "cpu", "--output", str(path)]) == 1
    content = validate(path.read_text())
    assert content["checks"]["tests"] == "failed: 1 failed, 2 passed"
    assert len(content["results"]) == 4
    assert content["results"][0]["machine"]["torch"] == torch.__version__
    assert "tests: failed: 1 failed" in capsys.readouterr().out
