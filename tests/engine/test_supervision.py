from types import SimpleNamespace

import numpy as np
import pytest
import torch

from voxseg.data.patches import Batch
from voxseg.data.prepare import IGNORED
from voxseg.engine.config import Config, LabelConfig, ModelConfig, TaskConfig, TrainConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.network import build_network
from voxseg.engine.supervision import Supervision, freeze_norms, training_weights
from voxseg.tasks.class_weights import class_weights

COMPUTE = choose_compute(torch.device("cpu"), "float32", "auto", 2)


def batch(size=64):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (2, 1, size, size)).astype(np.uint8)
    label[:, :, :5] = IGNORED
    image = rng.normal(size=(2, 3, size, size)).astype(np.float32)
    return Batch(torch.from_numpy(image), torch.from_numpy(label), None, 0)


def settings(**more):
    return Config(
        labels=LabelConfig(values=(0, 1, 2)), train=TrainConfig(loss="ce", seed=3, **more)
    )


def test_split_merge_pooling_trains_on_one_sub_grid_of_the_whole_answer():
    torch.manual_seed(0)
    network = build_network(ModelConfig(network="smp"), 3, 3, 2)
    supervision = Supervision(settings(freeze_batchnorm=True), COMPUTE)
    one = batch()
    losses = [supervision(network, one, step, 0.0) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()
    gradient = [p.grad.clone() for p in network.parameters() if p.requires_grad]
    network.zero_grad()
    # The same by the whole answer, all other labels ignored: which offsets the step drew is read
    # off the labels that it kept.
    full = network.network.training
    assert full
    found = []
    for row in range(32):
        for column in range(32):
            label = torch.full_like(one.label, IGNORED)
            label[..., row::32, column::32] = one.label[..., row::32, column::32]
            found.append(label)
    with torch.no_grad():
        logits = network(one.image)
        values = torch.stack(
            [
                torch.nn.functional.cross_entropy(logits, label[:, 0].long(), ignore_index=IGNORED)
                for label in found
            ]
        )
    nearest = int((values - losses[0].detach()).abs().nan_to_num(9).argmin())
    torch.testing.assert_close(values[nearest], losses[0].detach())
    whole = torch.nn.functional.cross_entropy(
        network(one.image), found[nearest][:, 0].long(), ignore_index=IGNORED
    )
    whole.backward()
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter, expected in zip(parameters, gradient, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-6)


def test_class_weights_reach_the_loss():
    torch.manual_seed(0)
    network = build_network(ModelConfig(network="fcn"), 3, 3, 2)
    weight = torch.tensor([1.0, 2.0, 8.0])
    one = batch()
    found = Supervision(settings(freeze_batchnorm=True), COMPUTE, weight)(network, one, 0, 0.0)
    with torch.no_grad():
        logits = network(one.image)
    label = one.label[:, 0].long()
    expected = torch.nn.functional.cross_entropy(logits, label, weight, ignore_index=IGNORED)
    torch.testing.assert_close(found.detach(), expected)


def test_frozen_norms_keep_statistics_and_scales():
    network = build_network(ModelConfig(network="fcn"), 3, 2, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    freeze_norms(network)
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(parameter.grad is None for norm in norms for parameter in norm.parameters())
    assert network.backbone.conv1.weight.grad is not None


PIXELNET = ModelConfig(
    network="pixelnet", taps=("1_2", "2_2"), widths=(4,) * 6, hidden=(5,), dropout=0.0, head_std=0.0
)


def pixel_settings(kind="segmentation", **more):
    return Config(
        task=TaskConfig(kind=kind),
        labels=LabelConfig(values=(0, 1, 2)),
        model=PIXELNET,
        train=TrainConfig(loss="ce", seed=3, **more),
    )


@pytest.mark.parametrize("kind", ["segmentation", "boundaries", "normals"])
def test_drawing_every_pixel_that_counts_trains_as_all_of_the_image_does(kind):
    rng = np.random.default_rng(0)
    shape = (2, 1, 16, 20)
    counts = np.zeros(shape, bool)
    for image in counts:
        image.flat[rng.choice(320, 30, replace=False)] = True
    label = np.where(counts, rng.integers(0, 2, shape), IGNORED).astype(np.uint8)
    if kind == "normals":
        vectors = rng.normal(size=(2, 3, 16, 20))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        label = (vectors * counts).astype(np.float32)
    image = torch.from_numpy(rng.normal(size=(2, 3, 16, 20)).astype(np.float32))
    one = Batch(image, torch.from_numpy(label), None, 0)
    outputs = pixel_settings(kind).num_outputs
    torch.manual_seed(0)
    network = build_network(PIXELNET, 3, outputs, 2)
    found = []
    for pixels in (0, 30):
        network.zero_grad()
        supervision = Supervision(pixel_settings(kind, pixels=pixels), COMPUTE)
        loss = supervision(network, one, 0, 0.0)
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in network.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_pixels_depend_on_the_step_and_the_image_alone():
    label = batch().label.repeat(2, 1, 1, 1)
    whole = Supervision(pixel_settings(pixels=50), COMPUTE)._points(label, 7)
    assert whole.shape == (4, 50)
    assert torch.equal(whole, Supervision(pixel_settings(pixels=50), COMPUTE)._points(label, 7))
    assert not torch.equal(whole, Supervision(pixel_settings(pixels=50), COMPUTE)._points(label, 8))
    assert len({tuple(points.tolist()) for points in whole}) == 4
    # The second of two processes has the images 1 and 3.
    for rank in (0, 1):
        ranks = SimpleNamespace(rank=rank, size=2, add=None)
        compute = SimpleNamespace(ranks=ranks, device=torch.device("cpu"))
        part = Supervision(pixel_settings(pixels=50), compute)._points(label[rank::2], 7)
        assert torch.equal(part, whole[rank::2])


def test_the_way_of_drawing_reaches_the_step():
    one = batch()
    options = {"pixels": 40, "pixel_sampling": "positives", "positive_share": 0.75}
    points = Supervision(pixel_settings(**options), COMPUTE)._points(one.label, 0)
    drawn = one.label.flatten(1).gather(1, points)
    assert ((drawn > 0).sum(1) == 30).all()
    assert (drawn != IGNORED).all()


@pytest.mark.parametrize("c", [1.02, 1.2])
def test_weights_follow_the_shares_of_the_training_pixels(c):
    class Labelled:
        label = np.array([[0, 0, 0, 1], [0, 0, IGNORED, IGNORED]], np.uint8)

    labels = LabelConfig(values=(0, 7), ignore=(9,))
    train = TrainConfig(class_weights="enet", class_weight_c=c)
    found = training_weights(Config(labels=labels, train=train), [Labelled(), Labelled()])
    torch.testing.assert_close(found, class_weights(torch.tensor([10, 2]), c))
    assert training_weights(Config(labels=labels, train=TrainConfig()), [Labelled()]) is None
