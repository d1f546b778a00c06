import pytest
import torch
from torch import nn

from voxseg.engine.config import TrainConfig
from voxseg.engine.optimise import (
    auxiliary_weight,
    average_model,
    averaged,
    build_optimiser,
    learning_rate,
)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_schedule_warms_up_peaks_and_ends_at_zero(schedule):
    config = TrainConfig(schedule=schedule, warmup=0.1, learning_rate=0.5)
    assert learning_rate(config, 0.05) == pytest.approx(0.25)
    assert learning_rate(config, 0.1) == pytest.approx(0.5)
    assert learning_rate(config, 1.0) == pytest.approx(0.0)
    assert 0 < learning_rate(config, 0.9) < learning_rate(config, 0.5) < 0.5


def test_constant_schedule_stays():
    config = TrainConfig(schedule="constant", warmup=0.0, learning_rate=0.5)
    assert learning_rate(config, 0.0) == learning_rate(config, 1.0) == 0.5


def test_auxiliary_weight_decays_to_a_thousandth():
    config = TrainConfig(auxiliary_weight=0.5)
    assert auxiliary_weight(config, 0.0) == 0.5
    assert auxiliary_weight(config, 1.0) == pytest.approx(1e-3)
    assert auxiliary_weight(TrainConfig(auxiliary_weight=0.0), 0.3) == 0.0


def test_average_follows_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = average_model(model, 0.5)
    average.update_parameters(model)  # the first update copies
    nn.init.constant_(model.weight, 3.0)
    average.update_parameters(model)  # decay min(0.5, 2 / 11)
    expected = 1.0 * 2 / 11 + 3.0 * 9 / 11
    torch.testing.assert_close(averaged(model, average).weight.item(), expected)
    assert averaged(model, None) is model


def test_average_keeps_integer_buffers_in_step():
    model = nn.BatchNorm1d(2)
    average = average_model(model, 0.9)
    for _ in range(3):
        model(torch.randn(4, 2))
        average.update_parameters(model)
    assert average.module.num_batches_tracked == 3


def test_weight_decay_leaves_out_biases_and_normalisation():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for name in ("adamw", "sgd"):
        groups = build_optimiser(model, TrainConfig(optimiser=name, weight_decay=0.1)).param_groups
        assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (3, 0.0)]


def test_sgd_looks_ahead_unless_told_not_to():
    for nesterov in (True, False):
        config = TrainConfig(optimiser="sgd", momentum=0.95, nesterov=nesterov)
        groups = build_optimiser(nn.Linear(2, 2), config).param_groups
        assert {(group["momentum"], group["nesterov"]) for group in groups} == {(0.95, nesterov)}


def test_beta2_reaches_the_optimiser_and_is_checked():
    optimiser = build_optimiser(nn.Linear(2, 2), TrainConfig(beta2=0.98))
    assert {group["betas"] for group in optimiser.param_groups} == {(0.9, 0.98)}
    with pytest.raises(ValueError, match=r"train.beta2 must be in \[0, 1\), got 1"):
        TrainConfig(beta2=1.0)
