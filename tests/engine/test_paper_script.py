"""The script that reproduces the paper's tables: stopped, continued, and refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import voxseg
from voxseg.engine.paper_plan import Speed

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce_ibsr_tables.py"
ROWS = ("reduced8-v0", "reduced8-control", "reduced8-v3-slic-large")
OPTIONS = (
    "--folds", "2", "--budget-minutes", "30", "--rows", *ROWS, "--jobs", "0", "--device", "cpu",
    "--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=30",
    "--set", "train.epochs=2", "--set", "train.precision='float32'",
)  # fmt: skip
# SimpleITK is no part of what the script needs.
BLOCKED = (
    "import runpy, sys; sys.modules['SimpleITK'] = None; script = sys.argv.pop(1);"
    "sys.argv[0] = script; runpy.run_path(script, run_name='__main__')"
)


def load():
    spec = importlib.util.spec_from_file_location("reproduce_ibsr_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module, data, out, *options):
    """Run the script here: its exit code."""
    return module.main([str(data), "-o", str(out), *(options or OPTIONS)])


@pytest.fixture(scope="module")
def stopped(make_subjects, tmp_path_factory):
    """Data, a folder whose second row was stopped in its second fold, and the exit code."""
    here = tmp_path_factory.mktemp("paper")
    data, out = make_subjects(here / "data", 6), here / "out"
    module = load()
    steps = []

    def stop_in_the_control(name):
        def notify(progress):
            steps.append(progress.step)
            if len(steps) == 2 * 60 + 60 + 5:
                raise KeyboardInterrupt

        return notify

    module._every_minute = stop_in_the_control
    # A probe measures what it measures; here it only has to leave time.
    module.Reproduction._speed = lambda self, row, sizes: Speed(0.01, 1.0, 1.0)
    code = call(module, data, out)
    kept = {
        "plan": (out / "plan.json").read_bytes(),
        "time": (out / "reduced8-control/fold-0/scores.json").stat().st_mtime_ns,
        "rows": sorted(path.name for path in out.iterdir() if path.is_dir()),
    }
    return data, out, code, kept


@pytest.fixture(scope="module")
def done(stopped):
    """The same folder after a second start without SimpleITK, and what it printed."""
    data, out, *_ = stopped
    answer = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(SCRIPT), str(data), "-o", str(out), *OPTIONS],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return data, out, answer.stdout


def test_it_can_be_stopped_and_continued(stopped, done):
    _, out, code, kept = stopped
    assert code == 130
    assert kept["rows"] == ["reduced8-control", "reduced8-v0"]
    assert (out / "plan.json").read_bytes() == kept["plan"]
    scores = out / "reduced8-control/fold-0/scores.json"
    assert scores.stat().st_mtime_ns == kept["time"]
    for row in ROWS:
        manifest = json.loads((out / row / "manifest.json").read_text())
        assert manifest["finished"] is True
        assert manifest["split_hash"] == json.loads((out / "split.json").read_text())["hash"]
        steps = json.loads((out / row / "fold-1/manifest.json").read_text())["steps"]
        assert steps == 60


def test_fine_tuned_rows_start_from_the_baseline_of_their_fold(done):
    _, out, _ = done
    for row in ROWS[1:]:
        for fold in (0, 1):
            manifest = json.loads((out / row / f"fold-{fold}/manifest.json").read_text())
            assert Path(manifest["init_from"]) == out / "reduced8-v0" / f"fold-{fold}"


def test_numbers_are_those_of_compare(done, validate):
    _, out, printed = done
    validate((out / "plan.json").read_text())
    content = validate((out / "tables.json").read_text())
    families = (
        ("V0", ["reduced8-v0", "reduced8-control"]),
        ("V0", ["reduced8-v0", "reduced8-v3-slic-large"]),
        ("control", ["reduced8-control", "reduced8-v3-slic-large"]),
    )
    expected = []
    for reference, names in families:
        comparison = voxseg.compare([out / name for name in names])
        for row in comparison.rows:
            plain = row.to_row()
            picked = {key: plain[key] for key in ("class", "label", "difference", "low", "high")}
            picked |= {"row": row.other, "against": row.baseline, "reference": reference}
            picked |= {"p_holm": plain["p_holm"], "verdict": plain["verdict"], "cases": 6}
            expected.append(picked)
    assert content["differences"] == expected
    for row in content["rows"][:3]:
        metrics = json.loads((out / row["row"] / "metrics.json").read_text())
        wanted = [(one["class"], one["dice_mean"], one["dice_sd"]) for one in metrics["summary"]]
        assert [(one["class"], one["mean"], one["sd"]) for one in row["dice"]] == wanted
        assert row["seconds_per_volume"] > 0
    assert not any(row["finished"] for row in content["rows"][3:])
    assert content["conclusions"][-1] in printed


def test_a_further_start_trains_nothing(done, monkeypatch):
    data, out, _ = done
    monkeypatch.setattr(voxseg, "crossval", lambda *_, **__: pytest.fail("trained again"))
    assert call(load(), data, out) == 0


@pytest.fixture
def copied(done, tmp_path):
    """A copy that may be spoilt."""
    shutil.copytree(done[1], tmp_path / "out")
    return done[0], tmp_path / "out"


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_rows_made_elsewhere_are_taken_without_a_plan(copied, monkeypatch, capsys):
    data, out = copied
    (out / "plan.json").unlink()
    manifest = out / "reduced8-v3-slic-large/manifest.json"
    change(manifest, git_commit="another", init_from=None)
    for fold in (0, 1):
        change(out / f"reduced8-v3-slic-large/fold-{fold}/manifest.json", steps=90)
    monkeypatch.setattr(voxseg, "crossval", lambda *_, **__: pytest.fail("trained again"))
    module = load()
    module.Reproduction._speed = lambda self, row, sizes: Speed(0.01, 1.0, 1.0)
    assert call(module, data, out) == 0
    assert "reduced8-v3-slic-large: 90 updates a fold, finished" in capsys.readouterr().out
    notes = json.loads((out / "tables.json").read_text())["notes"]
    assert "reduced8-v3-slic-large: it started from scratch, not from reduced8-v0" in notes
    assert "reduced8-v3-slic-large: 90 further updates, and the control 60" in notes
    assert any("at different commits" in note for note in notes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"split_hash": "00"}, "has another split"),
        ({"seeds": [3]}, "has the seeds [3], not 0"),
        ({"data": {}}, "was made from other data"),
        ({"versions": {"voxseg": "9.9"}}, "was made with voxseg 9.9"),
        ({"kind": "train"}, "is no cross-validation"),
    ],
    ids=str,
)
def test_a_row_under_other_conditions_is_refused(copied, fields, words, capsys):
    data, out = copied
    change(out / "reduced8-control/manifest.json", **fields)
    assert call(load(), data, out) == 3
    assert words in refusal(capsys)


def test_a_row_under_a_wrong_name_is_refused(copied, capsys):
    data, out = copied
    (out / "reduced8-v3-slic-large").rename(out / "reduced8-v1-slic-large")
    assert call(load(), data, out, *OPTIONS, "--tables-only") == 3
    assert "model.design V3, which its name does not say" in refusal(capsys)


def refusal(capsys):
    """The one sentence on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_another_commit_is_refused_but_its_tables_can_be_made(done, monkeypatch, capsys):
    data, out, _ = done
    module = load()
    monkeypatch.setattr(module, "git_commit", lambda: "another")
    assert call(module, data, out) == 2
    assert "and this is another; choose another OUT" in refusal(capsys)
    assert call(module, data, out, *OPTIONS, "--tables-only") == 0


def test_an_unfinished_row_of_another_commit_is_refused(copied, capsys):
    data, out = copied
    change(out / "reduced8-control/manifest.json", finished=False, git_commit="another")
    assert call(load(), data, out) == 2
    assert "was begun with commit another" in refusal(capsys)


def test_another_split_is_refused(copied, capsys):
    data, out = copied
    (out / "split.json").unlink()
    assert call(load(), data, out, *OPTIONS, "--seed", "5") == 3
    assert "has another split than split.json" in refusal(capsys)


def test_other_folds_than_those_of_the_split_are_refused(copied, capsys):
    data, out = copied
    assert call(load(), data, out, "--folds", "3", "--device", "cpu") == 2
    assert "has 2 folds, asked for 3" in refusal(capsys)


def test_calibrated_sizes_are_kept_and_trained_with(make_subjects, tmp_path, monkeypatch):
    data, out = make_subjects(tmp_path / "data", 3), tmp_path / "out"
    module = load()
    asked, trained = [], []

    def supervoxels(images, output, **options):
        asked.append((images, options["method"], options["target_oracle"]))
        return SimpleNamespace(settings=SimpleNamespace(size_mm=4.25))

    def crossval(data, output, **options):
        trained.append((output.name, options["settings"]))
        if options["settings"].get("supervoxels"):
            raise KeyboardInterrupt

    monkeypatch.setattr(voxseg, "supervoxels", supervoxels)
    monkeypatch.setattr(voxseg, "crossval", crossval)
    module.Reproduction._speed = lambda self, row, sizes: Speed(0.001, 0.0, 0.0)
    rows = ("--rows", "reduced8-v3-block-large", "--device", "cpu", "--calibrate")
    assert call(module, data, out, *rows) == 130
    assert asked == [(data, "block", 0.727)]
    sizes = json.loads((out / "plan.json").read_text())["sizes"]
    assert (sizes["block-large"], sizes["block-middle"]) == (4.25, 4.0)
    changed = {"supervoxels": {"size_mm": 4.25}}
    assert trained == [("reduced8-v0", {}), ("reduced8-v3-block-large", changed)]


def test_times_of_another_device_stay_in_tables_alone_and_are_measured_anew_else(copied):
    data, out = copied
    tables = json.loads((out / "tables.json").read_text())
    times = {row["row"]: row.get("seconds_per_volume") for row in tables["rows"]}
    gpu = {"type": "cuda", "name": "a GPU", "cuda": "13"}
    change(out / "tables.json", device=gpu)
    assert call(load(), data, out, *OPTIONS, "--tables-only") == 0
    kept = json.loads((out / "tables.json").read_text())
    assert kept["device"] == gpu
    assert {row["row"]: row.get("seconds_per_volume") for row in kept["rows"]} == times
    shutil.rmtree(out / "reduced8-control/fold-0/checkpoints")  # a row copied without networks
    module = load()
    module.Reproduction._time = lambda self, row: 123.0
    assert call(module, data, out) == 0
    anew = json.loads((out / "tables.json").read_text())
    assert anew["device"]["type"] == "cpu"
    seconds = {row["row"]: row.get("seconds_per_volume") for row in anew["rows"][:3]}
    assert list(seconds.values()) == [123.0, None, 123.0]


def test_too_few_labelled_cases_are_refused(make_subjects, tmp_path, capsys):
    data = make_subjects(tmp_path / "data", 2)
    assert call(load(), data, tmp_path / "out", "--device", "cpu") == 2
    assert "3 folds of 2 cases are not possible" in refusal(capsys)
    assert not (tmp_path / "out" / "plan.json").exists()


def test_a_budget_too_small_is_refused_with_the_smallest(make_subjects, tmp_path, capsys):
    data = make_subjects(tmp_path / "data", 3)
    options = (*OPTIONS, "--budget-minutes", "0.01")
    assert call(load(), data, tmp_path / "out", *options) == 2  # with a real probe
    sentence = refusal(capsys)
    assert "0.01 minutes are too few for one row: reduced8-v0 with 60 updates" in sentence
    assert not (tmp_path / "out" / "plan.json").exists()
    assert not list((tmp_path / "out").glob(".probe-*"))
