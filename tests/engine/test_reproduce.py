"""A run made again from its manifest: the same figures, or the reason why not."""

import json
import math
import shutil

import pytest

from voxseg.engine.config import merge
from voxseg.engine.crossval import crossval
from voxseg.engine.dealing import Dealing
from voxseg.engine.reproduce import compare_metrics, reproduce
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import DataError, UsageError


def silent(_):
    pass


@pytest.fixture
def run(subjects, quick, tmp_path):
    """A finished training on a copy of the subjects, and that copy."""
    data = tmp_path / "copy"
    shutil.copytree(subjects, data)
    train(TrainRequest(data=data, run=tmp_path / "run", settings=quick, device="cpu"))
    return tmp_path / "run", data


def test_a_training_comes_out_the_same(run, tmp_path):
    result = reproduce(run[0], tmp_path / "again")
    assert result.figures > 2
    assert result.differences == ()
    assert result.notes == ()
    assert result.is_within(0.0)


def test_a_cross_validation_comes_out_the_same_and_elsewhere(subjects, quick, tmp_path):
    tiny = merge(quick, {"train": {"epochs": 1}, "model": {"design": "V0"}})
    request = TrainRequest(data=subjects, run=tmp_path / "cv", settings=tiny, device="cpu")
    crossval(request, Dealing(folds=2), silent, silent)
    moved = tmp_path / "moved"
    shutil.copytree(subjects, moved)
    result = reproduce(tmp_path / "cv" / "manifest.json", tmp_path / "again", data=moved)
    assert result.figures > 20
    assert result.is_within(0.0)
    splits = [(tmp_path / name / "split.json").read_text() for name in ("cv", "again")]
    assert splits[0] == splits[1]


def test_data_that_changed_are_refused(run, tmp_path):
    folder, data = run
    (data / "case1_seg.nii.gz").write_bytes((data / "case0_seg.nii.gz").read_bytes())
    with pytest.raises(DataError, match=r"case1_seg.nii.gz of the case case1 .* not what it was"):
        reproduce(folder, tmp_path / "again")
    for path in data.glob("case1*"):
        path.unlink()
    with pytest.raises(DataError, match=r"lacks case1.*; use --data"):
        reproduce(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_may_differ_is_said_first(run, tmp_path):
    folder, _ = run
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    manifest["git_commit"] = "0" * 40
    manifest["device"]["threads"] = 99
    manifest["processes"] = 2
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace("max_minutes = 0.0", "max_minutes = 50.0"))
    said = []
    result = reproduce(folder, tmp_path / "again", say=said.append)
    assert [f"note: {note}" for note in result.notes] == said[:5]
    for note, words in zip(
        result.notes,
        (
            "torch was 1.0",
            "at commit 000000000000",
            "'threads': 99",
            "by 2 processes",
            "a budget of 50 minutes",
        ),
        strict=True,
    ):
        assert words in note


def test_what_is_no_finished_run_is_refused(run, tmp_path):
    folder, _ = run
    with pytest.raises(UsageError, match=r"cannot read .*nowhere"):
        reproduce(tmp_path / "nowhere" / "manifest.json", tmp_path / "again")
    with pytest.raises(UsageError, match="is no manifest of a training"):
        reproduce(folder / "metrics.json", tmp_path / "again")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    with pytest.raises(UsageError, match="was not finished"):
        reproduce(folder, tmp_path / "again")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "split.json").unlink()
    with pytest.raises(UsageError, match=r"split.json is missing beside"):
        reproduce(folder, tmp_path / "again")


def test_metrics_are_compared_number_by_number(tmp_path):
    earlier, now = tmp_path / "a.json", tmp_path / "b.json"
    earlier.write_text('{"dice": [0.5, 0.25], "name": "x", "only": 1, "none": null, "same": 3}')
    now.write_text('{"dice": [0.5, 0.375], "name": "y", "none": 2, "same": 3}')
    result = compare_metrics(earlier, now)
    found = {d.name: (d.earlier, d.now, d.size) for d in result.differences}
    assert found == {
        "only": (1.0, None, math.inf),
        "none": (None, 2.0, math.inf),
        "dice.1": (0.25, 0.375, 0.125),
    }
    assert not result.is_within(1.0)


@pytest.mark.parametrize("form", ["manifest", "metrics", "train-metrics"])
def test_files_of_a_newer_version_are_refused(tmp_path, form):
    path = tmp_path / "newer.json"
    path.write_text(json.dumps({"schema": f"voxseg.{form}/2"}))
    other = tmp_path / "again" if form == "manifest" else path
    read = reproduce if form == "manifest" else compare_metrics
    with pytest.raises(DataError, match=r"newer\.json was written by a newer voxseg .* update"):
        read(path, other)


def test_metrics_of_versions_without_a_form_are_compared(tmp_path):
    for name, marks in (("old", {}), ("new", {"schema": "voxseg.metrics/1", "voxseg": "0.1.0"})):
        (tmp_path / name).write_text(json.dumps({**marks, "summary": [{"dice_mean": 0.5}]}))
    result = compare_metrics(tmp_path / "old", tmp_path / "new")
    assert (result.figures, result.differences) == (1, ())
