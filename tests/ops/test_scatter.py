"""The scatter form gives what the operations give whose place it takes."""

import pytest
import torch

from voxseg.ops import superpixel_pool, superpixel_unpool
from voxseg.ops.scatter import SCATTER_FORM, gather_voxels, scatter_max, scatter_mean


@pytest.mark.parametrize("shape", [(7,), (5, 6), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("count", [1, 4, 300])
def test_scatter_form_matches_the_operations(shape, count, generator):
    features = torch.randn(2, 3, *shape, generator=generator) - 2  # maxima below 0, too
    # Some voxels in none, some beyond the last, and empty superpixels where there are many.
    superpixels = torch.randint(-2, count + 1, (2, *shape), generator=generator)
    pooled, winners = scatter_max(features, superpixels, count)
    expected = superpixel_pool(features, superpixels, count, "max")
    torch.testing.assert_close(pooled, expected, rtol=0, atol=0)
    assert not winners.any()
    means, sizes = scatter_mean(features, superpixels, count)
    torch.testing.assert_close(means, superpixel_pool(features, superpixels, count, "mean"))
    known = (superpixels >= 0) & (superpixels < count)
    torch.testing.assert_close(sizes.sum(1), known.flatten(1).sum(1))
    back = gather_voxels(pooled, superpixels, False)
    torch.testing.assert_close(back, superpixel_unpool(pooled, superpixels), rtol=0, atol=0)


def test_it_answers_for_every_operation_of_inference():
    names = {op.name() for op in SCATTER_FORM}
    assert names == {f"voxseg::superpixel_{name}" for name in ("max", "mean", "unpool")}
