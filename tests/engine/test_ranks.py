"""Training in two processes that torchrun starts, beside the same training in one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.launch import Launch, read_launch
from voxseg.engine.progress import InterruptedRunError
from voxseg.engine.ranks import ALONE, Ranks
from voxseg.engine.train import TrainRequest, _open, train
from voxseg.errors import UsageError

BATCH = {
    "train": {
        "batch_size": 3,
        # Adam turns the rounding of a gradient that should be zero into steps.
        "optimiser": "sgd",
        "momentum": 0.9,
        "schedule": "constant",
        "warmup": 0.0,
        "learning_rate": 2e-3,
        "validate_every": 1,
    }
}


def words(settings):
    for section, table in settings.items():
        for key, value in table.items():
            text = json.dumps(value) if not isinstance(value, str) else value
            yield from ("--set", f"{section}.{key}={text}")


@contextlib.contextmanager
def two_ranks(*command, log):
    """Start ``command`` in two processes; its output goes to ``log``; nothing outlives the test."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*start, *map(str, command)], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        ranks = []
        try:
            yield process, lambda: ranks or ranks.extend(children(process.pid)) or ranks
        finally:
            for pid in [*children(process.pid), *ranks]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def children(pid):
    """Process ids of the ranks, in their order."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            content = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            rank = [line for line in content if line.startswith(b"RANK=")]
            if rank:
                found[int(rank[0][5:])] = int(child)
    return [found[rank] for rank in sorted(found)]


def train_on_two(data, run, settings, log, *more):
    command = ("-m", "voxseg", "train", data, "-o", run, "--val-fraction", "0.5")
    return two_ranks(*command, "--device", "cpu", *words(settings), *more, log=log)


def wait_for(path, process, log):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def rows(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def endless(quick):
    return merge(quick, {"train": {"epochs": 100_000, "batch_size": 2, "validate_every": 1}})


@pytest.mark.slow
def test_sums_norms_losses_and_gradients_are_those_of_the_whole_batch(tmp_path):
    log = tmp_path / "log"
    script = Path(__file__).with_name("exact_on_two_ranks.py")
    with two_ranks(script, log=log) as (process, _):
        assert process.wait(timeout=120) == 0, log.read_text()


def assert_same_training(expected, found):
    for one, other in zip(rows(expected), rows(found), strict=True):
        assert other["step"] == one["step"]
        assert other["loss"] == pytest.approx(one["loss"], rel=5e-6)
        # Each of the three cases counts once: twice or never would change far more than this.
        assert other["class_dice"] == pytest.approx(one["class_dice"], abs=5e-4)
    first, second = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (expected, found))
    for part in ("raw", "model"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            torch.testing.assert_close(second[part][name], value, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_two_ranks_train_as_one_process_and_go_on_with_its_run(make_subjects, quick, tmp_path):
    data = make_subjects(tmp_path / "data", 6)  # three of them to validate on
    settings = merge(quick, BATCH)
    one = TrainRequest(
        data=data, run=tmp_path / "one", settings=settings, val_fraction=0.5, device="cpu"
    )
    train(one)

    def interrupt(progress):
        if progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train(replace(one, run=tmp_path / "begun"), notify=interrupt)
    log = tmp_path / "log"
    for run, more in ((tmp_path / "two", ()), (tmp_path / "begun", ("--resume",))):
        with train_on_two(data, run, settings, log, *more) as (process, _):
            assert process.wait(timeout=300) == 0, log.read_text()
        assert log.read_text().count("trained") == 1
        manifest = json.loads((run / "manifest.json").read_text())
        assert (manifest["processes"], manifest["finished"]) == (2, True)
        assert not (run / "prepared").exists()
        assert_same_training(tmp_path / "one", run)


@pytest.mark.slow
def test_bad_data_is_told_once(subjects, quick, tmp_path):
    whole = (subjects / "case1.nii.gz").read_bytes()
    (subjects / "case1.nii.gz").write_bytes(whole[: len(whole) // 2])
    log = tmp_path / "log"
    with train_on_two(subjects, tmp_path / "run", quick, log) as (process, _):
        assert process.wait(timeout=120) != 0
    told = [line for line in log.read_text().splitlines() if line.startswith("voxseg (rank")]
    assert len(told) == 1, log.read_text()
    assert told[0].startswith("voxseg (rank 0): ")
    assert "case1.nii.gz" in told[0]
    assert "exitcode  : 3" in log.read_text()
    assert not (tmp_path / "run").exists()


FAILS_IN_ONE = """
from voxseg.engine.ranks import joined
with joined() as ranks:
    ranks.any(False)
    if ranks.rank == 1:
        raise ArithmeticError("of rank 1 alone")
    ranks.any(False)
"""


@pytest.mark.slow
def test_an_error_of_one_rank_has_its_traceback_and_ends_the_other(tmp_path):
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(FAILS_IN_ONE)
    with two_ranks(script, log=log) as (process, _):
        assert process.wait(timeout=60) != 0
    told = log.read_text()
    assert "[rank1]: ArithmeticError: of rank 1 alone" in told  # torch names the rank
    assert "LostRankError: another process of this run is gone" in told


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_other_at_once(subjects, endless, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    with train_on_two(subjects, run, endless, log) as (process, ranks):
        wait_for(run / "checkpoints" / "last.pt", process, log)
        os.kill(ranks()[1], signal.SIGKILL)
        assert process.wait(timeout=25) != 0
    assert "voxseg (rank 0): another process of this run is gone" in log.read_text()
    assert load_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"] >= 3


@pytest.mark.slow
def test_a_request_to_one_rank_stops_all_with_a_checkpoint(subjects, endless, tmp_path):
    endless = merge(endless, {"train": {"sync_batchnorm": False}})
    run, log = tmp_path / "run", tmp_path / "log"
    with train_on_two(subjects, run, endless, log) as (process, ranks):
        wait_for(run / "checkpoints" / "last.pt", process, log)
        os.kill(ranks()[1], signal.SIGTERM)
        assert process.wait(timeout=25) != 0
    told = [line for line in log.read_text().splitlines() if line.startswith("voxseg (rank")]
    step = load_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"]
    assert len(told) == 1, log.read_text()
    assert f"stopped after step {step} of" in told[0]
    assert "exitcode  : 130" in log.read_text()

    # One process takes it up.
    shorter = merge(endless, {"train": {"epochs": step // 3 + 2}})
    again = TrainRequest(data=subjects, run=run, settings=shorter, device="cpu", resume=True)
    assert train(again).steps == 3 * (step // 3 + 2)


@pytest.mark.slow
def test_a_rank_that_waits_for_a_hung_one_can_be_ended(subjects, endless, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    with train_on_two(subjects, run, endless, log) as (process, ranks):
        wait_for(run / "checkpoints" / "last.pt", process, log)
        os.kill(ranks()[1], signal.SIGSTOP)
        time.sleep(1)
        for _ in range(2):
            os.kill(ranks()[0], signal.SIGTERM)
            time.sleep(0.5)
        deadline = time.monotonic() + 10
        while ranks()[0] in children(process.pid):
            assert time.monotonic() < deadline, "rank 0 still waits"
            time.sleep(0.1)
        os.kill(ranks()[1], signal.SIGKILL)
        assert process.wait(timeout=25) != 0
    assert "ended while it was waiting for the other processes" in log.read_text()


def test_one_process_is_alone():
    assert read_launch({}) == Launch()
    assert read_launch({"WORLD_SIZE": "1"}) == Launch()
    value = torch.ones(2, requires_grad=True)
    assert ALONE.add(value) is value
    assert ALONE.gather(3) == [3]
    assert ALONE.firsts(2.5) == 2.5
    assert ALONE.rows(torch.ones(3)).shape == (1, 3)
    assert ALONE.own_device("cuda:1") == "cuda:1"


def test_the_environment_is_read():
    environment = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert read_launch(environment) == Launch(3, 4, 1, 2)
    with pytest.raises(UsageError, match="RANK"):
        read_launch({"WORLD_SIZE": "4"})
    with pytest.raises(UsageError, match="number 4 of 4"):
        read_launch(environment | {"RANK": "4"})
    with pytest.raises(UsageError, match="torchrun"):
        read_launch(environment | {"RANK": "first"})


def test_fewer_samples_than_ranks_are_refused(subjects, quick, tmp_path):
    request = TrainRequest(data=subjects, run=tmp_path / "run", settings=quick)
    with ExitStack() as opened, pytest.raises(UsageError, match=r"is 2 for all .* are 3"):
        _open(request, opened, Ranks(Launch(0, 3, 0, 3)), print)


def test_each_rank_takes_its_own_gpu():
    ranks = Ranks(Launch(3, 4, 1, 2))
    assert ranks.own_device("cuda") == ranks.own_device("gpu") == "cuda:1"
    assert ranks.own_device("cpu") == "cpu"
    assert ranks.own_device("auto") == ("cuda:1" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match="one device for 4 processes"):
            ranks.own_device(name)
