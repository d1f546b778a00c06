"""``make gpu`` without a GPU: its parts, what stops them, and what is left then."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from voxseg.bench import gpu, gpu_part
from voxseg.bench.gpu_parts import PARTS, Part, Setting
from voxseg.bench.limited import Ended
from voxseg.ops import nvrtc

ROOT = Path(__file__).parents[2]
BY_NAME = {part.name: part for part in PARTS}
WRITES = """
import sys, voxseg.bench.report as report
from pathlib import Path
from voxseg.files import write_text
from voxseg.documents import json_text
result = report.BenchResult("half", {}, [{"method": "a", "ms": 1.0}])
write_text(Path(sys.argv[1]), json_text(result.to_json()))
"""
HANGS = "print('row 1', flush=True); import time; time.sleep(60)"


def part(name, code, seconds=30, **more):
    """A part that runs some Python; it is told the file to write."""
    return Part(
        name,
        seconds,
        lambda setting: [sys.executable, "-c", code, str(setting.folder / f"{name}.json")],
        **more,
    )


@pytest.fixture
def run(monkeypatch, tmp_path, validate):
    """Run these parts, by default on a CPU; give exit code and document."""
    # pytest's own process must be able to end.
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)

    def run(*parts, words=()):
        monkeypatch.setattr(gpu, "PARTS", parts)
        path = tmp_path / "gpu.json"
        code = gpu.main(["--device", "cpu", "--output", str(path), *words])
        return code, validate(path.read_text())

    return run


def test_it_says_when_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert capsys.readouterr().out == (
        "error: torch sees no CUDA device; this needs a machine with a GPU\n"
    )


def test_parts_stay_together_below_ten_minutes():
    assert sum(part.seconds for part in PARTS) <= 60 * gpu._MINUTES < 600
    names = [part.name for part in PARTS]
    assert names[1:4] == ["pool", "slic", "voxresnet"]
    assert names.index("tests") < names.index("memcheck") < names.index("train-full")


def test_what_fails_leaves_the_others_alone(run, capsys, tmp_path):
    code, content = run(
        part("raises", WRITES + "raise RuntimeError('boom')"),
        part(
            "hangs", WRITES + "print('row 1', flush=True); import time; time.sleep(60)", seconds=6
        ),
        part("killed", "import os, signal; print('so far'); os.kill(os.getpid(), signal.SIGKILL)"),
        part("good", WRITES),
        part("tests", "print('135 passed')", is_check=True),
        Part("memcheck", 9, lambda _: [], is_check=True),
    )
    assert code == 1
    outcomes = {one["part"]: one["outcome"] for one in content["parts"]}
    assert outcomes["raises"] == "failed: RuntimeError: boom"
    assert outcomes["hangs"] == "failed: not done after 6 s: row 1"
    # Where it hung is known.
    log = (tmp_path / "gpu-parts" / "hangs.txt").read_text()
    assert "Fatal Python error: Aborted" in log
    assert 'File "<string>", line' in log
    assert outcomes["killed"].startswith("failed: ended by SIGKILL")
    assert outcomes["good"] == "done"
    assert content["checks"] == {"tests": "135 passed", "memcheck": "not installed"}
    assert content["finished"] is True
    # What they had measured before is there all the same.
    assert [result["title"] for result in content["results"]] == ["half"] * 3
    out = capsys.readouterr().out
    assert "raises: failed: RuntimeError: boom" in out
    assert "tests: 135 passed" in out


def test_all_that_passes_is_a_success(run):
    code, content = run(part("good", WRITES), words=["--commit", "abc"])
    assert (code, content["commit"]) == (0, "abc")
    code, content = run(part("tests", "print('1 failed'); raise SystemExit(1)", is_check=True))
    assert code == 1
    assert content["checks"] == {"tests": "failed: 1 failed"}


def is_gone(process):
    """Gone within a second, or dead and waiting to be asked for."""
    state = Path(f"/proc/{process}/stat")
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if state.read_text().rpartition(")")[2].split()[0] not in "ZX":
                time.sleep(0.05)
                continue
        return True
    return False


def test_what_a_hanging_part_started_ends_with_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_TOO_SHORT_SECONDS", 0)
    child = "import time; time.sleep(60)"
    number = tmp_path / "number"
    code = (
        f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {child!r}])"
        f"\nopen({str(number)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    run(part("hangs", code, seconds=2))
    assert is_gone(int(number.read_text()))


def test_no_part_begins_when_no_time_is_left(run):
    code, content = run(part("good", WRITES), words=["--minutes", "0.01"])
    assert code == 1
    assert content["parts"] == [
        {"part": "good", "outcome": "failed: not run, for no time was left", "seconds": 0.0}
    ]


STOPPED = """
import sys
from voxseg.bench import gpu
from voxseg.bench.gpu_parts import Part
def sleep(setting):
    return [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
gpu.PARTS = (Part("tests", 30, lambda _: ["echo", "passed"], True), Part("pool", 50, sleep))
sys.exit(gpu.main(["--device", "cpu", "--output", sys.argv[1]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_a_run_that_is_stopped_leaves_what_it_knew(number, tmp_path, validate):
    path = tmp_path / "gpu.json"
    said = tmp_path / "gpu-parts" / "pool.txt"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(path)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not (said.is_file() and said.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == (143 if number == signal.SIGTERM else -number)
    content = validate(path.read_text())
    assert content["checks"] == {"tests": "passed"}
    assert content["finished"] is False
    assert is_gone(int(said.read_text()))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_sanitizers_look_at_our_kernels_alone(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/cuda/bin/compute-sanitizer")
    words = BY_NAME[tool].command(Setting("cuda", False, tmp_path))
    assert words[:5] == ["/cuda/bin/compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    kernels = words[words.index("--kernel-name") + 1].split(",")
    assert {"kne=max_tiles", "kne=unpool_last", "kne=slic_unite"} <= set(kernels)
    assert ("--report-api-errors" in words) == (tool == "memcheck")
    assert words[-1] == "--small"
    assert not BY_NAME[tool].command(Setting("cpu", False, tmp_path))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert not BY_NAME[tool].command(Setting("cuda", False, tmp_path))


def test_a_gpu_is_required_of_tests_on_a_gpu(tmp_path):
    environment = gpu._environment(BY_NAME["tests"], Setting("cuda:1", False, tmp_path))
    assert environment["VOXSEG_REQUIRE_CUDA"] == "1"
    assert environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] == "1"
    plain = gpu._environment(BY_NAME["pool"], Setting("cpu", False, tmp_path))
    assert plain.get("VOXSEG_REQUIRE_CUDA") == os.environ.get("VOXSEG_REQUIRE_CUDA")


def test_an_end_is_told_in_a_line():
    assert Ended(0, 1.0, ["fine"]).failure == ""
    assert Ended(None, 7.4, []).failure == "not done after 7 s"
    assert Ended(None, 7.4, ["at row 3"]).failure == "not done after 7 s: at row 3"
    assert Ended(-11, 1.0, ["x"]).failure == "ended by SIGSEGV: x"
    dump = ["row 2", "Fatal Python error: Segmentation fault", "  File a", "Extension modules: b"]
    assert Ended(-11, 1.0, dump).failure == "ended by SIGSEGV: row 2"
    assert Ended(-99, 1.0, []).failure == "ended by signal 99"
    assert Ended(3, 1.0, []).failure == "exit code 3"


def test_a_part_is_written_after_every_row(tmp_path, monkeypatch, forms):
    """A part that breaks at its third row keeps two."""
    from voxseg.bench import device

    def rows(*_):
        yield {"method": "a", "ms": 1.0}
        yield {"method": "b", "ms": 2.0}
        raise nvrtc.KernelError("illegal address")

    monkeypatch.setattr(device, "device_rows", rows)
    monkeypatch.setattr("voxseg.engine.process.prepare", lambda: None)
    path = tmp_path / "pool.json"
    with pytest.raises(nvrtc.KernelError):
        gpu_part.main(["pool", "--device", "cpu", "--output", str(path), "--small"])
    content = forms.check_document(path.read_text())
    assert [row["method"] for row in content["rows"]] == ["a", "b"]


def test_the_machine_is_described(tmp_path, monkeypatch, forms):
    monkeypatch.setattr("voxseg.engine.process.prepare", lambda: None)
    path = tmp_path / "machine.json"
    assert gpu_part.main(["machine", "--device", "cpu", "--output", str(path)]) == 0
    content = forms.check_document(path.read_text())
    states = {row["what"]: row["state"] for row in content["rows"]}
    assert states["torch"].startswith(torch.__version__.partition("+")[0])
    assert re.fullmatch(r"compiled or loaded in \d+\.\d s", states["SLIC of the CPU"])


# What make gpu may do without, because a machine with a GPU need not have it.
BARE = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {
            "monai", "nibabel", "SimpleITK", "nilearn", "jsonschema", "pydicom", "highdicom",
            "xdist",
        }:
            return None
        return super().find_spec(name, path, target)
sys.meta_path[:] = [Without if one is PathFinder else one for one in sys.meta_path]
"""


def in_a_bare_python(words, folder):
    (folder / "sitecustomize.py").write_text(BARE)
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_part_runs_where_little_is_installed(tmp_path, validate):
    path = tmp_path / "small.json"
    words = ["voxseg.bench.gpu", "--small", "--device", "cpu", "--output", str(path)]
    done = in_a_bare_python(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for title in ("Superpixel pooling", "SLIC", "VoxResNet", "Training steps"):
        assert f"\n{title}" in done.stdout
    assert "not a GPU's figures" in done.stdout
    content = validate(path.read_text())
    benchmarks = [part.name for part in PARTS if not part.is_check]
    assert [(one["part"], one["outcome"]) for one in content["parts"]] == [
        (name, "done") for name in benchmarks
    ]
    assert all(row["measured"] is None and row["met"] is None for row in content["bars"])
    picture = tmp_path / "small.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tests_run_where_little_is_installed(tmp_path, validate):
    """The very command, with every plugin off, finds tests that need a GPU; one is pretended."""
    path = tmp_path / "gpu.json"
    words = ["voxseg.bench.gpu", "--what", "tests", "--device", "cpu", "--output", str(path)]
    done = in_a_bare_python(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = validate(path.read_text())["checks"]["tests"]
    assert sum(map(int, re.findall(r"(\d+) (?:skipped|passed)", said))) > 100, said
