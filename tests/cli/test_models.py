"""``voxseg models``: the table and its JSON."""

import io
import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from voxseg.cli import console as terminal
from voxseg.cli.models import models
from voxseg.models import MODELS

app = typer.Typer()
app.command()(models)


def call(*words):
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "220"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_json_lists_every_model():
    content = json.loads(call("--json").stdout)
    assert [row["name"] for row in content["models"]] == list(MODELS)
    rows = {row["name"]: row for row in content["models"]}
    assert rows["voxresnet-full-scores-v0"]["parameters"] == 6_930_000
    assert rows["voxresnet-full-scores-v0"]["receptive_field"] == [131, 131, 131]
    assert rows["voxresnet-reduced4-v3"]["parameters"] == 51_500
    assert rows["voxresnet-full-v3"]["auxiliary_parameters"] == 27_664
    assert rows["voxresnet-full-v3"]["spatial_dims"] == 3
    assert rows["enet-v0"]["spatial_dims"] == 2
    assert rows["enet-v0"]["receptive_field"] == [1217, 1217]
    assert rows["deeplab-resnet50-vortex"]["spatial_dims"] == 2
    assert rows["smp-resnet18"]["spatial_dims"] == 2
    assert rows["smp-resnet18"]["receptive_field"] == [431, 431]


def test_volumes_leave_out_networks_for_images():
    rows = json.loads(call("--json", "--spatial-dims", "3").stdout)["models"]
    names = [row["name"] for row in rows]
    assert "enet-v0" not in names
    assert "deeplab-resnet50-vortex" not in names
    assert names == [name for name, entry in MODELS.items() if 3 in entry.spatial_dims]


def test_options_change_the_counts():
    content = json.loads(
        call("--json", "--in-channels", "2", "--classes", "7", "--spatial-dims", "2").stdout
    )
    assert (content["in_channels"], content["classes"], content["spatial_dims"]) == (2, 7, 2)
    rows = {row["name"]: row for row in content["models"]}
    v0, v3 = rows["voxresnet-reduced8-v0"], rows["voxresnet-reduced8-v3"]
    assert v3["parameters"] - v0["parameters"] == 8 * 7
    assert v0["receptive_field"] == [23, 23]


def test_table_shows_name_count_field_and_paper(monkeypatch):
    page = io.StringIO()
    monkeypatch.setattr(terminal, "out", Console(file=page, width=220))
    assert call().exit_code == 0
    lines = page.getvalue().splitlines()
    (line,) = [line for line in lines if "voxresnet-full-scores-v0" in line]
    for word in ("6,930,000", "131 x 131 x 131", "arXiv:1608.05895", "classical"):
        assert word in line
    (line,) = [line for line in lines if "enet-v3" in line and "voxresnet" not in line]
    for word in ("1217 x 1217", "arXiv:1606.02147", "Figure 10"):
        assert word in line
    (line,) = [line for line in lines if "deeplab-resnet50-vortex" in line]
    for word in ("43,232,196", "arXiv:1804.06242"):
        assert word in line
    (line,) = [line for line in lines if "fcn32s-resnet50" in line]
    for word in ("427 x 427", "arXiv:1411.4038"):
        assert word in line
    assert [name for name in MODELS if not any(name in line for line in lines)] == []


@pytest.mark.parametrize("words", [("--spatial-dims", "4"), ("--classes", "0")], ids=str)
def test_models_rejects_impossible_options(words):
    assert call(*words).exit_code == 2
