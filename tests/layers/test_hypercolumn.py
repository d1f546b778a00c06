"""Hypercolumns at chosen pixels and in boxes, against interpolation of the whole image."""

import math

import pytest
import torch
from torch.nn import functional

from voxseg.layers import hypercolumn
from voxseg.layers.depth_first import LiveBytes
from voxseg.layers.hypercolumn import boxes, dense_hypercolumns, sample_hypercolumns

MODES = {2: "bilinear", 3: "trilinear"}
# Image, maps, strides; None stretches a map over the image.
CASES = {
    "whole": ((12, 8), [(12, 8), (6, 4), (3, 2)], None),
    "odd": ((13, 7), [(13, 7), (7, 4), (4, 2), (1, 1)], None),
    "powers": (
        (13, 37),
        [(13, 37), (7, 19), (4, 10), (2, 5), (1, 3), (1, 2)],
        [1, 2, 4, 8, 16, 32],
    ),
    "uneven": ((9, 14), [(9, 5), (3, 14)], [(1, 3), (3, 1)]),
    "fractions": ((10, 9), [(7, 4), (3, 6)], [(1.5, 2.25), (3.5, 1.5)]),
    "volume": ((5, 6, 7), [(5, 6, 7), (3, 3, 4), (2, 2, 2)], [1, 2, 4]),
    "stretched volume": ((5, 3, 7), [(2, 3, 3), (1, 1, 1)], None),
    "one pixel": ((1, 1), [(1, 1), (1, 1)], [1, 4]),
}
EVERY = pytest.mark.parametrize("case", CASES)


def maps(shapes, batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, 2 + level, *shape, generator=generator, dtype=torch.float64).to(dtype)
        for level, shape in enumerate(shapes)
    ]


def steps_of(size, strides):
    """Strides with one number for each axis."""
    if strides is None:
        return None
    return [(s,) * len(size) if isinstance(s, int) else s for s in strides]


def reference(features, size, strides):
    """Every layer resized as torch does, over more than the image where its cells reach over it."""
    grown = []
    for level, feature in enumerate(features):
        stride = None if strides is None else strides[level]
        if stride is None:
            full, factors = list(size), None
        else:
            full = [math.floor(n * s) for n, s in zip(feature.shape[2:], stride, strict=True)]
            factors = [float(s) for s in stride]
        resized = functional.interpolate(
            feature,
            **({"size": full} if factors is None else {"scale_factor": factors}),
            mode=MODES[len(size)],
            align_corners=False,
        )
        assert list(resized.shape[2:]) == full
        grown.append(resized[(..., *(slice(n) for n in size))])
    return torch.cat(grown, 1)


def drawn(batch, size, count=11, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(math.prod(size), (batch, count), generator=generator)


def every_pixel(batch, size):
    return torch.arange(math.prod(size)).expand(batch, -1)


@EVERY
def test_sampled_values_and_gradients_match_dense(case):
    size, shapes, strides = CASES[case]
    strides = steps_of(size, strides)
    features, again = ([one.requires_grad_() for one in maps(shapes)] for _ in range(2))
    for points in (drawn(2, size), every_pixel(2, size)):
        expected = reference(features, size, strides).flatten(2)
        expected = expected.gather(2, points[:, None].expand(-1, expected.shape[1], -1))
        answer = sample_hypercolumns(again, points, size, strides)
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)
        gradient = torch.randn(expected.shape, dtype=torch.float64)
        wanted = torch.autograd.grad(expected, features, gradient)
        found = torch.autograd.grad(answer, again, gradient)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@EVERY
def test_boxes_of_dense_match_the_whole(case):
    size, shapes, strides = CASES[case]
    strides = steps_of(size, strides)
    features = maps(shapes)
    expected = reference(features, size, strides)
    for most in (1, 2, size[-1], 3 * size[-1], math.prod(size)):
        covered = torch.zeros(size)
        for box in boxes(size, most):
            answer = dense_hypercolumns(features, size, strides, box)
            torch.testing.assert_close(answer, expected[(..., *box)], rtol=0, atol=1e-12)
            covered[box] += 1
            assert covered[box].numel() <= most
        assert (covered == 1).all()
    torch.testing.assert_close(dense_hypercolumns(features, size, strides), expected)


def test_boxes_hold_whole_rows_where_they_fit():
    assert list(boxes((5, 4), 9)) == [
        (slice(0, 2), slice(0, 4)),
        (slice(2, 4), slice(0, 4)),
        (slice(4, 5), slice(0, 4)),
    ]
    assert [tuple(one.stop - one.start for one in box) for box in boxes((2, 3, 4), 8)] == [
        (1, 2, 4), (1, 1, 4), (1, 2, 4), (1, 1, 4),
    ]  # fmt: skip


def test_a_point_by_hand():
    # Row 2 of 4 with stride 2 lies at 0.75 of the map's two rows.
    feature = torch.tensor([[[[0.0], [4.0]]]])
    points = torch.tensor([[0, 1, 2, 3, 2]])
    answer = sample_hypercolumns([feature], points, (4, 1), [(2, 1)])
    torch.testing.assert_close(answer, torch.tensor([[[0.0, 1.0, 3.0, 4.0, 3.0]]]))


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 5)], ids=str)
def test_sample_gradient(size):
    shapes = [size, tuple(-(-n // 2) for n in size)]
    strides = [(1,) * len(size), (2,) * len(size)]
    features = [one.requires_grad_() for one in maps(shapes, batch=1)]
    points = drawn(1, size, 4)

    def sampled(*given):
        return sample_hypercolumns(given, points, size, strides)

    def dense(*given):
        return dense_hypercolumns(given, size, strides, list(boxes(size, 4))[1])

    assert torch.autograd.gradcheck(sampled, features)
    assert torch.autograd.gradcheck(dense, features)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_changes_nothing(layout, device):
    size, shapes, strides = CASES["powers"]
    strides = steps_of(size, strides)
    expected = sample_hypercolumns(maps(shapes), drawn(2, size), size, strides)
    given = [one.to(device).contiguous(memory_format=layout) for one in maps(shapes)]
    answer = sample_hypercolumns(given, drawn(2, size).to(device), size, strides)
    torch.testing.assert_close(answer.cpu(), expected, rtol=0, atol=1e-12)
    assert answer.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype, device):
    size, shapes, strides = CASES["odd"]
    features = [one.to(device).requires_grad_() for one in maps(shapes, dtype=dtype)]
    exact = [one.detach().float().requires_grad_() for one in features]
    points = every_pixel(2, size).to(device)
    answer = sample_hypercolumns(features, points, size, strides)
    expected = sample_hypercolumns(exact, points, size, strides)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer, expected.to(dtype), rtol=0, atol=0)
    answer.sum().backward()
    expected.sum().backward()
    for one, other in zip(features, exact, strict=True):
        # 91 terms meet in the last map's one cell: added up in half precision they would be off.
        torch.testing.assert_close(one.grad, other.grad.to(dtype), rtol=0, atol=0)


def test_no_point_gives_no_column():
    size, shapes, strides = CASES["volume"]
    features = [one.requires_grad_() for one in maps(shapes)]
    points = torch.empty(2, 0, dtype=torch.int64)
    answer = sample_hypercolumns(features, points, size, steps_of(size, strides))
    assert answer.shape == (2, 2 + 3 + 4, 0)
    answer.sum().backward()
    assert all(not one.grad.any() for one in features)


def test_sampling_takes_memory_for_the_points_alone():
    # One map of a coarse grid under a large image, which would take 32 MB.
    feature = torch.randn(1, 8, 16, 16, requires_grad=True)
    points = drawn(1, (1024, 1024), 100)
    with LiveBytes("cpu") as memory:
        sample_hypercolumns([feature], points, (1024, 1024)).sum().backward()
    assert memory.peak < 120_000


def test_rejects_points_outside_of_the_image():
    features = maps([(4, 5)])
    for wrong in (torch.full((2, 1), 20), torch.full((2, 1), -1)):
        with pytest.raises(ValueError, match=r"points must be in \[0, 20\)"):
            sample_hypercolumns(features, wrong, (4, 5))
    for wrong in (torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, 3)):
        with pytest.raises(ValueError, match=r"points must be \(2, P\) int64, got"):
            sample_hypercolumns(features, wrong, (4, 5))


def test_rejects_maps_that_do_not_fit():
    features = maps([(4, 5)])
    with pytest.raises(ValueError, match="does not cover an image of"):
        dense_hypercolumns(features, (9, 10), [(2, 2)])
    with pytest.raises(ValueError, match="a map of 3 axes is expected"):
        dense_hypercolumns(features, (4, 5, 6))
    with pytest.raises(ValueError, match="strides must be one for each of 1 maps"):
        dense_hypercolumns(features, (4, 5), [None, None])
    with pytest.raises(ValueError, match="at least one map"):
        sample_hypercolumns([], torch.zeros(2, 3, dtype=torch.int64), (4, 5))


def test_whole_strides_need_no_gathering(monkeypatch):
    monkeypatch.setattr(hypercolumn, "_sampled", None)
    size, shapes, strides = CASES["powers"]
    dense_hypercolumns(maps(shapes), size, steps_of(size, strides))
