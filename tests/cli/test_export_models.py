"""``voxseg export onnx | torch | bundle`` as a program: what they print, and how they end."""

import pytest
import torch

from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, to_tables
from voxseg.engine.network import build_network
from voxseg.schemas import EXPORTED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of V0 whose weights are random."""
    folder = tmp_path_factory.mktemp("run")
    labels = {"values": [0, 3], "names": ["none", "part"]}
    config = build({"labels": labels, "model": {"design": "V0"}})
    torch.manual_seed(0)
    network = build_network(config.model, 1, 2, 3)
    content = {"model": network.state_dict(), "config": to_tables(config), "in_channels": 1,
               "spatial_dims": 3}  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "best.pt", content)
    return folder


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "n.onnx"), ("torch", "n.pt2"), ("bundle", "n")]
)
def test_it_writes_and_says_how_the_answer_compares(voxseg, run, form, name, tmp_path, validate):
    outcome = voxseg("export", form, run, "-o", tmp_path / name, "--json")
    assert outcome.code == 0, outcome.err
    printed = validate(outcome.json)
    assert (printed["schema"], printed["form"]) == (EXPORTED, form)
    assert printed["output"] == str(tmp_path / name)
    assert bool(printed["sidecar"]) == (form != "bundle")
    assert printed["check"]["differing_voxels"] == 0
    again = voxseg("export", form, run, "-o", tmp_path / name)
    assert (again.code, "use --overwrite" in again.err) == (2, True)
    told = voxseg("export", form, run, "-o", tmp_path / name, "--overwrite").out
    assert f"wrote {tmp_path / name}" in told
    assert "voxels differ from voxseg's mask of a synthetic volume" in told
    assert "--case" in told


def test_what_is_wrong_is_one_sentence_and_a_code(voxseg, run, tmp_path):
    outcome = voxseg("export", "onnx", tmp_path / "gone", "-o", tmp_path / "n.onnx")
    assert outcome.code == 3
    assert outcome.err.startswith(f"{tmp_path}/gone does not exist")
    outcome = voxseg("export", "torch", run, "-o", tmp_path / "n.onnx")
    assert (outcome.code, "must end in .pt2" in outcome.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
