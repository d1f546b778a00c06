import os
import subprocess
import sys

import pytest

import voxseg as package

COMMANDS = (
    "bench", "cache", "check", "compare", "crossval", "demo", "doctor", "evaluate", "export",
    "labels", "models", "predict", "recipes", "reproduce", "schemas", "split", "supervoxels",
    "train",
)  # fmt: skip


def program(*words):
    return subprocess.run(
        [sys.executable, "-m", "voxseg", *words], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_and_imports_no_torch():
    code = (
        "import sys; sys.argv = ['voxseg', '--help']\n"
        "from voxseg.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'monai', 'numba', 'nibabel', 'matplotlib', 'scipy', 'SimpleITK'}\n"
        "loaded = sorted(heavy & set(sys.modules))\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(voxseg, command):
    outcome = voxseg(command, "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out


def test_version(voxseg):
    assert voxseg("--version").out == f"voxseg {package.__version__}\n"


def test_unknown_commands_and_options_are_usage_errors(voxseg):
    assert voxseg("trian").code == 2
    outcome = voxseg("train", "--epoch", "3")
    assert outcome.code == 2
    assert "--epochs" in outcome.err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("train", "bench", "export")])
def test_other_commands_than_train_refuse_several_processes(voxseg, command, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    outcome = voxseg(command, "anything", "-o", "anywhere")
    assert outcome.code == 2
    assert outcome.err == f"voxseg {command} works in one process; start it without torchrun"


def test_only_the_first_process_tells_what_all_find(tmp_path):
    found = {}
    for rank in ("0", "1"):
        ranks = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
        words = [sys.executable, "-m", "voxseg", "train", str(tmp_path), "-o", str(tmp_path)]
        done = subprocess.run(
            [*words, "--set", "train.epoch=3"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | ranks,
        )
        assert done.returncode == 2
        found[rank] = done.stdout + done.stderr
    assert found["0"].startswith("voxseg (rank 0): ")
    assert "did you mean epochs" in found["0"]
    assert found["1"] == ""


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    done = program("evaluate", str(tmp_path / "nothing"), str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nothing" in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = program("--debug", "evaluate", str(tmp_path / "nothing"), str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" in done.stderr
