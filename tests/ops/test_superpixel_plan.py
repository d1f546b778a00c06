"""Plans: every voxel once, in order; found again by identity; bad labels named."""

import gc
import importlib
import math

import numpy as np
import pytest
import torch

from voxseg.ops import superpixel_plan, superpixel_pool, superpixel_unpool
from voxseg.ops.superpixel_plan import (
    TILE_VOXELS,
    find_tiles,
    find_tiles_if_worth_it,
    make_tiles,
    narrow,
)

# By name: the package exports a function that is called like the module.
MODULE = importlib.import_module("voxseg.ops.superpixel_plan")
SHAPES = [(3000,), (1,), (40, 70), (9, 10, 33), (16, 8, 64), (1, 5, 7), (17, 1, 1)]


def labels_of(shape, count, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, count + 1, (batch, *shape), generator=generator)
    labels[labels == 1] = 0
    return labels.int()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 5])
def test_rows_hold_every_voxel_once_in_order(shape, count, device):
    labels = labels_of(shape, count)
    tiles = make_tiles(labels.to(device), count)
    first, rows = tiles.first.cpu(), tiles.rows.cpu()
    tile_of = np.repeat(np.arange(len(tiles.base) - 1), np.diff(tiles.base.cpu()))
    for image, flat in enumerate(labels.flatten(1).numpy()):
        for label in range(count):
            slot = image * count + label
            mine = rows[first[slot] : first[slot + 1]].numpy()
            assert (np.diff(tile_of[mine]) > 0).all()
            voxels = np.concatenate([_voxels(tiles, row, tile_of[row]) for row in mine] or [[]])
            np.testing.assert_array_equal(np.sort(voxels), np.flatnonzero(flat == label))
            assert tiles.sizes[image, label] == len(voxels)


def _voxels(tiles, row, tile):
    """Linear indices of a row, decoded as the kernels do; rising within the row."""
    start, stop = int(tiles.start[row]), int(tiles.stop[row])
    begin = tile * TILE_VOXELS
    offsets = tiles.offsets[begin + start : begin + stop].cpu().numpy().astype(int)
    cut = [-(-n // 2**b) for n, b in zip(tiles.shape, tiles.bits, strict=True)]
    corner = np.unravel_index(tile % math.prod(cut), cut)
    inside = np.unravel_index(offsets, [2**b for b in tiles.bits])
    place = [c * 2**b + i for c, b, i in zip(corner, tiles.bits, inside, strict=True)]
    found = np.ravel_multi_index(place, tiles.shape)
    assert (np.diff(found) > 0).all()
    return found


def test_noise_is_not_coherent_but_regions_are():
    noise = labels_of((16, 16, 64), 500)
    assert not make_tiles(noise, 500).is_coherent
    assert make_tiles(noise // 500, 1).is_coherent


def test_tiles_of_nothing():
    assert make_tiles(torch.zeros(0, 4, 4, dtype=torch.int32), 3).sizes.shape == (0, 3)
    assert make_tiles(torch.zeros(2, 4, 0, dtype=torch.int32), 3).rows.numel() == 0
    assert make_tiles(torch.zeros(2, 4, 4, dtype=torch.int32), 0).rows.numel() == 0


def test_a_plan_is_found_by_the_tensor_and_its_version():
    labels = labels_of((8, 8, 32), 4)
    tiles = find_tiles(labels, 4)
    assert find_tiles(labels, 4) is tiles
    assert find_tiles(labels.clone(), 4) is not tiles
    assert find_tiles(labels, 5) is not tiles
    labels[0, 0, 0, 0] = 3
    changed = find_tiles(labels, 4)
    assert changed is not tiles
    np.testing.assert_array_equal(changed.sizes[0], torch.bincount(labels[0][labels[0] >= 0])[:4])


def test_a_plan_is_not_made_for_one_use():
    labels = labels_of((8, 8, 32), 4) * 0
    assert find_tiles_if_worth_it(labels, 4) is None
    assert find_tiles_if_worth_it(labels, 4) is not None
    noise = labels_of((16, 16, 64), 500)
    assert [find_tiles_if_worth_it(noise, 500) for _ in range(2)] == [None, None]


def test_a_plan_goes_with_its_tensor():
    known = MODULE._known
    labels = labels_of((8, 8, 32), 4)
    find_tiles(labels, 4)
    key = id(labels)
    assert key in known
    del labels
    gc.collect()
    assert key not in known


def test_inference_tensors_are_never_remembered():
    with torch.inference_mode():
        labels = labels_of((8, 8, 32), 4)
        assert find_tiles_if_worth_it(labels, 4) is None
        assert find_tiles_if_worth_it(labels, 4) is None
        assert find_tiles(labels, 4) is not find_tiles(labels, 4)


def test_a_plan_by_hand_is_found_in_inference_mode_too(device, monkeypatch):
    made = []
    monkeypatch.setattr(MODULE, "make_tiles", lambda *a: made.append(a) or make_tiles(*a))
    with torch.inference_mode():
        labels = labels_of((9, 10, 33), 5).to(device).clone()
        assert labels.is_inference()
        plan = superpixel_plan(labels.clamp_max(4), 5)
        features = torch.rand(2, 3, 9, 10, 33).to(device)
        for _ in range(3):
            superpixel_pool(features, plan, 5, "mean")
            superpixel_pool(features, plan, 5, "max")
    assert len(made) == (device.type == "cuda")


@pytest.mark.cuda
def test_another_stream_waits_for_what_is_kept(pretence, cuda_device, monkeypatch):
    """What one stream makes in secret is there when another one uses it, and stays until then."""

    class Stream:
        def __init__(self, number):
            self.cuda_stream = number

        def wait_event(self, event):
            assert event._recorded
            story.append(("waits", self.cuda_stream))

    def kept(tensor, stream):
        story.append(("kept", stream.cuda_stream))

    story, first, second = [], Stream(1), Stream(2)
    monkeypatch.setattr(torch.Tensor, "record_stream", kept)
    labels = labels_of((9, 10, 33), 5).long().to(cuda_device)
    for stream, expected in (
        (first, []),
        (first, []),
        (second, [("waits", 2), ("kept", 2)]),
        (first, []),
    ):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_, own=stream: own)
        narrowed = narrow(labels)
        assert story == expected
        story.clear()
        tiles = find_tiles(narrowed, 5)
        assert story == expected[:1] + expected[1:] * len(tiles.tensors)
        story.clear()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: second)
    assert find_tiles(narrow(labels), 5) is tiles
    assert story == []


@pytest.mark.cuda
def test_what_a_graph_captures_is_not_kept(pretence, cuda_device, monkeypatch):
    labels = labels_of((9, 10, 33), 5).long().to(cuda_device)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    captured = narrow(labels)
    assert narrow(labels) is not captured
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    kept = narrow(labels)
    assert kept is not captured
    assert narrow(labels) is kept


def test_narrow_keeps_what_does_not_fit_outside():
    wide = torch.tensor([[-(2**40), -1, 0, 5, 2**31, 2**40]])
    assert narrow(wide).tolist() == [[-1, -1, 0, 5, 2**31 - 1, 2**31 - 1]]


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_ops_take_a_plan(reduce, device):
    labels = labels_of((6, 7), 4).clamp_max(3).long().to(device)
    features = torch.randn(2, 3, 6, 7, device=device)
    plan = superpixel_plan(labels, 4)
    expected = superpixel_pool(features, labels, 4, reduce)
    torch.testing.assert_close(superpixel_pool(features, plan, 4, reduce), expected)
    again = superpixel_unpool(expected, plan)
    torch.testing.assert_close(again, superpixel_unpool(expected, labels))
    with pytest.raises(ValueError, match="the plan is of 4 superpixels, but 5 were asked for"):
        superpixel_pool(features, plan, 5, reduce)


def test_plan_names_the_first_label_that_is_too_large():
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    labels[1, 2, 0] = labels[1, 1, 3] = 7
    with pytest.raises(ValueError, match=r"superpixels\[1, 1, 3\] is 7, but count is 7"):
        superpixel_plan(labels, 7)


@pytest.mark.parametrize(
    ("labels", "count", "error", "message"),
    [
        (torch.zeros(2, 3), 4, TypeError, "must be integer, got torch.float32"),
        (torch.zeros(2, dtype=torch.int32), 4, ValueError, "1 to 3 spatial axes"),
        (torch.zeros(2, 3, dtype=torch.int32), -1, ValueError, "count must be in"),
    ],
)
def test_plan_rejects(labels, count, error, message):
    with pytest.raises(error, match=message):
        superpixel_plan(labels, count)


def test_an_image_too_large_is_refused():
    huge = torch.zeros(1, dtype=torch.int32).expand(2**16, 2**16)[None]
    with pytest.raises(ValueError, match=r"4294967296 voxels is too large"):
        make_tiles(huge, 1)


def test_out_of_memory_says_how_much(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(MODULE, "_sorted_tiles", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"plan of 128 labels .* takes about"):
        make_tiles(torch.zeros(2, 64, dtype=torch.int32), 1)


def test_a_device_without_room_says_what_a_plan_takes(pretence, cuda_on_cpu):
    labels = torch.zeros(1, 32, 64, 64, dtype=torch.int32)
    with pretence.pretended(memory_bytes=4 * labels.nbytes) as device:
        here = labels.to(device)
        for call in (
            lambda: superpixel_plan(here, 1),
            lambda: superpixel_pool(here[:, None].float(), here, 1, "mean"),
        ):
            with pytest.raises(
                torch.OutOfMemoryError, match="plan of 131072 labels on cuda:0, whi"
            ):
                call()
