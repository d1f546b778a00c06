import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from voxseg.engine.checkpoint import load_checkpoint, save_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.progress import InterruptedRunError
from voxseg.engine.sampling import patch_size
from voxseg.engine.train import TrainRequest, train
from voxseg.engine.workers import Workers
from voxseg.errors import DataError, UsageError
from voxseg.tasks.segmentation import DiceCounts


def request(subjects, run, settings, **changes):
    return TrainRequest(data=subjects, run=run, settings=settings, device="cpu", **changes)


def weights(run, name="last"):
    return load_checkpoint(run / "checkpoints" / f"{name}.pt")


def assert_same_run(a, b):
    first, second = weights(a), weights(b)
    for part in ("model", "raw"):
        for name, value in first[part].items():
            torch.testing.assert_close(second[part][name], value, rtol=0, atol=0)
    assert first["state"]["step"] == second["state"]["step"]
    for old, new in zip(first["state"]["history"], second["state"]["history"], strict=True):
        assert {k: v for k, v in old.items() if k not in ("seconds", "loss")} == {
            k: v for k, v in new.items() if k not in ("seconds", "loss")
        }


def test_a_run_folder_explains_itself(subjects, quick, tmp_path):
    run = tmp_path / "run"
    result = train(request(subjects, run, quick))
    assert result.steps == 12
    for name in (
        "config.toml",
        "manifest.json",
        "metrics.json",
        "metrics.csv",
        "log.jsonl",
        "split.json",
    ):
        assert (run / name).stat().st_size > 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert set(manifest["data"]) == {f"case{n}" for n in range(4)}
    content = weights(run, "best")
    assert content["config"]["labels"]["values"] == (0, 2, 5)
    assert len((run / "log.jsonl").read_text().splitlines()) == 4
    assert not list(run.glob("**/.part-*"))


def test_a_label_table_that_is_not_used_does_not_stand_in_the_way(subjects, quick, tmp_path):
    said = []
    for epochs in (1, 2):
        settings = merge(quick, {"labels": {"table": "ibsr-tissues"}, "train": {"epochs": epochs}})
        again = request(subjects, tmp_path / "run", settings, resume=epochs > 1)
        result = train(again, say=said.append)
    assert sum("ibsr-tissues is not used: it is for labels [1, 2, 3]" in one for one in said) == 1
    assert result.steps == 6


def test_two_epochs_and_two_resumed_equal_four(subjects, quick, tmp_path):
    train(request(subjects, tmp_path / "whole", quick))
    seen = []

    def interrupt(progress):
        seen.append(progress.step)
        if progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match="--resume") as caught:
        train(request(subjects, tmp_path / "parts", quick), notify=interrupt)
    assert caught.value.exit_code == 130
    assert seen == list(range(1, 7))
    train(request(subjects, tmp_path / "parts", quick, resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_goes_on_when_it_may_train_longer(subjects, quick, tmp_path):
    short = merge(quick, {"train": {"epochs": 2}})
    run, steps = tmp_path / "run", []

    def again(settings):
        steps.clear()
        return train(
            request(subjects, run, settings, resume=True), notify=lambda p: steps.append(p.step)
        )

    assert train(request(subjects, run, short)).steps == 6
    assert (again(short).steps, steps) == (6, [])
    assert (again(merge(quick, {"train": {"epochs": 4}})).steps, steps) == (12, [*range(7, 13)])


def test_a_stop_within_an_epoch_resumes_to_the_same_bits(subjects, quick, tmp_path):
    train(request(subjects, tmp_path / "whole", quick))

    def interrupt(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        train(request(subjects, tmp_path / "parts", quick), notify=interrupt)
    train(request(subjects, tmp_path / "parts", quick, resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(subjects, quick, tmp_path):
    train(request(subjects, tmp_path / "alone", quick))
    pools, said = [], []

    def interfere(progress):
        (pool,) = pools
        if progress.step == 5:
            os.kill(pool.pids[1], signal.SIGKILL)

    def remember(self, *arguments, **options):
        started(self, *arguments, **options)
        pools[:] = [self]  # the last pool is the one that makes batches

    started = Workers.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "__init__", remember)
        helped = merge(quick, {"train": {"workers": 2}})
        train(request(subjects, tmp_path / "helped", helped), interfere, said.append)
    (line,) = [line for line in said if "started again" in line]
    assert re.match(r"worker 2 was killed by signal 9, .*, while cutting patches of case\d", line)
    assert_same_run(tmp_path / "alone", tmp_path / "helped")
    assert not (tmp_path / "helped" / "prepared").exists()


@pytest.mark.slow
def test_sigkill_loses_at_most_an_epoch(subjects, quick, tmp_path):
    run = tmp_path / "run"
    options = ["--set", "train.patch_voxels=[16,16,16]", "--set", "train.steps_per_epoch=3"]
    command = [sys.executable, "-m", "voxseg", "train", str(subjects), "-o", str(run), *options]
    command += ["--epochs", "400", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    last = run / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None, "the run ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = weights(run)["state"]["step"]
    assert done > 0
    again = [*command[:-4], "--epochs", str(done // 3 + 2), "--device", "cpu", "--resume"]
    subprocess.run(again, check=True, stdout=subprocess.DEVNULL)
    assert weights(run)["state"]["step"] == (done // 3 + 2) * 3


def test_baseline_weights_start_the_supervoxel_network(subjects, quick, tmp_path):
    base = merge(quick, {"model": {"design": "V0"}})
    train(request(subjects, tmp_path / "base", base))
    said = []
    fine = request(subjects, tmp_path / "fine", quick, init_from=tmp_path / "base")
    train(fine, say=said.append)
    assert any("started from" in line and "V0" in line for line in said)


def test_tokens_train_on_whole_volumes_and_start_from_their_baseline(subjects, quick, tmp_path):
    """V4, each volume as one patch: 0 along an axis is the largest of them."""
    base = merge(quick, {"model": {"design": "V0"}})
    train(request(subjects, tmp_path / "base", base))
    whole = {"model": {"design": "V4"}, "train": {"patch_voxels": [0], "batch_size": 1}}
    run = tmp_path / "whole"
    train(request(subjects, run, merge(quick, whole), init_from=tmp_path / "base"))
    found = weights(run)["model"]
    assert found["heads.0.tokens.scores.weight"].any()  # from zero: something was learned
    assert weights(run)["spatial_dims"] == 3


def test_a_whole_patch_is_as_large_as_the_largest_case():
    cases = [SimpleNamespace(shape=s, is_image=False) for s in ((20, 30, 10), (25, 20, 12))]
    assert patch_size((0,), 3, cases) == (25, 30, 12)
    assert patch_size((16, 0, 8), 3, cases) == (16, 30, 8)
    assert patch_size((16,), 3, cases) == (16, 16, 16)
    with pytest.raises(UsageError, match="2 numbers, but the images have 3 axes"):
        patch_size((0, 16), 3, cases)
    with pytest.raises(UsageError, match="sees slices or photographs"):
        patch_size((0,), 2, cases)
    with pytest.raises(UsageError, match="sees slices or photographs"):
        patch_size((0,), 3, [SimpleNamespace(shape=(9, 9, 1), is_image=True)])


def test_time_budget_ends_the_run_and_the_schedule(subjects, quick, tmp_path):
    endless = merge(quick, {"train": {"epochs": 100_000, "max_minutes": 0.05}})
    result = train(request(subjects, tmp_path / "run", endless))
    assert result.steps < 300_000
    assert weights(tmp_path / "run")["state"]["history"][-1]["learning_rate"] < 1e-3


def test_patience_stops_early(subjects, quick, tmp_path):
    settings = merge(
        quick,
        {"train": {"epochs": 50, "validate_every": 1, "patience": 2, "learning_rate": 1e-9}},
    )
    result = train(request(subjects, tmp_path / "run", settings))
    assert result.steps < 150


def test_a_run_without_validation_resumes(subjects, quick, tmp_path):
    run = tmp_path / "run"

    def interrupt(progress):
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train(request(subjects, run, quick, val_fraction=0.0), notify=interrupt)
    result = train(request(subjects, run, quick, val_fraction=0.0, resume=True))
    assert result.steps == 12
    assert json.loads((run / "split.json").read_text())["folds"][0]["val"] == []


def test_a_used_folder_is_refused_and_overwritten_when_asked(subjects, quick, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="--resume"):
        train(request(subjects, run, quick))
    stale = run / "tensorboard" / "events.out.tfevents.1.host.1.0"
    stale.parent.mkdir()
    stale.write_bytes(b"an earlier run's")
    train(request(subjects, run, quick, overwrite=True))
    assert (run / "mine.txt").read_text() == "keep"
    assert not stale.exists()


def test_resume_rejects_changed_settings(subjects, quick, tmp_path):
    run = tmp_path / "run"
    train(request(subjects, run, quick))
    changed = merge(quick, {"train": {"learning_rate": 1.0}})
    with pytest.raises(UsageError, match=r"train\.learning_rate cannot change"):
        train(request(subjects, run, changed, resume=True))


def test_absent_cuda_is_refused_in_words(subjects, quick, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this system has CUDA")
    asked = TrainRequest(data=subjects, run=tmp_path / "run", settings=quick, device="cuda")
    with pytest.raises(UsageError, match="sees 0 CUDA devices"):
        train(asked)


def test_labels_the_configuration_does_not_list_are_refused(subjects, quick, tmp_path):
    settings = merge(quick, {"labels": {"values": [0, 2]}})
    with pytest.raises(DataError, match=r"\[5\]"):
        train(request(subjects, tmp_path / "run", settings))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a voxseg checkpoint"):
        load_checkpoint(path)


def test_a_pickle_is_never_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "best.pt")
    with pytest.raises(DataError, match="is not a voxseg checkpoint"):
        load_checkpoint(tmp_path / "best.pt")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_tool_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(DataError, match="but not a voxseg checkpoint"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_checkpoint_of_other_classes_is_refused(subjects, quick, tmp_path):
    train(request(subjects, tmp_path / "base", quick))
    content = weights(tmp_path / "base", "best")
    labels = {**content["config"]["labels"], "values": (0, 1), "names": ("a", "b")}
    content["config"] = {**content["config"], "labels": labels}
    save_checkpoint(tmp_path / "other.pt", content)
    with pytest.raises(DataError, match="2 classes"):
        train(request(subjects, tmp_path / "fine", quick, init_from=tmp_path / "other.pt"))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (["fold-0/checkpoints/best.pt"], "is a cross-validation; name one of its runs, .*fold-0$"),
        (["seed-3/fold-1/checkpoints/best.pt"], "name one of its runs, like .*seed-3.fold-1$"),
        (["config.toml"], "holds no checkpoints/best.pt"),
        ([], "does not exist"),
    ],
)
def test_what_no_training_starts_from_is_told_first(subjects, quick, tmp_path, held, message):
    for name in held:
        path = tmp_path / "base" / name
        path.parent.mkdir(parents=True)
        path.touch()
    said = []
    with pytest.raises(DataError, match=message):
        train(
            request(subjects, tmp_path / "fine", quick, init_from=tmp_path / "base"),
            say=said.append,
        )
    assert said == []


def test_a_patch_larger_than_the_volume_is_padded(subjects, quick, tmp_path):
    settings = merge(quick, {"train": {"patch_voxels": [40, 40, 40], "epochs": 1}})
    assert train(request(subjects, tmp_path / "run", settings)).steps == 3


def test_a_class_that_no_case_has_is_null_in_log_and_metrics(
    subjects, quick, tmp_path, monkeypatch, validate
):
    undefined = torch.tensor([0.9, math.nan, 0.5], dtype=torch.float64)
    monkeypatch.setattr(DiceCounts, "dice", property(lambda _: undefined))
    run = tmp_path / "run"
    train(TrainRequest(data=subjects, run=run, settings=quick, device="cpu"))
    rows = [validate(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["class_dice"] == rows[-1]["best_class_dice"] == [0.9, None, 0.5]
    metrics = validate((run / "metrics.json").read_text())
    assert list(metrics["validation_dice_per_class"].values()) == [0.9, None, 0.5]
    assert metrics["validation_dice"] == 0.5
