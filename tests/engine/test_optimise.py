import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from voxseg.engine.config import TrainConfig
from voxseg.engine.optimise import (
    auxiliary_weight,
    average_model,
    averaged,
    build_optimiser,
    learning_rate,
    set_learning_rate,
)
from voxseg.errors import UsageError
from voxseg.models import PixelNet, VoxResTaps


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


def pixelnet():
    return PixelNet(VoxResTaps(1, ("conv1b",), width_divisor=8), 2, hidden=(3,))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_head_learns_at_its_own_rates(name):
    network = pixelnet()
    config = TrainConfig(optimiser=name, weight_decay=0.1, head_rate=10, head_bias_rate=20)
    optimiser = build_optimiser(network, config)
    set_learning_rate(optimiser, 0.01)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    for key, parameter in network.named_parameters():
        is_weight = parameter.ndim > 1
        rate = (0.1 if is_weight else 0.2) if key.startswith("mlp.") else 0.01
        assert found[id(parameter)] == (pytest.approx(rate), 0.1 if is_weight else 0.0), key


def test_rates_come_back_with_a_checkpoint_and_earlier_ones_have_none():
    config = TrainConfig(head_rate=10, head_bias_rate=20)
    optimiser = build_optimiser(pixelnet(), config)
    again = build_optimiser(pixelnet(), config)
    again.load_state_dict(optimiser.state_dict())
    set_learning_rate(again, 1.0)
    assert [group["lr"] for group in again.param_groups] == [1, 1, 10, 20]
    state = optimiser.state_dict()
    for group in state["param_groups"]:
        del group["rate"]
    again.load_state_dict(state)
    set_learning_rate(again, 0.5)
    assert {group["lr"] for group in again.param_groups} == {0.5}


def test_a_network_without_a_head_has_no_rate_for_it():
    with pytest.raises(UsageError, match="networks with a head on a trunk"):
        build_optimiser(nn.Linear(2, 2), TrainConfig(head_rate=10))
    with pytest.raises(ValueError, match=r"train\.head_bias_rate must be positive, got 0"):
        TrainConfig(head_bias_rate=0)


def test_steps_fall_at_their_epochs():
    # PixelNet: 80 epochs, then two falls, 8 epochs each.
    config = TrainConfig(
        schedule="step", step_at=(80, 88), epochs=96, learning_rate=1e-3, warmup=0.0
    )
    steps_per_epoch = 49  # 80 * 49 / (96 * 49) * 96 is not 80 in floating point
    for epoch, expected in ((0, 1e-3), (79, 1e-3), (80, 1e-4), (87, 1e-4), (88, 1e-5), (95, 1e-5)):
        progress = epoch * steps_per_epoch / (96 * steps_per_epoch)
        assert learning_rate(config, progress) == pytest.approx(expected), epoch
    each = TrainConfig(schedule="step", step_epochs=30, epochs=90, learning_rate=1.0, warmup=0.0)
    assert [learning_rate(each, e / 90) for e in (29, 30, 60)] == pytest.approx([1, 0.1, 0.01])
    with pytest.raises(ValueError, match=r"train\.step_at must be positive"):
        TrainConfig(step_at=(0,))


def test_average_is_that_of_torch():
    def like_torch(averages, current, count):
        share = 1 - min(0.9, (1 + int(count)) / (10 + int(count)))
        for average, value in zip(averages, current, strict=True):
            average.copy_(average.lerp(value, share) if value.is_floating_point() else value)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    expected = AveragedModel(model, multi_avg_fn=like_torch, use_buffers=True)
    average = average_model(model, 0.9)
    for _ in range(12):
        model(torch.randn(5, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        expected.update_parameters(model)
        average.update_parameters(model)
    assert average.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(average.state_dict()[name], value)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_fused_optimiser_takes_the_steps_of_the_plain_one(name):
    torch.manual_seed(0)
    weights = [torch.randn(3, 5), torch.randn(7)]
    config = TrainConfig(optimiser=name, weight_decay=0.1)
    model = nn.ParameterList([w.clone() for w in weights])
    plain = nn.ParameterList([w.clone() for w in weights])
    optimiser, other = build_optimiser(model, config), build_optimiser(plain, config)
    for group in other.param_groups:
        assert group["fused"]
        group["fused"], group["foreach"] = False, False
    for _ in range(4):
        for one, two in zip(model, plain, strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        optimiser.step()
        other.step()
    for one, two in zip(model, plain, strict=True):
        torch.testing.assert_close(one, two)
