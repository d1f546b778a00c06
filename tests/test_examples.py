"""Every example and the README's code run; examples say what they should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
# A number that each example prints, and the range it must lie in.
PROMISES = {
    "compare_designs.py": (r"V0: mean foreground Dice (0\.\d+)", 0.7, 1.0),
    "hypercolumns.py": (r"Dice (0\.\d+)", 0.85, 1.0),
    "pool_volume.py": (r"explain (\d+)% of the variance", 50, 95),
    "run_onnx.py": (r"([\d.]+)% of the voxels differ", 0, 0.05),
    "split_merge.py": (r"split and merged: IoU (\d\.\d+)", 0.9, 1.0),
    "supervoxel_branch.py": (r"([\d.]+)% of the voxels have the right class", 90, 100),
    "supervoxels_oracle.py": (r"4   SLIC +\d+ +(0\.\d+)", 0.9, 1.0),
    "train_and_predict.py": (r"middle  Dice (0\.\d+)", 0.6, 1.0),
    "vortex_pooling.py": (r"vortex pooling: Dice (0\.\d+)", 0.85, 1.0),
}


# Needs a folder of labelled volumes: tests/engine/test_paper_script.py runs it.
WITH_DATA = {"reproduce_ibsr_tables.py"}


def test_every_example_has_a_promise():
    assert {path.name for path in FOLDER.glob("*.py")} == set(PROMISES) | WITH_DATA


def test_readme_code_runs():
    text = (FOLDER.parent / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISES)
def test_example_keeps_its_promise(name, tmp_path):
    pattern, low, high = PROMISES[name]
    answer = subprocess.run(
        [sys.executable, str(FOLDER / name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = re.search(pattern, answer.stdout)
    assert found, answer.stdout
    assert low <= float(found[1]) <= high
    assert "Warning" not in answer.stderr
