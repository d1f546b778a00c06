"""``voxseg models``: the table and its JSON."""

import io
import json
import re
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from voxseg import models as library
from voxseg.cli import console as terminal
from voxseg.cli.models import models
from voxseg.models import MODELS

app = typer.Typer()
app.command()(models)
GOLDEN = {
    name: count
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*_parameters.json"))
    for name, count in json.loads(path.read_text())["inference"].items()
}


def call(*words):
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "220"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows_of(*words):
    return {row["name"]: row for row in json.loads(call("--json", *words).stdout)["models"]}


@pytest.fixture(scope="module")
def everything():
    """The document about all networks, which takes seconds."""
    return call("--json").stdout


@pytest.fixture
def few(monkeypatch):
    """Only the cheapest networks are listed."""
    names = ("voxresnet-reduced8-v0", "voxresnet-reduced8-v3", "enet-v0", "enet-v3", "sunet-64")
    monkeypatch.setattr(library, "MODELS", {name: MODELS[name] for name in names})


@pytest.fixture
def page(monkeypatch):
    """Let the table go to a terminal of so many columns, or to a file; return what it holds."""

    def show(width=None):
        text = io.StringIO()
        console = Console(file=text, width=width or 80, force_terminal=width is not None)
        monkeypatch.setattr(terminal, "out", console)
        assert call().exit_code == 0
        return text.getvalue()

    return show


def test_json_lists_every_model_as_in_its_paper(everything, validate):
    content = validate(everything)
    assert (content["in_channels"], content["classes"], content["spatial_dims"]) == (None,) * 3
    assert [row["name"] for row in content["models"]] == list(MODELS)
    rows = {row["name"]: row for row in content["models"]}
    # The golden counts of ENet have 19 classes; the published network has 20.
    enet = {"enet-v0": 364_712, "enet-v1": 364_712, "enet-v2": 363_752, "enet-v3": 365_052}
    assert {name: row["parameters"] for name, row in rows.items()} == GOLDEN | enet
    assert rows["voxresnet-full-v3"]["auxiliary_parameters"] == 27_664
    found = {
        name: (row["in_channels"], row["classes"], row["size"], row["output_stride"])
        for name, row in rows.items()
    }
    for start, *expected in (
        ("voxresnet-", 1, 4, [80, 80, 80], 1),
        ("enet-v", 3, 20, [512, 1024], 1),
        ("enet-port", 3, 19, [512, 1024], 1),
        ("deeplab-", 3, 21, [513, 513], 8),
        ("fcn32s-", 3, 19, [1024, 2048], 32),
        ("fcn8s-", 3, 19, [1024, 2048], 8),
        ("smp-", 3, 19, [1024, 2048], 1),
        ("pixelnet-vgg16-3", 3, 60, [224, 224], 1),
        ("pixelnet-vgg16", 3, 21, [224, 224], 1),
        ("pixelnet-voxresnet", 1, 4, [80, 80, 80], 1),
        (r"sunet-.+-classifier", 3, 1000, [224, 224], 32),
        ("sunet-", 3, 21, [512, 512], 16),
    ):
        for name in filter(re.compile(start).match, list(found)):
            assert found.pop(name) == tuple(expected), name
    assert not found


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # Stem and classifier a voxel; strided convolution, four of 8 channels and deconvolution
        # a cell of 2x2x2 voxels.
        (
            "voxresnet-reduced8-v0",
            2 * (27 * (4 + 16 + 32) + (27 * (32 + 4 * 64) + 64 * 64) / 8) * 80**3 / 1e9,
        ),
        # ResNet-18 has 1.8136 billion products at 224x224, and 512 * 19 score each of 32x64 cells.
        ("fcn32s-resnet18", 2 * (1.813561 * 1024 * 2048 / 224**2 + 512 * 19 * 32 * 64 / 1e9)),
        # arXiv:1804.10343's authors' network has 2.53 billion products at 224x224.
        ("sunet-64-classifier", 2 * 2.532519936),
    ],
)
def test_json_gflops_golden(everything, name, billions):
    (row,) = [row for row in json.loads(everything)["models"] if row["name"] == name]
    assert row["gflops"] == pytest.approx(billions, rel=1e-6)


def test_json_has_receptive_fields(everything):
    fields = {row["name"]: row["receptive_field"] for row in json.loads(everything)["models"]}
    assert fields["voxresnet-full-scores-v0"] == [131, 131, 131]
    assert fields["enet-v0"] == [1217, 1217]
    assert fields["smp-resnet18"] == [431, 431]
    # 7 + 4 + 8 of the stem; 30 cells a U-Net and 1 a pooling, which has 4, 8, 16 pixels a cell;
    # 12 a U-Net+ on one grid at a rate of 2.
    field = 19 + 2 * 30 * 4 + 4 + 4 * 30 * 8 + 8 + 4 * 30 * 16 + 12 * 2 * 16
    assert fields["sunet-64"] == [field, field]


def test_volumes_leave_out_networks_for_images(few):
    rows = rows_of("--spatial-dims", "3")
    assert list(rows) == ["voxresnet-reduced8-v0", "voxresnet-reduced8-v3", "sunet-64"]
    # Images in the paper: a cube of their edge.
    assert rows["sunet-64"]["size"] == [512, 512, 512]


def test_options_change_the_counts(few, validate):
    words = ("--in-channels", "2", "--classes", "7", "--spatial-dims", "2")
    content = validate(call("--json", *words).stdout)
    assert (content["in_channels"], content["classes"], content["spatial_dims"]) == (2, 7, 2)
    rows = {row["name"]: row for row in content["models"]}
    v0, v3 = rows["voxresnet-reduced8-v0"], rows["voxresnet-reduced8-v3"]
    assert v3["parameters"] - v0["parameters"] == 8 * 7
    assert v0["receptive_field"] == [23, 23]
    assert v0["size"] == [80, 80]
    assert v3["gflops"] > v0["gflops"]
    assert v0["gflops_a_superpixel"] == 0
    assert v3["gflops_a_superpixel"] == 2 * 8 * 7 / 1e9
    assert {(row["in_channels"], row["classes"]) for row in rows.values()} == {(2, 7)}


def test_file_has_every_column(few, page):
    lines = page().splitlines()
    (line,) = [line for line in lines if "enet-v3" in line]
    for word in ("365,052", "7.86", " 1 ", "1217 x 1217", "arXiv:1606.02147", "Figure 10"):
        assert word in line
    for word in ("GFLOPs", "stride", "receptive field", "+ in training"):
        assert word in lines[2]


@pytest.mark.parametrize(("width", "is_wide"), [(80, False), (149, False), (150, True)])
def test_terminal_shows_columns_that_fit(few, page, width, is_wide):
    text = page(width)
    assert ("GFLOPs" in text, "stride" in text, "arXiv" in text) == (is_wide,) * 3
    for word in ("voxresnet-reduced8-v3", "365,052", "1217 x 1217", "receptive field"):
        assert word in text


@pytest.mark.parametrize("words", [("--spatial-dims", "4"), ("--classes", "0")], ids=str)
def test_models_rejects_impossible_options(words):
    assert call(*words).exit_code == 2
