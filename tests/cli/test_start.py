"""What each command loads before it answers: torch takes a second, MONAI three more."""

import json
import os
import subprocess
import sys

import pytest

SLOW = ["torch", "monai", "numba", "matplotlib", "pandas", "skimage", "SimpleITK", "tensorboard",
        "scipy.optimize", "scipy.stats"]  # fmt: skip
OF_NETWORKS = {"torch", "numba"}

CODE = """
import json, sys
from voxseg.cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, sorted(sys.modules)]))
"""


def start(*words):
    """Run a command in a process of its own; return its exit code and what slow it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, words)],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, {name for name in SLOW if name in modules}, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "nowhere", "nowhere", "-o", "masks"),
        ("evaluate", "nowhere", "nowhere"),
        ("data", "series", "nowhere"),
        ("train", "nowhere", "-o", "run"),
        ("crossval", "nowhere", "-o", "run"),
        ("split", "nowhere", "-o", "split.json"),
        ("supervoxels", "nowhere", "-o", "maps"),
        ("export", "onnx", "nowhere", "-o", "x.onnx"),
    ],
    ids=lambda words: words[0],
)
def test_a_missing_file_is_told_before_anything_slow_is_loaded(words):
    code, loaded, said = start(*words)
    assert code == 3
    assert "nowhere" in said
    assert loaded == set()


@pytest.mark.parametrize("words", [("--help",), ("predict", "--help"), ("labels",), ("schemas",)])
def test_words_alone_load_nothing_slow(words):
    assert start(*words)[:2] == (0, set())


@pytest.fixture(scope="module")
def places(tmp_path_factory, phantom):
    """A network, and an image for it."""
    folder = tmp_path_factory.mktemp("start")
    image, _ = phantom.write_images(folder / "images")["RAS"]
    return phantom.write_network(folder / "run"), image


def test_predicting_loads_what_networks_need_and_no_more(places, tmp_path):
    run, image = places
    code, loaded, said = start("predict", run, image, "-o", tmp_path / "masks", "--device", "cpu")
    assert (code, said) == (0, "")
    assert loaded <= OF_NETWORKS
    assert "torch" in loaded  # or the test sees nothing
    masks = tmp_path / "masks"

    code, loaded, said = start("evaluate", masks, masks, "-o", tmp_path / "scores")
    assert (code, said) == (0, "")
    assert loaded == set()
    assert start("compare", tmp_path / "scores", tmp_path / "scores")[1] == set()
