"""Folds in processes of their own: what a failed, killed or stopped one leads to."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from voxseg.engine.config import merge
from voxseg.engine.crossval import crossval
from voxseg.engine.dealing import Dealing
from voxseg.engine.fold import FoldTask
from voxseg.engine.folds import Effort, FailedFoldsError
from voxseg.engine.train import TrainRequest
from voxseg.errors import UsageError, VoxsegError

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
# The names of a run's files that must not depend on how it was run.
SAME = ("metrics.csv", "split.json", "fold-0/scores.json", "fold-1/scores.json")
# Python runs this when it starts: an error that nobody foresees, in one fold.
PLANTED = """
import sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("fold-1/log.jsonl"):
        raise ZeroDivisionError("planted")
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def subjects(make_subjects, tmp_path_factory):
    return make_subjects(tmp_path_factory.mktemp("folds") / "data", 4)


@pytest.fixture(scope="module")
def tiny(quick_settings):
    return merge(quick_settings, {"train": {"epochs": 2}, "model": {"design": "V0"}})


def run(subjects, folder, settings, *, jobs=0, said=None, seeds=None, retries=1, **changes):
    request = TrainRequest(data=subjects, run=folder, settings=settings, device="cpu", **changes)
    say = (said if said is not None else []).append
    effort = Effort(jobs, retries)
    return crossval(
        request, Dealing(folds=2), lambda _: None, say, effort=effort, seeds=seeds
    )  # fmt: skip


@pytest.fixture(scope="module")
def calm(subjects, tiny, tmp_path_factory):
    """A cross-validation in this process, to compare with."""
    folder = tmp_path_factory.mktemp("calm") / "cv"
    run(subjects, folder, tiny)
    return folder


def assert_same(one, other):
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def states(folder):
    return {row["fold"]: row for row in json.loads((folder / "folds.json").read_text())["folds"]}


def children(pid):
    """Processes that ``pid`` has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_a_task_survives_its_way_to_the_process():
    task = FoldTask(
        data=Path("d"), labels=None, run=Path("r"), number=2, name="fold 3 of 4",
        init_from=Path("base/fold-2"), device="cpu",
    )  # fmt: skip
    assert FoldTask.from_json(task.to_json()) == task


def test_negative_efforts_are_refused():
    with pytest.raises(UsageError, match="--jobs and --retries must not be negative"):
        Effort(jobs=-1)


@pytest.mark.slow
@LINUX
def test_two_at_a_time_and_one_of_them_killed_give_the_same_files(subjects, tiny, calm, tmp_path):
    said, folder = [], tmp_path / "cv"

    def kill_one():
        # Once it trains: its first checkpoint is what the second attempt goes on from.
        wait_for((folder / "fold-1/checkpoints/last.pt").is_file)
        for pid in children(os.getpid()):
            if "fold-1" in str(Path(f"/proc/{pid}/fd/2").readlink()):  # its log
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run(subjects, folder, tiny, jobs=2, said=said)
    killer.join()
    assert_same(folder, calm)
    assert any("was killed by signal 9 (SIGKILL)" in line and "held up to" in line for line in said)
    assert "fold 2 of 2, attempt 2" in said
    assert any(line == "fold 2 of 2: resumed from checkpoints/last.pt" for line in said)
    assert {n: (row["state"], row["attempts"]) for n, row in states(folder).items()} == {
        0: ("finished", 1),
        1: ("finished", 2),
    }
    assert states(folder)[1]["peak_gb"] > 0.1


@pytest.mark.slow
def test_a_fold_that_cannot_work_leaves_the_others_finished(
    subjects, tiny, calm, tmp_path, monkeypatch
):
    said, folder = [], tmp_path / "cv"
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(FailedFoldsError, match=r"fold 2 of 2 failed \(ZeroDivision") as caught:
        run(subjects, folder, tiny, jobs=1, said=said)
    assert caught.value.exit_code == 4
    assert any("Traceback" in line and "_end_epoch" in line for line in said)
    assert states(folder)[0]["state"] == "finished"
    assert states(folder)[1] | {"seconds": 0, "peak_gb": 0, "error": ""} == {
        "fold": 1, "state": "failed", "attempts": 2, "seconds": 0, "peak_gb": 0, "error": "",
    }  # fmt: skip
    sys.path.remove(str(tmp_path))
    run(subjects, folder, tiny, jobs=1, resume=True)
    assert_same(folder, calm)
    assert states(folder)[0]["attempts"] == 1


@pytest.mark.slow
def test_bad_data_is_not_tried_again(subjects, tiny, tmp_path):
    said = []
    (tmp_path / "no.pt").write_bytes(b"no checkpoint")
    with pytest.raises(VoxsegError, match=r"no fold could be finished; .*no\.pt is not") as caught:
        run(subjects, tmp_path / "cv", tiny, jobs=2, said=said, init_from=tmp_path / "no.pt")
    assert caught.value.exit_code == 3
    assert not any("attempt" in line for line in said)


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_the_end_of_the_parent_is_the_end_of_its_folds(subjects, calm, tmp_path, number, code):
    folder = tmp_path / "cv"
    words = ["crossval", subjects, "-k", "2", "-o", folder, "--jobs", "2", "--device", "cpu"]
    settings = [(calm / "config.toml"), "train.epochs=100000"]
    words += ["--config", settings[0], "--set", settings[1]]
    parent = subprocess.Popen(
        [sys.executable, "-m", "voxseg", "--threads", "2", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for fold in (0, 1):
            wait_for(lambda f=fold: (folder / f"fold-{f}/checkpoints/last.pt").is_file())
        folds = children(parent.pid)
        assert len(folds) == 2
        parent.send_signal(number)
        assert parent.wait(60) == code
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in folds))
    finally:
        parent.kill()
        parent.wait()
    if number == signal.SIGTERM:
        assert {row["state"] for row in states(folder).values()} == {"stopped"}


@pytest.mark.slow
def test_seeds_share_the_split_and_show_their_spread(subjects, tiny, calm, tmp_path):
    folder = tmp_path / "cv"
    result = run(subjects, folder, tiny, seeds=2)
    assert_same(folder / "seed-0", calm)  # the first seed is the run without --seeds
    other = (folder / "seed-1" / "metrics.csv").read_bytes()
    assert other != (calm / "metrics.csv").read_bytes()
    row = next(r for r in result.spread.rows if (r.label, r.metric) == (2, "dice"))
    by_seed = [
        next(
            r["dice_mean"]
            for r in json.loads((folder / f"seed-{s}" / "metrics.json").read_text())["summary"]
            if r["label"] == 2
        )
        for s in (0, 1)
    ]
    assert row.by_seed == pytest.approx(by_seed)
    assert row.mean == pytest.approx(sum(by_seed) / 2)
    assert row.deviation == pytest.approx(abs(by_seed[0] - by_seed[1]) / 2**0.5)
    cases = [
        result.evaluation.scores["case0"][2].dice,
        *(
            found["case0"]["2"]["dice"]
            for path in folder.glob("seed-*/fold-*/scores.json")
            for found in [json.loads(path.read_text())["cases"]]
            if "case0" in found
        ),
    ]
    assert len(cases) == 3
    assert cases[0] == pytest.approx((cases[1] + cases[2]) / 2)
    assert json.loads((folder / "seeds.json").read_text())["seeds"] == [0, 1]
    with pytest.raises(UsageError, match="begun with 2 seeds"):
        run(subjects, folder, tiny, seeds=1, resume=True)
    again = run(subjects, folder, tiny, resume=True)
    assert again.to_json() == result.to_json()


def test_one_seed_does_not_become_several(subjects, tiny, calm):
    with pytest.raises(UsageError, match="begun with one seed"):
        run(subjects, calm, tiny, seeds=2, resume=True)
