"""Atrous spatial pyramid pooling and its global branch."""

import copy

import pytest
import torch
from torch.nn import functional

from voxseg.layers.aspp import ASPP, ConvNormReLU, GlobalBranch


def random_map(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def unsettled(module, seed=0):
    """The module in double precision with norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                for values in (norm.weight, norm.bias, norm.running_mean):
                    values.normal_(generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
    return module


@pytest.mark.parametrize(("first_kernel", "parameters"), [(1, 15_206_912), (3, 19_401_216)])
def test_parameters_are_those_of_the_paper(first_kernel, parameters):
    with torch.device("meta"):
        assert count(ASPP(2048, first_kernel=first_kernel)) == parameters


@pytest.mark.parametrize("first_kernel", [1, 3])
def test_every_branch_is_its_formula(first_kernel):
    features = random_map(2, 3, 9, 7)
    module = unsettled(ASPP(3, channels=4, rates=(2, 5), first_kernel=first_kernel)).eval()

    def normalised(values, norm):
        shape = (1, -1, 1, 1)
        centred = values - norm.running_mean.view(shape)
        scaled = centred / (norm.running_var.view(shape) + norm.eps).sqrt()
        return (scaled * norm.weight.view(shape) + norm.bias.view(shape)).clamp_min(0)

    expected = []
    for branch, rate in zip(module.branches, (1, 2, 5), strict=True):
        kernel = branch.conv.weight.shape[-1]
        padded = functional.pad(features, (rate * (kernel // 2),) * 4)
        taps = [
            torch.einsum(
                "oi,bihw->bohw",
                branch.conv.weight[:, :, y, x],
                padded[:, :, rate * y : rate * y + 9, rate * x : rate * x + 7],
            )
            for y in range(kernel)
            for x in range(kernel)
        ]
        expected.append(normalised(sum(taps), branch.norm))
    mean = features.flatten(2).mean(2)
    vector = (mean @ module.image.conv.weight[:, :, 0, 0].T)[:, :, None, None]
    expected.append(normalised(vector, module.image.norm).expand(2, 4, 9, 7))
    torch.testing.assert_close(module(features), torch.cat(expected, 1))
    assert [len(branch.conv.weight[0, 0]) for branch in module.branches] == [first_kernel, 3, 3]


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (16, 1), (5, 8)], ids=str)
@pytest.mark.parametrize("global_branch", [True, False])
def test_any_size_keeps_its_grid(size, global_branch):
    module = ASPP(3, channels=4, rates=(2, 5), global_branch=global_branch).eval()
    answer = module(torch.randn(2, 3, *size))
    assert answer.shape == (2, module.out_channels, *size)
    assert module.out_channels == 4 * (3 + global_branch)


def test_the_global_branch_says_the_same_everywhere():
    branch = unsettled(GlobalBranch(3, 4))
    features = random_map(2, 3, 4, 5)
    answer = branch.train()(features)
    torch.testing.assert_close(answer, answer[:, :, :1, :1].expand(2, 4, 4, 5))
    shuffled = features.flatten(2)[:, :, torch.randperm(20)].view_as(features)
    torch.testing.assert_close(branch(shuffled), answer)
    assert (answer[0] - answer[1]).abs().max() > 1e-3


def test_a_batch_of_two_trains_the_statistics_of_the_global_branch():
    branch = GlobalBranch(3, 4).double()
    features = random_map(2, 3, 4, 5)
    plain = copy.deepcopy(branch)
    vectors = plain.conv(features.mean((2, 3), keepdim=True))
    torch.testing.assert_close(branch(features)[:, :, :1, :1], plain.norm(vectors).relu())
    torch.testing.assert_close(branch.norm.running_mean, plain.norm.running_mean)
    assert branch.norm.running_mean.any()


def test_a_batch_of_one_trains_with_the_running_statistics():
    branch = unsettled(GlobalBranch(3, 4))
    before = copy.deepcopy(branch.state_dict())
    features = random_map(1, 3, 4, 5)
    answer = branch.train()(features)
    torch.testing.assert_close(answer, copy.deepcopy(branch).eval()(features))
    answer.sum().backward()
    assert branch.conv.weight.grad.any()
    assert branch.norm.bias.grad.any()
    for name, value in branch.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_norm_of_several_processes_sees_the_one_image():
    class Joined(torch.nn.modules.batchnorm._BatchNorm):
        """Stands for a norm that has other processes' images besides."""

        def forward(self, values):
            self.seen = values.shape
            return values * 0 + 7

    branch = GlobalBranch(3, 4).train()
    branch.norm = Joined(4)
    assert (branch(torch.randn(1, 3, 4, 5)) == 7).all()
    assert branch.norm.seen == (1, 4, 1, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rates": ()}, "dilations"),
        ({"rates": (3, 0)}, "dilations"),
        ({"first_kernel": 2}, "first_kernel"),
        ({"channels": 0}, "channels"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        ASPP(3, **options)


@pytest.mark.parametrize(("kernel", "dilation", "named"), [(5, 1, "kernel"), (3, 0, "dilation")])
def test_convolutions_that_would_not_keep_the_grid_are_refused(kernel, dilation, named):
    with pytest.raises(ValueError, match=named):
        ConvNormReLU(3, 4, kernel, dilation)
