"""Vortex pooling: its fast forms against the plain ones, and the paper's numbers."""

import pytest
import torch
from torch.nn import functional

from voxseg.layers.aspp import ASPP
from voxseg.layers.vortex import BORDERS, VortexPooling, average_pool, average_pools, module_a

MAPS = pytest.mark.parametrize("size", [(1, 1), (3, 7), (14, 1), (31, 20)], ids=str)
EVERY_BORDER = pytest.mark.parametrize("border", BORDERS)


def random_map(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def small(seed=0, **options):
    """A module of few channels in double precision, its norms the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VortexPooling(3, channels=4, **options).double().eval()


def twin(module, **options):
    """The same weights with other options."""
    other = small(**options)
    other.load_state_dict(module.state_dict())
    return other


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@MAPS
@pytest.mark.parametrize("pool", [1, 3, 5, 27])
def test_the_plain_mean_is_that_of_the_cells_around(size, pool):
    features, radius = random_map(1, 2, *size), pool // 2
    height, width = size
    padded = functional.pad(features, (2 * radius,) * 4)
    extended = average_pool(features, pool, "extend")
    assert extended.shape[2:] == (height + 2 * radius, width + 2 * radius)
    for y, x in ((0, 0), (height - 1, width // 2), (height // 2, 0)):
        around = features[
            ..., max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1
        ]
        ignored = average_pool(features, pool, "ignore")[..., y, x]
        counted = average_pool(features, pool, "count")[..., y, x]
        torch.testing.assert_close(ignored, around.mean((2, 3)))
        torch.testing.assert_close(counted, around.sum((2, 3)) / pool**2)
        # Beyond the border too: the region centred `radius` cells up and left of (y, x).
        torch.testing.assert_close(
            extended[..., y, x], padded[..., y : y + pool, x : x + pool].sum((2, 3)) / pool**2
        )


@MAPS
@EVERY_BORDER
@pytest.mark.parametrize("pools", [(1, 3, 9, 27), (27, 9), (5, 1, 5, 15), (7, 21, 9)], ids=str)
def test_the_chain_is_the_plain_mean(size, border, pools):
    features = random_map(2, 3, *size)
    for pooled, pool in zip(average_pools(features, pools, border), pools, strict=True):
        expected = average_pool(features, pool, border)
        torch.testing.assert_close(pooled, expected, rtol=1e-13, atol=1e-13)


@EVERY_BORDER
def test_the_chain_passes_the_plain_gradient(border):
    features = random_map(1, 2, 5, 8).requires_grad_()
    weights = [random_map(*average_pool(features, k, border).shape, seed=k) for k in (3, 9)]

    def gradient(maps):
        total = sum((m * w).sum() for m, w in zip(maps, weights, strict=True))
        return torch.autograd.grad(total, features)[0]

    chained = gradient(average_pools(features, (3, 9), border))
    torch.testing.assert_close(
        chained, gradient([average_pool(features, k, border) for k in (3, 9)])
    )


def test_the_chain_adds_half_precision_up_in_single():
    features = torch.full((1, 1, 30, 30), 1000.0, dtype=torch.float16)
    pooled = average_pools(features, (3, 27))
    assert all(m.dtype == torch.float16 and (m == 1000).all() for m in pooled)
    options = {"pools": (9,), "dilations": (1,), "first_kernel": 1, "global_branch": False}
    module = small(border="extend", conv_first=True, **options).half()
    with torch.no_grad():
        module.branches[0].conv.weight.fill_(1000 / 3)
    answer = module(torch.ones(1, 3, 9, 9, dtype=torch.float16))
    assert answer.dtype == torch.float16
    # 81 times as much, before the division, is beyond half precision.
    assert answer[0, :, 4, 4].tolist() == pytest.approx([1000] * 4, rel=2e-3)


@pytest.mark.parametrize("shape", [(9, 9), (40, 28)], ids=str)
def test_a_constant_map_stays_constant(shape):
    features = torch.full((1, 2, *shape), 3.0, dtype=torch.float64)
    for pooled in average_pools(features, (3, 9, 27), "ignore"):
        torch.testing.assert_close(pooled, features)
    corner = average_pools(features, (9,), "count")[0][0, 0, 0, 0]
    torch.testing.assert_close(corner, torch.tensor(3 * 25 / 81, dtype=torch.float64))


@MAPS
@EVERY_BORDER
@pytest.mark.parametrize(
    "options",
    [{}, {"pools": (5, 5, 5), "dilations": (1, 4, 2), "first_kernel": 1}],
    ids=["B", "A"],
)
def test_a_module_is_convolutions_of_plain_means(size, border, options):
    features, module = random_map(2, 3, *size), small(border=border, **options)
    expected = []
    for branch, pool, rate in zip(module.branches, module.pools, module.dilations, strict=True):
        pooled = average_pool(features, pool, border)
        kernel = branch.conv.weight.shape[-1]
        reach = rate * (kernel // 2)
        if border == "extend":
            # So far out that no tap leaves the zeros, then cut to the grid.
            far = functional.conv2d(
                functional.pad(pooled, (reach,) * 4), branch.conv.weight, dilation=rate
            )
            radius = pool // 2
            answer = far[..., radius : radius + size[0], radius : radius + size[1]]
        else:
            answer = functional.conv2d(pooled, branch.conv.weight, padding=reach, dilation=rate)
        expected.append(branch.norm(answer).relu())
    expected.append(module.image(features))
    torch.testing.assert_close(module(features), torch.cat(expected, 1))


@MAPS
@pytest.mark.parametrize(
    "options",
    [{}, {"pools": (5, 5, 13), "dilations": (1, 4, 2), "first_kernel": 1}],
    ids=["B", "A"],
)
def test_convolving_first_gives_the_same_answer(size, options):
    features, plain = random_map(2, 3, *size), small(border="extend", **options)
    fast = twin(plain, border="extend", conv_first=True, **options)
    torch.testing.assert_close(fast(features), plain(features), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        fast.train()(features), plain.train()(features), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("border", ["ignore", "count"])
def test_borders_differ_near_the_border_only(border):
    pools = (1, 3, 9)
    features, module = random_map(1, 3, 33, 35), small(border=border, pools=pools)
    fast = twin(module, border="extend", conv_first=True, pools=pools)
    with torch.no_grad():
        answer, other = module(features), fast(features)
    reach = 9 + 4
    inside = (..., slice(reach, -reach), slice(reach, -reach))
    torch.testing.assert_close(answer[inside], other[inside])
    assert (answer - other).abs().max() > 1e-2


@pytest.mark.parametrize("first_kernel", [1, 3])
@EVERY_BORDER
def test_regions_of_one_cell_are_aspp(first_kernel, border):
    features = random_map(2, 3, 9, 11)
    options = {"first_kernel": first_kernel}
    aspp = ASPP(3, channels=4, rates=(2, 3, 5), **options).double()
    module = small(pools=(1,) * 4, dilations=(1, 2, 3, 5), border=border, **options)
    module.load_state_dict(aspp.state_dict())
    torch.testing.assert_close(module(features), aspp.eval()(features))


def test_a_branch_is_one_large_convolution():
    # 3x3 of dilation 9 over means of 9 x 9 = 27 x 27 with block-constant weights.
    module = small(pools=(9,), global_branch=False)
    features, weight = random_map(1, 3, 29, 31), module.branches[0].conv.weight
    large = weight.repeat_interleave(9, 2).repeat_interleave(9, 3) / 81
    expected = module.branches[0].norm(functional.conv2d(features, large)).relu()
    torch.testing.assert_close(module(features)[..., 13:-13, 13:-13], expected)


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        assert count(VortexPooling(2048)) == 19_401_216
        assert count(module_a(2048, 5)) == 15_206_912


@pytest.mark.parametrize(
    ("build", "printed"),
    [
        (lambda: module_a(1, 1), 0.0059),
        (lambda: module_a(1, 5), 0.148),
        (lambda: module_a(1, 9), 0.479),
        (lambda: VortexPooling(1), 1.0),
    ],
    ids=["ASPP", "A5", "A9", "B"],
)
def test_nominal_utilisation_is_the_papers(build, printed):
    with torch.device("meta"):
        ratio = build().utilisation(65, 65)
    assert ratio == pytest.approx(printed, abs=0.5e-4 if printed < 0.01 else 0.5e-3)


def test_nominal_utilisation_of_module_b_ends_at_81_cells():
    with torch.device("meta"):
        module = VortexPooling(1)
    assert module.utilisation(81, 81) == 1
    assert module.utilisation(82, 82) == pytest.approx(81**2 / 82**2)


@pytest.mark.parametrize(
    ("pool", "length", "centre", "corner"),
    [
        (1, 65, 17, 10),
        (5, 65, 425, 174),
        (9, 65, 1377, 538),
        (13, 65, 2665, 1033),
        (None, 65, 4225, 1681),
        (None, 81, 6561, 1681),
        (None, 83, 6561, 1681),
    ],
    ids=["ASPP", "A5", "A9", "A13", "B", "B81", "B83"],
)
def test_cells_that_have_a_gradient(pool, length, centre, corner):
    module = VortexPooling(1, channels=1) if pool is None else module_a(1, pool, channels=1)
    module.image = None  # reads all of them
    with torch.no_grad():
        for branch in module.branches:
            branch.conv.weight.fill_(1.0)
    features = torch.ones(1, 1, length, length, requires_grad=True)
    answer = module.eval()(features).sum(1)[0]

    def cells(y, x):
        gradient = torch.autograd.grad(answer[y, x], features, retain_graph=True)[0]
        return int((gradient != 0).sum())

    assert (cells(length // 2, length // 2), cells(0, 0)) == (centre, corner)


@pytest.mark.parametrize(
    "module",
    [
        ASPP(1, channels=1, rates=(2, 7), global_branch=False),
        VortexPooling(1, channels=1, pools=(1, 3, 9), global_branch=False),
        module_a(1, 5, channels=1, rates=(2, 6)),
    ],
    ids=["ASPP", "B", "A"],
)
def test_reach_is_how_far_cells_have_a_gradient(module):
    module.image = None
    with torch.no_grad():
        for branch in module.branches:
            branch.conv.weight.fill_(1.0)
    features = torch.ones(1, 1, 41, 41, requires_grad=True)
    module.eval()(features).sum(1)[0, 20, 20].backward()
    rows = features.grad[0, 0].any(1).nonzero().flatten().tolist()
    assert (rows[0], rows[-1]) == (20 - module.reach, 20 + module.reach)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pools": ()}, "pool sizes"),
        ({"pools": (1, 4)}, "odd"),
        ({"pools": (-1,)}, "odd"),
        ({"pools": (1, 3), "dilations": (1,)}, "one number for each"),
        ({"border": "reflect"}, "border"),
        ({"conv_first": True}, "conv_first needs border='extend'"),
        ({"first_kernel": 5}, "first_kernel"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        VortexPooling(3, **options)
