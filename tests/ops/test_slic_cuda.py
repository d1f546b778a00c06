"""The CUDA twin of SLIC: its kernels run on a CPU, through its own launchers, and on a GPU if any.

The CPU twin's labels are the measure: floating-point operations come in the same order, so they are
equal to the bit here.
"""

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxseg.ops import enforce_connectivity, slic
from voxseg.ops.cuda.slic import slic_tensor
from voxseg.ops.cuda.slic_connectivity import merge_small
from voxseg.ops.cuda.slic_image import scaled_image
from voxseg.ops.nvrtc import KernelError
from voxseg.ops.reference import slic as reference
from voxseg.ops.slic import slic_array
from voxseg.ops.slic_plan import SlicSettings, make_plan

# Flat, thin and deep volumes; several blocks a cell; cells of one voxel; a single cell.
CASES = [
    ((9, 14, 13), 1, 20),
    ((1, 40, 33), 3, 30),
    ((20, 9, 37), 2, 3),
    ((6, 5, 7), 1, 10_000),
    ((3, 70, 66), 1, 4),
    ((33, 34, 35), 1, 60),
    ((40, 20, 19), 29, 1),
    ((1, 1, 1), 1, 5),
    ((50, 1, 2), 1, 7),
]


def smooth_noise(rng, shape, sigma=1.0):
    return ndimage.gaussian_filter(rng.standard_normal(shape), sigma).astype(np.float32)


def case(rng, shape, channels, masked):
    """(C, Z, Y, X) float32, and a mask with islands or None."""
    image = np.stack([smooth_noise(rng, shape) for _ in range(channels)])
    mask = None
    if masked:
        mask = smooth_noise(rng, shape, 1.5) > -0.02
        mask.flat[0], mask.flat[-1] = True, True
        image[:, ~mask] = np.nan
    return image, mask


def on_tensors(image, mask, settings):
    inside = None if mask is None else torch.from_numpy(mask)
    return slic_tensor(torch.from_numpy(image), inside, settings).numpy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "mask"])
@pytest.mark.parametrize(("shape", "channels", "n_segments"), CASES, ids=str)
def test_labels_are_those_of_the_cpu(shape, channels, n_segments, masked, seed, rng, cuda_on_cpu):
    image, mask = case(rng, shape, channels, masked)
    settings = SlicSettings(
        compactness=0.1, spacing=(1.5, 1.0, 0.8), n_segments=n_segments, iterations=4
    )
    expected = slic_array(image, mask, settings)
    with cuda_on_cpu.on_cpu(seed=seed):
        result = on_tensors(image, mask, settings)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("compactness", [0.01, 0.3, 7.0])
def test_labels_are_those_of_the_reference(compactness, rng, cuda_on_cpu):
    image, mask = case(rng, (2, 31, 29), 1, True)
    settings = SlicSettings(
        compactness=compactness, spacing=(3.0, 1.0, 1.0), size_mm=5.0, iterations=6
    )
    plan = make_plan(image, mask, settings)
    cells, count = reference.assign_cells(plan, settings.iterations)
    expected, _ = reference.merge_small(cells, 0.5 * plan.num_voxels / count)
    with cuda_on_cpu.on_cpu(seed=2):
        np.testing.assert_array_equal(on_tensors(image, mask, settings), expected)


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.bool, torch.int16, torch.int64, torch.float16, torch.float64],
    ids=str,
)
def test_any_dtype_and_layout(dtype, generator, cuda_on_cpu):
    image = torch.randint(0, 2 if dtype == torch.bool else 100, (21, 26), generator=generator)
    image = image.to(dtype).T
    settings = SlicSettings(compactness=0.3, spacing=(1.0, 2.0), n_segments=12)
    expected = slic_array(image.numpy(), None, settings)
    with cuda_on_cpu.on_cpu():
        np.testing.assert_array_equal(slic_tensor(image, None, settings), expected)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "mask"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16], ids=str)
def test_smoothing_is_that_of_scipy(dtype, masked, rng, cuda_on_cpu):
    image, mask = case(rng, (7, 12, 30), 2, masked)
    image = (np.nan_to_num(image) * 1000).astype(dtype)
    settings = SlicSettings(
        compactness=0.1, spacing=(1.0, 2.0, 0.5), n_segments=15, sigma_mm=1.1, iterations=3
    )
    plan = make_plan(image, mask, settings)
    offset, factor = plan.scaling.T.reshape(2, 2, 1, 1, 1)
    expected = (plan.image - offset) * factor
    if masked:
        expected = np.where(mask, expected, np.inf)
    with cuda_on_cpu.on_cpu(seed=1):
        scaled, numbers = scaled_image(
            torch.from_numpy(image), torch.from_numpy(mask) if masked else None, settings
        )
        labels = on_tensors(image, mask, settings)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-6)
    assert (numbers.box, numbers.num_cells) == (plan.box, plan.num_cells)
    assert np.mean(labels == slic_array(image, mask, settings)) > 0.99


@pytest.mark.parametrize("sigma_mm", [0.0, 1.3])
def test_a_constant_gives_blocks(sigma_mm, cuda_on_cpu):
    image = np.full((12, 15, 9), 7.3)
    settings = SlicSettings(compactness=0.1, spacing=(1.0, 1.0, 1.0), size_mm=3, sigma_mm=sigma_mm)
    with cuda_on_cpu.on_cpu():
        labels = on_tensors(image, None, settings)
    np.testing.assert_array_equal(labels, slic_array(image, None, settings))
    assert labels.max() + 1 == 4 * 5 * 3


def test_pieces_of_just_the_least_size_stay(cuda_on_cpu):
    # 75 cells of 7 voxels; 525 * (1 / 75) is more than 7.
    settings = SlicSettings(compactness=0.1, spacing=(1.0, 7.0), size_mm=7, min_size=1.0)
    image = np.ones((35, 15), np.float32)
    with cuda_on_cpu.on_cpu():
        labels = on_tensors(image, None, settings)
    np.testing.assert_array_equal(np.bincount(labels.ravel()), [7] * 75)


def test_nothing_in_the_mask(cuda_on_cpu):
    settings = SlicSettings(compactness=0.1, spacing=(1.0, 1.0), n_segments=3)
    with cuda_on_cpu.on_cpu():
        labels = on_tensors(np.ones((4, 5)), np.zeros((4, 5), bool), settings)
    np.testing.assert_array_equal(labels, np.full((4, 5), -1))


@pytest.mark.parametrize("min_voxels", [0, 1, 2, 7.5, 60, 1e9])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 37, 41), (7, 11, 13), (40, 3, 1), (3, 1, 50), (9, 40, 11)], ids=str
)
def test_connectivity_is_that_of_the_cpu(shape, min_voxels, rng, cuda_on_cpu):
    regions = np.digitize(smooth_noise(rng, shape, 1.5), [-0.1, 0.0, 0.1])
    # In noise nearly every voxel is a component, so merging takes several rounds.
    noise = rng.integers(-1, 3, shape)
    least = torch.tensor([min_voxels], dtype=torch.float64)
    for labels in (regions.astype(np.int32), noise.astype(np.int32)):
        expected = enforce_connectivity(labels, min_voxels=min_voxels)
        with cuda_on_cpu.on_cpu(seed=3):
            result = merge_small(torch.from_numpy(labels.copy()), least)
        np.testing.assert_array_equal(result, expected)


def test_connectivity_of_a_snake(cuda_on_cpu):
    # One component that winds through all warps and blocks, its end far from its root.
    labels = np.zeros((3, 31, 67), np.int32)
    labels[:, 1::4, :-1] = labels[:, 3::4, 1:] = 1
    labels[1] = 1
    labels[1, 30, 66] = 0
    for seed in range(4):
        with cuda_on_cpu.on_cpu(seed=seed):
            result = merge_small(
                torch.from_numpy(labels.copy()), torch.zeros(1, dtype=torch.float64)
            )
        np.testing.assert_array_equal(result, enforce_connectivity(labels))


def test_sums_of_the_largest_block_do_not_overflow(cuda_on_cpu):
    # Blocks of 8 x 16 x 16 voxels, all but one at the top of the range: sums of 2**33.
    image = np.full((16, 16, 32), 5.0, np.float32)
    image[3, 4, 5] = 0
    settings = SlicSettings(compactness=0.1, spacing=(1.0, 1.0, 1.0), size_mm=16)
    with cuda_on_cpu.on_cpu():
        labels = on_tensors(image, None, settings)
    np.testing.assert_array_equal(labels, slic_array(image, None, settings))


@pytest.mark.parametrize(
    ("shape", "channels", "masked"), [((9, 19, 21), 1, True), ((1, 33, 18), 2, False)], ids=str
)
def test_no_race_and_no_access_out_of_bounds(shape, channels, masked, rng, cuda_on_cpu):
    image, mask = case(rng, shape, channels, masked)
    settings = SlicSettings(
        compactness=0.1, spacing=(1.5, 1.0, 0.8), n_segments=9, iterations=2, sigma_mm=0.8
    )
    with cuda_on_cpu.on_cpu(seed=4, mode="race"):
        labels = on_tensors(image, mask, settings)
    np.testing.assert_array_equal(labels, slic_array(image, mask, settings))


BUGS = {
    "no barrier behind the candidates": (
        "3 + channels, reach);\n  __syncthreads();", "3 + channels, reach);", True,
    ),
    "no barrier before the distances": (
        "z_weight);\n  __syncthreads();", "z_weight);", True,
    ),
    "no barrier before the sums are read": (
        "levels, best);\n    __syncthreads();", "levels, best);", True,
    ),
    "no barrier between channels": ("    __syncthreads();\n  }\n}", "  }\n}", True),
    "no barrier before the lanes are added": (
        "sums[threadIdx.x] = sum;\n    __syncthreads();", "sums[threadIdx.x] = sum;", True,
    ),
    "a plain sum of values": ("atomicAdd(&sums[winner], sum)", "sums[winner] += sum", True),
    "a plain sum of positions": ("atomicAdd(&tops[winner], ", "tops[winner] += (", True),
    "a run too few": ("for (int v = 0; v <= DEPTH; ++v)", "for (int v = 0; v < DEPTH; ++v)", False),
    "a neighbour too few": ("cell[a] + reach + 1,", "cell[a] + reach,", False),
    "ties to the last": ("& ~CODE_BITS) | q)", "& ~CODE_BITS) | (30 - q))", False),
    "no bound of the volume": ("if (i >= voxels) return;\n  int label", "int label", True),
    "a plain write for an atomic minimum": (
        "int before = atomicMin(parent + high, low);",
        "int before = parent[high];\n    parent[high] = low;", True,
    ),
    "a plain cursor": (
        "shared[0] = atomicAdd(cursor, u64(*total))",
        "{ shared[0] = *cursor; *cursor += *total; }", True,
    ),
    "no barrier before the cursor": (
        "u32(count)) : 0;\n  __syncthreads();", "u32(count)) : 0;", True,
    ),
    "equals merge backwards": ("other < own)", "other > own)", False),
    "ties of contact to the later": ("u32(~u32(keys[i]))", "u32(keys[i])", False),
    "a face beyond the row": ("x + 1 < width", "x < width", False),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug, rng, cuda_on_cpu):
    old, new, race = BUGS[bug]
    image, mask = case(rng, (9, 19, 35), 2, True)
    settings = SlicSettings(compactness=0.05, spacing=(1.0,) * 3, n_segments=12, iterations=3)
    expected = slic_array(image, mask, settings)
    noise = rng.integers(-1, 3, (5, 13, 33)).astype(np.int32)
    merged = enforce_connectivity(noise, min_voxels=4)

    def check():
        np.testing.assert_array_equal(on_tensors(image, mask, settings), expected)
        least = torch.tensor([4.0], dtype=torch.float64)
        np.testing.assert_array_equal(merge_small(torch.from_numpy(noise), least), merged)

    with (
        cuda_on_cpu.on_cpu(seed=2, mode="race" if race else "plain", mutate=(old, new)),
        # A LaunchError is one; but a bug that no compiler takes is not found.
        pytest.raises(AssertionError, match=r"^(?!.*cannot build)"),
    ):
        check()


def test_it_rejects(cuda_on_cpu, monkeypatch):
    settings = SlicSettings(compactness=0.1, spacing=(1.0, 1.0), n_segments=3)
    image, mask = torch.ones(4, 5), torch.ones(4, 5, dtype=torch.bool)
    with cuda_on_cpu.on_cpu():
        with pytest.raises(TypeError, match="real numbers"):
            slic_tensor(image.cfloat(), None, settings)
        with pytest.raises(TypeError, match="boolean"):
            slic_tensor(image, mask.int(), settings)
        with pytest.raises(ValueError, match="shape"):
            slic_tensor(image, mask[:3], settings)
        with pytest.raises(ValueError, match="voxels"):
            slic_tensor(image[:0], None, settings)
        for value in (torch.nan, torch.inf, -torch.inf):
            image[2, 3] = value
            with pytest.raises(ValueError, match="NaN or infinite"):
                slic_tensor(image, None, settings)
            with pytest.raises(ValueError, match="NaN or infinite"):
                slic_tensor(image, mask, settings)
        mask[2, 3] = False
        assert slic_tensor(image, mask, settings)[2, 3] == -1
        monkeypatch.setenv("VOXSEG_KERNELS", "torch")
        with pytest.raises(KernelError, match="VOXSEG_KERNELS"):
            slic_tensor(image, mask, settings)
    with pytest.raises(ValueError, match="device"):
        slic(image, n_segments=3, compactness=0.1, mask=mask.to("meta"))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "mask"])
def test_opcheck_on_a_device(masked, generator, device):
    image = torch.rand((2, 5, 6, 7), generator=generator).to(device)
    arguments = (image, image[0] > 0.2 if masked else None, [1.0, 1.0, 2.0])
    torch.library.opcheck(torch.ops.voxseg.slic.default, (*arguments, 0.1, 10, None, 3, 0.5, 0.5))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "mask"])
@pytest.mark.parametrize("channels", [1, 2])
def test_slic_on_a_device(channels, masked, rng, device):
    image, mask = case(rng, (50, 61, 63), channels, masked)
    wanted = {"compactness": 0.1, "n_segments": 200, "spacing": (1.2, 1.0, 1.0), "sigma_mm": 0.7}
    expected = slic(image, mask=mask, **wanted)
    inside = None if mask is None else torch.from_numpy(mask).to(device)
    labels = slic(torch.from_numpy(image).to(device), mask=inside, **wanted)
    assert labels.device.type == device.type
    again = slic(torch.from_numpy(image).to(device), mask=inside, **wanted)
    torch.testing.assert_close(again, labels, rtol=0, atol=0)
    found = labels.cpu().numpy()
    # Connected, without gaps, in raster order, -1 exactly off the mask.
    np.testing.assert_array_equal(enforce_connectivity(found), found)
    np.testing.assert_array_equal(found < 0, expected < 0)
    assert np.mean(found == expected) >= 0.9999
