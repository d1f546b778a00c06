"""The rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
MOST_LINES = 400
MOST_BYTES = 250_000
# A viewer must be in the page that shows volumes, and nobody publishes a smaller one.
LARGE = {"voxseg/export/niivue/niivue.umd.js.gz": 800_000}
CODE = {".py", ".cu", ".cuh", ".cpp", ".h"}
SOURCES = [
    path
    for folder in ("voxseg", "cli", "cuda", "tests", "examples")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in CODE
]
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|TPAMI")
# Parts of voxseg.ops that hold no idea of a paper.
PLUMBING = {"nvrtc", "jit", "portable"}
# Packages that belong to some rooms only, as files or folders from the root.
ROOMS = {
    "nibabel": ("voxseg/data/volume.py", "voxseg/export/nifti.py"),
    "typer": ("cli",),
    "rich": ("cli",),
    "monai": ("voxseg/data", "voxseg/tasks", "voxseg/engine", "voxseg/metrics", "voxseg/models"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name(path):
    return str(path.relative_to(ROOT))


def modules(*folders):
    return [
        path
        for folder in folders
        for path in sorted((ROOT / "voxseg" / folder).glob("*.py"))
        if path.stem not in PLUMBING | {"__init__"}
    ]


def ops():
    """Modules that voxseg.ops exports from."""
    tree = ast.parse((ROOT / "voxseg/ops/__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return sorted({node.module.rpartition(".")[2] for node in imports if node.module})


def imported(path):
    """The top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_file_is_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_file_has_a_telling_name(path):
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_tracked_files_are_small_and_no_notebooks():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to it")
    answer = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [ROOT / file for file in answer.stdout.split("\0") if file]
    assert not [name(file) for file in files if file.suffix == ".ipynb"]
    assert not [
        name(file)
        for file in files
        if file.is_file() and file.stat().st_size > LARGE.get(name(file), MOST_BYTES)
    ]


def test_cuda_is_not_a_python_package():
    assert not list((ROOT / "cuda").rglob("*.py")), "it would hide NVIDIA's own cuda package"


def test_ops_are_exported():
    assert {"superpixel_pool", "slic"} <= set(ops())


@pytest.mark.parametrize("op", ops())
def test_op_has_its_twins(op):
    wanted = [
        f"voxseg/ops/{op}.py",
        f"voxseg/ops/reference/{op}.py",
        f"voxseg/ops/cpu/{op}.py",
        f"voxseg/ops/cuda/{op}.py",
        f"cuda/{op}.cu",
        f"tests/ops/test_{op}.py",
        f"tests/ops/test_{op}_cuda.py",
    ]
    assert not [path for path in wanted if not (ROOT / path).is_file()]


@pytest.mark.parametrize("path", modules("ops", "layers", "models"), ids=name)
def test_module_names_its_source(path):
    assert SOURCE.search(ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("package", ROOMS)
def test_package_stays_in_its_rooms(package):
    code = [
        path for path in SOURCES if path.suffix == ".py" and name(path).startswith(("voxs", "cli"))
    ]
    elsewhere = [
        name(path)
        for path in code
        if package in imported(path)
        and not any(
            name(path) == room or name(path).startswith(f"{room}/") for room in ROOMS[package]
        )
    ]
    assert not elsewhere


def test_every_folder_is_packaged():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "voxseg").rglob("__init__.py")
    }
    assert found | {"voxseg.cli", "voxseg.cuda"} == listed


def test_readme_table_names_files_that_exist():
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("|") and re.search(r"\.(py|cu)\b", line.rpartition("|")[0])
    ]
    files = [file for row in rows for file in re.findall(r"[\w/]+\.(?:py|cu)\b", row[-1])]
    assert {"ops/superpixel_pool.py", "layers/superpixel.py", "models/voxresnet.py"} <= {
        file.removeprefix("voxseg/") for file in files
    }
    assert not [
        file
        for file in files
        if not (ROOT / "voxseg" / file).is_file() and not (ROOT / file).is_file()
    ]


def test_readme_has_two_set_up_commands():
    text = (ROOT / "README.md").read_text()
    for command in ("make demo", "make test"):
        assert command in text


def test_constraints_pin_every_dependency_by_name_and_version():
    project = PROJECT["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted.extend(extra)
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    pinned = {
        canonicalize_name(package): Version(version)
        for package, version in (line.split("==") for line in lines)
    }
    for requirement in map(Requirement, wanted):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


def test_help_imports_nothing_heavy():
    program = (
        "import sys, voxseg.cli.main;"
        "print(*sorted({'torch', 'monai', 'numba', 'scipy', 'nibabel'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout.strip()) == (0, ""), answer.stderr
