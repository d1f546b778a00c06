"""``voxseg demo`` with trainings of a few steps on coarse subjects."""

import zipfile

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("nilearn", reason="nilearn ships the template: pip install 'voxseg[brain]'")

from voxseg.cli.demo import demo as command
from voxseg.data.simulate import SimulationSettings, simulate_subject
from voxseg.data.volume import read_image, read_label
from voxseg.engine import demo
from voxseg.engine.config import merge
from voxseg.errors import UsageError

SHORT = {
    "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 1, "patch_voxels": [16, 16, 16]},
    "supervoxels": {"size_mm": 14.0},
}

app = typer.Typer()
app.command()(command)


@app.callback()
def root():
    """Keep ``demo`` a command of its own."""


def call(*words):
    result = CliRunner().invoke(app, ["demo", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Make the demo quick; return a folder for it."""
    coarse = SimulationSettings(spacing_mm=(5.0, 5.0, 6.0))
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "NUM_TRAINING", 3)
    monkeypatch.setattr(demo, "simulate_subject", lambda rng: simulate_subject(rng, coarse))
    for name in ("_BASELINE", "_SUPERVOXELS"):
        monkeypatch.setattr(demo, name, merge(getattr(demo, name), SHORT))
    return tmp_path / "demo"


@pytest.mark.slow
def test_demo_writes_what_it_says_and_goes_on(short, validate):
    result = call("-o", short)
    assert "All subjects are simulated" in result.stdout
    assert "next:" in result.stdout
    mask = read_label(short / "predictions/subject_04.nii.gz")
    image = read_image(short / "unseen/subject_04.nii.gz")
    assert mask.shape == image.shape
    assert set(mask.array.ravel().tolist()) <= {0, 1, 2, 3}
    assert len(list((short / "training").iterdir())) == 2 * demo.NUM_TRAINING
    assert not (short / "unseen/subject_04_seg.nii.gz").exists()
    assert "grey matter" in (short / "predictions/labels.csv").read_text(encoding="utf-8")
    scene = short / "predictions/subject_04.mrb"
    assert f"drag {scene} into 3D Slicer" in result.stdout
    assert {"subject_04/Data/subject_04.nii.gz", "subject_04/Data/subject_04.seg.nrrd"} < {
        *zipfile.ZipFile(scene).namelist()
    }
    page = (short / "report.html").read_text(encoding="utf-8")
    assert "All subjects are simulated" in page
    assert page.count("data:image/png;base64") == 1
    config = (short / "supervoxels/config.toml").read_text(encoding="utf-8")
    assert 'design = "V3"' in config

    checkpoint = short / "supervoxels/checkpoints/last.pt"
    before = checkpoint.stat().st_mtime_ns
    again = call("-o", short, "--json")
    assert checkpoint.stat().st_mtime_ns == before
    content = validate(again.stdout)
    assert validate((short / "demo.json").read_text(encoding="utf-8"))["seed"] == 0
    assert content["scene"] == str(scene)
    assert content["segmentation"] == str(short / "predictions/subject_04.seg.nrrd")
    assert content["mask"] == str(short / "predictions/subject_04.nii.gz")
    assert {row["class"] for row in content["scores"]["cases"]} > {"CSF", "white matter"}

    with pytest.raises(UsageError, match="demo with other settings"):
        call("-o", short, "--seed", "1")


def test_demo_rejects_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        call("-o", tmp_path, "--overwrite")
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        call("-o", tmp_path / "thesis.txt")
