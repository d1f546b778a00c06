"""SMP: a user's own network, with and without stages, in training and within a budget."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxseg.layers.depth_first import LiveBytes
from voxseg.layers.smp import SMP
from voxseg.layers.split_merge import every_offset, total_offset


def image(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Residual(nn.Module):
    """Two branches that sub-sample beside each other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2, bias=False)

    def forward(self, x):
        return (self.again(self.norm(self.conv(x)).relu()) + self.shortcut(x)).relu()


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = nn.Sequential(
            nn.Conv2d(2, 8, 3, stride=(3, 2), padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            Residual(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 3, 3, padding=1),
        ).double()
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        return built.eval()


class Opaque(nn.Module):
    """The same without visible stages."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def dilated(x, net):
    """The network with dilations for strides, and without max-pooling."""

    def conv(layer, x, step):
        (kh, kw), (sh, sw) = layer.kernel_size, step
        pad = (kh // 2 * sh, kw // 2 * sw)
        return functional.conv2d(x, layer.weight, layer.bias, padding=pad, dilation=step)

    x = net[1](conv(net[0], x, (1, 1))).relu()
    block = net[3]
    y = block.norm(conv(block.conv, x, (3, 2))).relu()
    x = (conv(block.again, y, (6, 4)) + conv(block.shortcut, x, (1, 1))).relu()
    return conv(net[5], x, (12, 8))


def test_smp_is_the_dilated_network():
    net = network()
    x = image(2, 2, 24, 16)
    smp = SMP(net, 2).eval()
    assert smp.windows == ((3, 2), (2, 2), (2, 2))
    assert smp.window == (12, 8)
    with torch.no_grad():
        torch.testing.assert_close(smp(x), dilated(x, net), rtol=0, atol=1e-12)


def test_the_given_network_is_left_as_it_is():
    net = network()
    smp = SMP(net, 2)
    assert isinstance(net[4], nn.MaxPool2d)
    assert net[0].stride == (3, 2)
    assert smp.network.state_dict().keys() == net.state_dict().keys()
    assert [n for n, _ in smp.named_parameters()] == [
        f"network.{n}" for n, _ in net.named_parameters()
    ]


def test_sampled_is_the_answer_at_the_offset():
    smp = SMP(network(), 2).eval()
    x = image(2, 2, 21, 13)
    with torch.no_grad():
        everywhere = smp(torch.nn.functional.pad(x, (0, 3, 0, 3), mode="replicate"))
        for offsets in every_offset(smp.windows):
            row, column = total_offset(offsets, smp.windows)
            sampled = smp.sampled(x, offsets)
            wanted = everywhere[:, :, row::12, column::8]
            torch.testing.assert_close(sampled, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (24, 17)], ids=str)
def test_any_size_has_an_answer_for_every_pixel(size):
    smp = SMP(network(), 2).eval()
    x = image(1, 2, *size)
    with torch.no_grad():
        answer = smp(x)
        filled = functional.pad(x, (0, -size[1] % 8, 0, -size[0] % 12), mode="replicate")
        wanted = smp(filled)[:, :, : size[0], : size[1]]
    torch.testing.assert_close(answer, wanted, rtol=0, atol=0)
    assert answer.shape == (1, 3, *size)


def test_loss_on_sampled_labels_equals_the_expanded_one():
    smp = SMP(network(), 2).train()
    twin = copy.deepcopy(smp)
    x = image(2, 2, 26, 19)
    labels = torch.randint(3, (2, 26, 19), generator=torch.Generator().manual_seed(0))
    offsets = ((2, 1), (1, 0), (0, 1))
    sampled = smp.sample_labels(labels, offsets, -1)
    assert (sampled == -1).any(), "the image is smaller than the filled one"
    loss = functional.cross_entropy(smp.sampled(x, offsets), sampled, ignore_index=-1)
    scores = twin.expand_scores(twin.sampled(x, offsets), offsets, labels.shape[1:])
    (row, column), known = total_offset(offsets, smp.windows), torch.full_like(labels, -1)
    known[:, row::12, column::8] = labels[:, row::12, column::8]
    expanded = functional.cross_entropy(scores, known, ignore_index=-1)
    torch.testing.assert_close(loss, expanded, rtol=1e-14, atol=0)
    loss.backward()
    expanded.backward()
    for (name, one), other in zip(smp.named_parameters(), twin.parameters(), strict=True):
        assert one.grad.any() or name.endswith(("0.bias", "conv.bias")), name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_draws_repeat_with_their_generator():
    smp = SMP(network(), 2)
    draws = [smp.draw_offsets(torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    assert smp.sampled(image(2, 2, 12, 8), draws[0]).shape == (2, 3, 1, 1)


def budgets(smp, x):
    """Bytes of a pass at once, and budgets below it."""
    with torch.no_grad(), LiveBytes("cpu") as memory:
        smp(x)
    return [memory.peak, memory.peak * 5 // 6, memory.peak * 3 // 4]


@pytest.mark.parametrize("batch", [1, 3])
def test_depth_first_is_the_same_in_less_memory(batch):
    smp = SMP(network(), 2).eval()
    x = image(batch, 2, 48, 64)
    with torch.no_grad():
        expected = smp(x)
        for budget in budgets(smp, x):
            with LiveBytes("cpu") as memory:
                answer = smp(x, memory_budget=budget)
            torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
            assert budget / 2 < memory.peak <= budget


def test_budget_too_small_is_refused():
    smp = SMP(network(), 2).eval()
    with torch.no_grad(), pytest.raises(ValueError, match=r"at least \d+ bytes more"):
        smp(image(1, 2, 24, 16), memory_budget=50_000)


def test_a_network_of_one_stage_has_no_depth():
    net = network()
    smp, opaque = SMP(net, 2).eval(), SMP(Opaque(net), 2).eval()
    x = image(1, 2, 24, 16)
    with torch.no_grad():
        torch.testing.assert_close(opaque(x), smp(x), rtol=0, atol=0)
        smp(x, memory_budget=budgets(smp, x)[2])
        with pytest.raises(ValueError, match="too small"):
            opaque(x, memory_budget=budgets(opaque, x)[2])


@pytest.mark.parametrize("budget", [None, 200_000])
@pytest.mark.parametrize(
    "devices", [["cpu"], ["cpu", "cpu"], [torch.device("cpu", 0), "cpu", "cpu"]]
)
def test_devices_give_the_same_answer(devices, budget):
    smp = SMP(network(), 2).eval()
    x = image(2, 2, 24, 16)
    with torch.no_grad():
        answer = smp(x, memory_budget=budget, devices=devices)
        torch.testing.assert_close(answer, smp(x), rtol=0, atol=1e-12)


def test_budget_and_devices_are_for_inference():
    smp = SMP(network(), 2)
    with pytest.raises(ValueError, match="inference only"):
        smp.eval()(image(1, 2, 12, 8), memory_budget=10**9)
    with torch.no_grad(), pytest.raises(ValueError, match="inference only"):
        smp.train()(image(1, 2, 12, 8), devices=["cpu", "cpu"])


def test_smp_survives_copy_and_state_dict():
    smp, other = SMP(network(), 2).eval(), SMP(network(seed=5), 2).eval()
    file = io.BytesIO()
    torch.save(smp.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = image(1, 2, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(other(x), smp(x), rtol=0, atol=0)
        torch.testing.assert_close(copy.deepcopy(smp)(x), smp(x), rtol=0, atol=0)


def test_live_bytes_are_those_of_living_tensors():
    before = torch.zeros(50)
    with LiveBytes("cpu") as memory:
        before.view(5, 10).add_(1)
        assert memory.peak == 0, "what was there before does not count"
        torch.zeros(10, device="meta")
        kept = torch.zeros(100, dtype=torch.float64)
        view = kept.view(10, 10)[1:]
        other = view + 1
        view.add_(1)
        assert memory.live == 800 + 720
        del other
        assert memory.live == 800
        del kept
        assert memory.live == 800, "a view keeps all of it"
        del view
    assert (memory.live, memory.peak) == (0, 1520)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x))


class Disagreeing(nn.Module):
    def __init__(self):
        super().__init__()
        self.slow = nn.Sequential(nn.MaxPool2d((2, 1)), nn.MaxPool2d((1, 2)))
        self.fast = nn.MaxPool2d(2)

    def forward(self, x):
        return self.slow(x) + self.fast(x)


class Several(nn.Conv2d):
    def forward(self, x):
        return [super().forward(x)]


@pytest.mark.parametrize(
    ("net", "stages", "sentence"),
    [
        (nn.Conv2d(2, 2, 3), (), "no strided convolution or pooling"),
        (Disagreeing(), (), "branches must agree"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2)), (), "samples up"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), ("0",), "does not use '1'"),
        (Shared(), (), "two resolutions"),
        (nn.Sequential(nn.MaxPool2d(2), Several(2, 2, 1)), (), "one map, got list"),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(2)), (), "changes its grid"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 2, 9)), (), "found no image size"),
    ],
    ids=["strides", "branches", "up", "unused", "shared", "list", "cut", "small"],
)
def test_smp_rejects_networks_it_cannot_split(net, stages, sentence):
    with pytest.raises(ValueError, match=sentence):
        SMP(net, 2, stages=stages)


def test_smp_rejects_another_image_and_offsets():
    smp = SMP(network(), 2)
    with pytest.raises(ValueError, match=r"\(B, 2, and 2 spatial axes\)"):
        smp(image(1, 3, 12, 8))
    with pytest.raises(ValueError, match="one for each of 3 levels"):
        smp.sampled(image(1, 2, 12, 8), [(0, 0)])
    with pytest.raises(ValueError, match="lie in the window"):
        smp.sampled(image(1, 2, 12, 8), [(0, 0), (0, 2), (0, 0)])
    with torch.no_grad():  # and splits again after a refusal
        assert smp.eval()(image(1, 2, 12, 8)).shape == (1, 3, 12, 8)
