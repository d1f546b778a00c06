"""The Python API: the same options as the command line, the same results."""

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import voxseg
from voxseg.errors import UsageError, VoxsegError

COMMANDS = sorted(set(voxseg.__all__) - {"__version__"})
# What only a program can be asked: JSON on stdout, words instead of work, an exit code.
OF_PROGRAMS = {
    "train": {"dry_run"},
    "reproduce": {"tolerance"},
    "view": {"show"},
    "check": {"report_at", "fix", "fix_nan", "overwrite"},
}
TINY = {
    "model": {"design": "V0", "stages": 1, "width_divisor": 8},
    "train": {"epochs": 1, "steps_per_epoch": 2, "patch_voxels": [16, 16, 16]},
}


# Commands that lie below another one.
MODULES = {"convert": "data", "series": "data"}


def parameters(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("as_json", "notify", "say")
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_function_has_the_options_of_its_command(command):
    program = parameters(
        getattr(importlib.import_module(f"voxseg.cli.{MODULES.get(command, command)}"), command)
    )
    for name in OF_PROGRAMS.get(command, ()):
        del program[name]
    assert parameters(getattr(voxseg, command)) == program


def test_importing_the_package_loads_no_torch():
    code = "import sys, voxseg; dir(voxseg); print('torch' in sys.modules, voxseg.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", voxseg.__version__]


@pytest.mark.parametrize(
    "call",
    [
        "split('nowhere', 'split.json')",
        "split('.', 'split.json', labels='nowhere')",
        "split('.', 'split.json', groups='nowhere')",
        "view('nowhere')",
        "view('.', 'nowhere')",
        "view('.', uncertainty='nowhere')",
        "supervoxels('nowhere', 'out')",
        "evaluate('nowhere', '.')",
        "predict('.', 'nowhere', 'out')",
    ],
)
def test_a_mistyped_path_is_told_before_torch_is_loaded(call, tmp_path):
    code = f"""
import sys, voxseg
try:
    voxseg.{call}
except voxseg.errors.DataError as error:
    print(error)
print({{"torch", "monai", "nibabel", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "there is no file or folder nowhere; check the name", "set()"
    ]  # fmt: skip


def test_an_unknown_name_is_no_command():
    with pytest.raises(AttributeError, match="has no attribute 'segment'"):
        voxseg.segment()


def test_from_folder_to_scores(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 3)
    said, steps = [], []
    result = voxseg.train(
        str(data), tmp_path / "run", settings=TINY, epochs=2, device="cpu",
        say=said.append, notify=lambda progress: steps.append(progress.step),
    )  # fmt: skip
    assert (result.steps, steps) == (4, [1, 2, 3, 4])
    assert "2 cases to train on, 1 to validate on; cpu" in said
    again = voxseg.train(data, tmp_path / "run2", settings=["model.design=V0", "train.epochs=2",
                         "model.stages=1", "model.width_divisor=8", "train.steps_per_epoch=2",
                         "train.patch_voxels=[16,16,16]"], device="cpu")  # fmt: skip
    assert again.class_dice == result.class_dice  # texts and tables say the same

    outcomes = voxseg.predict(tmp_path / "run", data, tmp_path / "masks", device="cpu")
    assert [outcome.error for outcome in outcomes] == ["", "", ""]
    evaluation = voxseg.evaluate(tmp_path / "masks", data, tmp_path / "scores", labels=[2])
    assert sorted(evaluation.scores["case0"]) == [0, 2]
    written = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert written["summary"] == evaluation.to_json()["summary"]


def test_from_split_to_comparison(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 4)
    assert voxseg.check(data).errors == ()
    parts = voxseg.split(data, tmp_path / "split.json", folds=2, seed=3)
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, run in enumerate(runs):
        result = voxseg.crossval(
            data, run, split=tmp_path / "split.json", settings=TINY, seed=seed, jobs=0, device="cpu"
        )
        assert {*result.evaluation.scores} == {case for part in parts for case in part.val}
    comparison = voxseg.compare(runs, tmp_path / "difference", resamples=99)
    assert comparison.to_json()["metric"] == "dice"
    assert voxseg.reproduce(runs[0], tmp_path / "again").is_within(0)
    with pytest.raises(UsageError, match="--overwrite"):
        voxseg.compare(runs, tmp_path / "difference")


def test_supervoxels_of_one_file(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 1)
    report = voxseg.supervoxels(
        data / "case0.nii.gz", tmp_path / "map.nii.gz", method="block", size_mm=4.0
    )
    assert report.cases[0].num_supervoxels > 10


def test_errors_are_sentences(tmp_path):
    with pytest.raises(VoxsegError, match=r"there is no recipe 'ibsr'.*did you mean"):
        voxseg.train(tmp_path, tmp_path / "run", recipe="ibsr")
    with pytest.raises(VoxsegError, match="does not exist; give a run folder"):
        voxseg.predict(tmp_path / "run", tmp_path, tmp_path / "masks")
