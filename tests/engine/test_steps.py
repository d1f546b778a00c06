"""Losses are read late, and refused before anything is kept."""

import math

import pytest
import torch
from torch import nn

from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.ranks import ALONE
from voxseg.engine.steps import Losses, TrainingStep, require_finite
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import VoxsegError


def test_losses_are_read_at_once_or_one_step_late():
    for late, known in ((False, [1.0, 2.0, 3.0]), (True, [1.0, 1.0, 2.0])):
        losses, seen = Losses(ALONE, late=late), []
        for step in range(3):
            losses.add(step, torch.tensor(step + 1.0))
            seen.append(losses.last)
        assert seen == known
        assert losses.settle() == [1.0, 2.0, 3.0]
        assert losses.settle() == []
        losses.add(3, torch.tensor(4.0))
        assert losses.last == (3.0 if late else 4.0)
        assert losses.settle() == [4.0]


def test_a_loss_that_is_not_finite_is_refused_with_its_own_step():
    losses = Losses(ALONE, late=False)
    with pytest.raises(VoxsegError, match="the loss is nan at step 7"):
        losses.add(7, torch.tensor(math.nan))
    late = Losses(ALONE, late=True)
    late.add(6, torch.tensor(1.0))
    late.add(7, torch.tensor(math.inf))
    with pytest.raises(VoxsegError, match="the loss is inf at step 7"):
        late.add(8, torch.tensor(1.0))
    late = Losses(ALONE, late=True)
    late.add(6, torch.tensor(1.0))
    late.add(7, torch.tensor(math.nan))
    with pytest.raises(VoxsegError, match="the loss is nan at step 7"):
        late.settle()


def test_weights_that_are_not_finite_are_refused():
    network = nn.BatchNorm1d(2)
    require_finite(network, 3, ALONE)
    network.running_var[1] = math.inf
    with pytest.raises(VoxsegError, match="not finite after step 3"):
        require_finite(network, 3, ALONE)


@pytest.mark.parametrize("spoilt", ["loss", "weights"])
def test_nothing_that_is_not_finite_is_kept(spoilt, subjects, quick, tmp_path, monkeypatch):
    """Spoilt in the last step of the second epoch, of three steps each; read late, as on a GPU."""
    usual = TrainingStep.__call__

    def call(self, batch, number, progress):
        loss = usual(self, batch, number, progress)
        if number == 5 and spoilt == "weights":
            next(self.network.parameters()).data.fill_(math.nan)
        return loss * math.nan if number == 5 and spoilt == "loss" else loss

    plain = Losses.__init__
    monkeypatch.setattr(Losses, "__init__", lambda self, ranks, late: plain(self, ranks, late=True))
    monkeypatch.setattr(TrainingStep, "__call__", call)
    settings = merge(quick, {"train": {"epochs": 4}})
    with pytest.raises(VoxsegError, match=r"nan at step 5|not finite after step 6"):
        train(TrainRequest(data=subjects, run=tmp_path / "run", settings=settings, device="cpu"))
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert kept["state"]["step"] == 3
    assert all(t.isfinite().all() for t in kept["model"].values())


def test_a_loss_that_is_read_late_changes_no_weight(subjects, quick, tmp_path, monkeypatch):
    def run(name):
        settings = merge(quick, {"train": {"epochs": 2}})
        train(TrainRequest(data=subjects, run=tmp_path / name, settings=settings, device="cpu"))
        return load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")

    plain = Losses.__init__
    at_once = run("at-once")
    monkeypatch.setattr(Losses, "__init__", lambda self, ranks, late: plain(self, ranks, late=True))
    late = run("late")
    for name, value in at_once["raw"].items():
        torch.testing.assert_close(late["raw"][name], value, rtol=0, atol=0)
    first, second = (one["state"]["history"] for one in (at_once, late))
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
