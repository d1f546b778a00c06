import numpy as np
import pytest

from voxseg.engine.tiles import Tiling, pick, tilings, windows_of
from voxseg.models import VoxResNet

SHAPE = (61, 40, 17)


def test_cores_cover_every_voxel_once_and_lie_within_their_margin():
    tiling = Tiling(SHAPE, (16, 24, 17), (5, 3, 3), (4, 2, 2))
    hits = np.zeros(SHAPE, int)
    for tile in tiling:
        hits[tile.core] += 1
        bounds = zip(tile.core, tile.outer, tiling.shape, tiling.reach, (4, 2, 2), strict=True)
        for core, outer, n, reach, stride in bounds:
            assert outer.start % stride == 0
            assert outer.start <= max(0, core.start - reach)
            assert outer.stop >= min(n, core.stop + reach)
            assert outer.stop == n or outer.stop % stride == 0
    assert (hits == 1).all()
    assert tiling.count == len(list(tiling)) == 8
    read = sum(np.prod([s.stop - s.start for s in t.outer]) for t in tiling)
    assert tiling.cost == pytest.approx(read / np.prod(SHAPE))
    largest = np.max([[s.stop - s.start for s in t.outer] for t in tiling], axis=0)
    assert tiling.outer == tuple(largest)


def test_tilings_begin_with_the_whole_and_grow_dearer():
    found = tilings(VoxResNet(1, 2, stages=1, width_divisor=8), (96, 80, 64))
    assert found[0].is_whole
    assert str(found[0]) == "whole volume at once"
    costs = [tiling.cost for tiling in found]
    assert costs == sorted(costs)
    assert 1 == costs[0] < costs[-1] <= 8
    assert any("slabs of" in str(tiling) for tiling in found)
    assert any("tiles of" in str(tiling) for tiling in found)


def test_a_norm_that_sees_the_whole_image_has_no_tiles():
    network = VoxResNet(1, 2, stages=1, width_divisor=8, norm="instance")
    assert network.reach is None
    assert [tiling.is_whole for tiling in tilings(network, (96, 80, 64))] == [True]


def test_the_first_that_fits_is_taken_or_else_the_smallest():
    found = tilings(VoxResNet(1, 2, stages=1, width_divisor=8), (96, 80, 64))

    def size(tiling):
        return float(np.prod(tiling.outer))

    assert pick(found, size, 1e9) is found[0]
    middle = pick(found, size, 2e5)
    assert size(middle) <= 2e5
    assert all(size(t) > 2e5 for t in found[: found.index(middle)])
    assert size(pick(found, size, 0)) == min(map(size, found))


def test_windows_cover_the_volume_and_are_no_larger():
    windows = windows_of((50, 20, 31), (24,), 0.5)
    assert windows.size == (24, 20, 24)
    assert windows.axis == 0
    assert windows.starts == [[0, 12, 24, 26], [0], [0, 7]]
    hits = np.zeros((50, 20, 31), int)
    for start in windows.starts[0]:
        for region in windows.row(start):
            hits[region] += 1
    assert hits.min() == 1
    assert windows.count == 8
    assert str(windows) == "8 windows of 24x20x24, blended where they overlap"


@pytest.mark.parametrize("shape", [(512, 512, 600), (9, 7, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("stages", [1, 3])
def test_any_network_and_size_has_an_answer_at_once(stages, shape):
    found = tilings(VoxResNet(1, 2, stages=stages, width_divisor=8), shape)
    assert found[0].is_whole
    assert all(tiling.cost <= 8 for tiling in found)
