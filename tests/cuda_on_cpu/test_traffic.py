"""What the kernels ask of memory, on a small case of the real kind; see ``meter.py``.

Bounds are a little above what was counted. They are tight enough to tell when a kernel is spoiled:
the same checks run again with changes to the source, most of which no test of values would notice.
"""

import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxseg.ops import slic
from voxseg.ops.cuda import superpixel_pool as pool
from voxseg.ops.cuda.slic import slic_tensor
from voxseg.ops.slic_plan import SlicSettings
from voxseg.ops.superpixel_plan import find_tiles

SHAPE = (16, 64, 64)
VOXELS = 16 * 64 * 64
CHANNELS = 8
SECTOR = 32
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SETTINGS = SlicSettings(n_segments=39, compactness=0.1, spacing=(1.0,) * 3, iterations=3)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2).astype(np.float32)


@pytest.fixture(scope="module")
def labels(image):
    """(1, *SHAPE) int32 labels of about 1700 voxels each, as the issue has them."""
    found = slic(image, n_segments=39, compactness=0.1, spacing=(1.0,) * 3)
    return torch.from_numpy(found.astype(np.int32))[None]


@pytest.fixture
def measure(cuda_on_cpu, image, labels, monkeypatch):
    """Run an op once under the meter, as it is or with a change to its source."""
    # One block works through all channels, as it does where there are tiles enough.
    monkeypatch.setattr(pool, "_ENOUGH_BLOCKS", 1)

    def run(op, dtype=torch.float32, mutate=None):
        count = int(labels.max()) + 1
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, CHANNELS, *SHAPE, generator=generator).to(dtype)
        values = torch.randn(1, CHANNELS, count, generator=generator).to(dtype)
        last = op.endswith("last")
        if last:
            features = features.contiguous(memory_format=torch.channels_last_3d)
        find_tiles(labels, count)
        with cuda_on_cpu.on_cpu(mode="meter", mutate=mutate) as meter:
            if op.startswith("max"):
                pool.superpixel_max(features, labels, count)
            elif op.startswith("sum"):
                pool.superpixel_sum(features, labels, count)
            elif op.startswith("unpool"):
                pool.superpixel_unpool(values, labels, last)
            elif op == "back":
                argmax = torch.randint(0, VOXELS, values.shape, generator=generator)
                pool.superpixel_max_backward(values, argmax.int(), list(features.shape), last)
            else:
                slic_tensor(torch.from_numpy(image), None, SETTINGS)
        return meter

    return run


def check_tiles(meter, op, dtype):
    size = CHANNELS * VOXELS * dtype.itemsize
    read = meter.total(f"{op}_tiles", where="features")
    assert read.width == 16
    assert read.sectors == read.fresh == size // SECTOR
    staged = meter.total(f"{op}_tiles", where="shared", kind="store", width=16)
    assert staged.waste == 1
    found = meter.total(f"{op}_tiles", where="shared", kind="load", width=16)
    assert found.lanes == staged.lanes == size // 16
    assert found.wavefronts / found.requests < 7.6
    assert found.lanes / found.requests > 29
    shared = meter.total(f"{op}_tiles", where="shared")
    # Times 128 bytes; the features' own size comes in and goes out once, 1.8 times with conflicts.
    assert shared.wavefronts * 128 < 3.6 * size
    others = sum(
        row.sectors
        for row in meter.rows
        if row.kernel == f"{op}_tiles" and row.where not in ("features", "shared", "partial")
    )
    assert others < 1.6 * 2 * VOXELS / SECTOR  # the plan: two bytes a voxel


def check_rows(meter, op, dtype):
    size = CHANNELS * VOXELS * dtype.itemsize
    written = meter.total(f"{op}_tiles", where="partial")
    assert written.fresh * SECTOR < 0.05 * size
    assert written.sectors < 2.1 * written.fresh
    again = meter.total(f"{op}_rows", where="partial")
    assert again.sectors == again.fresh == written.fresh


def check_last(meter, op, dtype):
    size = CHANNELS * VOXELS * dtype.itemsize
    read = meter.total(f"{op}_tiles_last", where="features")
    assert read.fresh == size // SECTOR
    assert read.sectors <= read.fresh * 1.02 * (4 // dtype.itemsize)
    assert read.lanes / read.requests > 29
    assert meter.total(f"{op}_tiles_last", where="partial").waste == 1


def check_unpool(meter, op, dtype):
    size = CHANNELS * VOXELS * dtype.itemsize
    written = meter.total("unpool", where="out")
    assert written.width == 16
    assert written.sectors == written.fresh == size // SECTOR
    labels = meter.total("unpool", where="superpixels")
    assert labels.fresh == 4 * VOXELS // SECTOR
    assert labels.sectors <= 16 // dtype.itemsize * labels.fresh  # one by one, in 16 bytes a thread
    looked_up = meter.total("unpool", where="values")
    assert looked_up.requests * 32 == CHANNELS * VOXELS
    assert looked_up.sectors / looked_up.requests < 4


def check_unpool_last(meter, op, dtype):
    written = meter.total("unpool_last", where="out")
    assert written.waste == 1
    assert written.sectors == written.fresh == CHANNELS * VOXELS * dtype.itemsize // SECTOR
    assert meter.total("unpool_last", where="values").waste < 1.5


def check_back(meter, op, dtype):
    written = meter.total("max_backward", where="out")
    assert written.sectors <= written.lanes
    assert meter.total("max_backward", where="grad").waste == 1


def check_slic(meter, op, dtype):
    rounds = SETTINGS.iterations + 1
    read = meter.total("slic_assign_one", where="image")
    assert read.lanes <= (2 * rounds - 1) * VOXELS  # once for distances, once for sums
    assert read.waste < 1.7  # blocks begin anywhere in a sector
    found = meter.total("slic_assign_one", where="shared", kind="load")
    assert found.waste < 1.02
    sums = meter.total("slic_assign_one", where="shared", kind="atomic")
    assert sums.lanes < 3 * 0.27 * (rounds - 1) * VOXELS
    assert sums.serial / sums.requests < 2.1
    assert sums.deepest <= 4
    partials = meter.total("slic_assign_one", where="partials")
    assert partials.fresh * SECTOR < 0.17 * (rounds - 1) * 4 * VOXELS


def check_unite(meter, op, dtype):
    assert meter.total("slic_unite", where="labels").waste < 1.25
    parents = meter.total("slic_unite", where="parent", kind="load")
    assert parents.lanes < 0.95 * VOXELS
    joined = meter.total("slic_unite", where="parent", kind="atomic")
    assert joined.lanes < 0.21 * VOXELS
    assert joined.deepest == 1
    for kernel in ("slic_start", "slic_roots", "slic_number", "slic_rename"):
        for row in meter.rows:
            if row.kernel == kernel and row.kind == "store":
                assert row.waste == 1


CHECKS = {
    "max": [check_tiles, check_rows],
    "sum": [check_tiles, check_rows],
    "max_last": [check_last],
    "sum_last": [check_last],
    "unpool": [check_unpool],
    "unpool_last": [check_unpool_last],
    "back": [check_back],
    "slic": [check_slic, check_unite],
}


def check_all(meter, op, dtype=torch.float32):
    for check in CHECKS[op]:
        check(meter, op.partition("_")[0], dtype)


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("op", [op for op in CHECKS if op != "slic"])
def test_pooling(measure, op, dtype):
    check_all(measure(op, dtype), op, dtype)


def test_slic(measure):
    check_all(measure("slic"), "slic")


# Op, old text and new text of its source, and what must fail.
SPOILED = {
    "numbers one by one": ("max", "if (vectors)\n    reduce", "if (false)\n    reduce", "width"),
    "a thread reads neighbours": (
        "sum", "(s * THREADS + threadIdx.x) * PER", "(threadIdx.x * STEPS + s) * PER", "sectors",
    ),
    "a round is read again": (
        "max", "if (channel + ROUND < reader.end)",
        "reader.fetch(channel);\n    if (channel + ROUND < reader.end)", "fresh",
    ),
    "banks are not mixed": ("max", "return offset ^ (offset >> 3 & 7)", "return offset", "waste"),
    "lanes along voxels": (
        "max_last", "int step = 32 / group;", "group = 1; int step = 32;", "sectors",
    ),
    "stores one by one": (
        "unpool", "*reinterpret_cast<uint4*>(line) = pack.raw;",
        "for (int q = 0; q < Pack::SIZE; ++q) line[q] = pack.value[q];", "width",
    ),
    "labels read for each channel": (
        "unpool", "pack.fill(table, label);\n      *re",
        "pack.fill(table, superpixels + image * voxels + begin);\n      *re", "sectors|requests",
    ),
    "one set of sums": ("slic", "threadIdx.x % SETS * NEIGHBOURS", "0", "serial"),
    "sums voxel by voxel": ("slic", "if (q != winner) {", "if (v > 0) {", "lanes"),
    "every neighbour is joined": ("slic", "if (!is_done) unite", "unite", "lanes"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_kernel_is_found(measure, name):
    op, old, new, message = SPOILED[name]
    meter = measure(op, mutate=(old, new))
    with pytest.raises(AssertionError) as failure:
        check_all(meter, op)
    assert re.search(message, str(failure.value))
