import pytest
import torch

from voxseg.ops import superpixel_pool
from voxseg.ops.running_pool import RunningPool


def case(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    # Far below zero, where the 0 of an empty superpixel would win a maximum.
    features = torch.randn(1, 5, 23, 9, 7, generator=generator, dtype=dtype) - 9
    superpixels = torch.randint(-1, 40, (1, 23, 9, 7), generator=generator, dtype=torch.int32)
    superpixels[:, :12] //= 2  # some superpixels are in one part only
    superpixels[:, 12:][superpixels[:, 12:] < 5] = 5
    superpixels[superpixels == 7] = 8  # and one is nowhere
    return features, superpixels


def pooled(features, superpixels, reduce):
    pool = RunningPool(40, reduce)
    for part in (slice(0, 3), slice(3, 12), slice(12, 23)):
        pool.add(features[:, :, part], superpixels[:, part])
    return pool.result()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_maxima_of_parts_are_those_of_the_whole_to_the_bit(dtype):
    features, superpixels = case(dtype)
    found = pooled(features, superpixels, "max")
    assert torch.equal(found, superpixel_pool(features, superpixels, 40))
    assert (found[..., 7] == 0).all()
    assert found.dtype == dtype


def test_means_of_parts_are_those_of_the_whole():
    features, superpixels = case()
    found = pooled(features, superpixels, "mean")
    expected = superpixel_pool(features, superpixels, 40, reduce="mean")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (found[..., 7] == 0).all()


def test_not_a_number_is_the_largest_in_parts_too():
    features, superpixels = case()
    features[0, 2, 4, 4, 4] = torch.nan
    superpixels[0, 4, 4, 4] = 3
    found = pooled(features, superpixels, "max")
    assert found[0, 2, 3].isnan()
    assert int(found.isnan().sum()) == 1


def test_nothing_cannot_be_pooled():
    with pytest.raises(ValueError, match="no part"):
        RunningPool(3).result()
