"""A wheel built from the checkout and installed elsewhere works there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("voxseg", "cli", "cuda", "pyproject.toml", "README.md", "LICENSE")

PROGRAM = """
import sys
from pathlib import Path
import voxseg
from voxseg.cli.main import main
place = Path(voxseg.__file__).parent
assert place.parent == Path(sys.argv[1]), place
from voxseg.engine.config import recipe_names
assert "ibsr-reduced8-v3" in recipe_names()
assert (place / "export" / "report.html").is_file()
from voxseg.export.viewer import viewer_parts
assert viewer_parts().num_bytes > 1_000_000
assert (place / "export" / "viewer.html").is_file()
assert (place / "export" / "viewer_page.css").is_file()
assert (place / "py.typed").is_file()
from voxseg.schemas import read_schema
assert read_schema("split")["$id"] == "voxseg.split/1"
import importlib, pkgutil
names = [module.name for module in pkgutil.walk_packages(voxseg.__path__, "voxseg.")]
assert {"voxseg.cli.train", "voxseg.ops.cpu.slic", "voxseg.ops.cuda.slic"} <= set(names)
for name in names:
    if name != "voxseg.__main__":
        importlib.import_module(name)
import torch
from voxseg.ops import superpixel_pool
labels = torch.arange(8).repeat(90).view(1, 8, 9, 10)  # slic would compile for half a minute
assert superpixel_pool(torch.rand(1, 2, 8, 9, 10), labels, 8).shape == (1, 2, 8)
from voxseg.ops import nvrtc
for op in ("superpixel_pool", "slic"):
    assert "__global__" in nvrtc.source(op)
assert (place / "cuda" / "prelude.cuh").is_file()
sys.argv = ["voxseg", "--version"]
main()
"""


@pytest.mark.slow
def test_wheel_installed_elsewhere_works(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True)
    wheel = next(tmp_path.glob("voxseg-*.whl"))
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(target)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target), "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("voxseg 0.")


CHECKOUT = """
import runpy, sys
sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in str(one)]
sys.argv = ["voxseg", *sys.argv[1:]]
runpy.run_module("voxseg", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--version"], "voxseg 0."), (["split", "--help"], "Deal the cases")],
    ids=str,
)
def test_a_checkout_works_that_is_not_installed(words, said):
    done = subprocess.run(
        [sys.executable, "-c", CHECKOUT, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
