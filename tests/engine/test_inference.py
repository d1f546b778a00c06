from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Grid, Prepared
from voxseg.engine.config import ModelConfig, PredictConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.inference import plan_memory, predict_probabilities
from voxseg.engine.network import build_network

# Windows of 24 then start at even voxels, where the stride-2 stage falls as in the whole volume.
SHAPE = (36, 24, 30)
COMPUTE = choose_compute(torch.device("cpu"), "float32", "auto", 3)
WHOLE = PredictConfig(memory_gb=100.0)
WINDOWS = PredictConfig(memory_gb=1e-9, window_voxels=(24, 24, 24), overlap=0.75)


def prepared(seed=0):
    rng = np.random.default_rng(seed)
    blocks = [np.arange(n) // 6 for n in SHAPE]
    grid = np.meshgrid(*blocks, indexing="ij")
    superpixels = np.ravel_multi_index(grid, [6, 4, 5]).astype(np.int32)
    superpixels = np.unique(superpixels, return_inverse=True)[1].reshape(SHAPE).astype(np.int32)
    superpixels[0] = -1
    box = tuple((0, n) for n in SHAPE)
    return Prepared(
        case_id="a",
        image=rng.normal(size=(1, *SHAPE)).astype(np.float32),
        label=None,
        superpixels=superpixels,
        mask_box=box,
        spacing=(1.0, 1.0, 1.0),
        grid=Grid(SHAPE, Orientation((0, 1, 2), (False,) * 3), SHAPE, box),
    )


def network(design, in_channels=1):
    torch.manual_seed(0)
    net = build_network(ModelConfig(design=design), in_channels, 3, 3)
    # Scores that differ visibly, as after training; they start from N(0, 0.01).
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "heads" in name:
                value.normal_(0, 0.5)
    COMPUTE.place(net)
    return net.eval()


@pytest.mark.parametrize("design", ["V0", "V1", "V2", "V3"])
def test_whole_volume_is_the_network_itself(design):
    case, net = prepared(), network(design)
    found = predict_probabilities(net, case, COMPUTE, WHOLE, coordinates=False)
    superpixels = torch.from_numpy(case.superpixels)[None]
    with torch.inference_mode():
        count = int(superpixels.max()) + 1
        logits = net(torch.from_numpy(case.image)[None], superpixels, count)
    np.testing.assert_allclose(found, logits[0].softmax(0).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("design", ["V1", "V2"])
def test_windows_leave_no_seam_in_a_supervoxel(design):
    case, net = prepared(), network(design)
    found = predict_probabilities(net, case, COMPUTE, WINDOWS, coordinates=False)
    for k in range(0, int(case.superpixels.max()) + 1, 7):
        inside = found[:, case.superpixels == k]
        np.testing.assert_allclose(inside, inside[:, :1].repeat(inside.shape[1], 1), atol=1e-6)


@pytest.mark.parametrize("design", ["V0", "V3"])
def test_windows_agree_with_the_whole_away_from_their_borders(design):
    case, net = prepared(), network(design)
    whole = predict_probabilities(net, case, COMPUTE, WHOLE, coordinates=False)
    windows = predict_probabilities(net, case, COMPUTE, WINDOWS, coordinates=False)
    agree = (whole.argmax(0) == windows.argmax(0)).mean()
    assert agree > 0.9
    assert np.abs(whole - windows).mean() < 0.05


@pytest.mark.parametrize("coordinates", [False, True])
def test_flips_average_mirrored_passes(coordinates):
    case, net = prepared(), network("V0", 4 if coordinates else 1)
    mirrored = replace(case, image=np.ascontiguousarray(case.image[:, ::-1]))
    plain, other = (
        predict_probabilities(net, c, COMPUTE, WHOLE, coordinates=coordinates)
        for c in (case, mirrored)
    )
    both = predict_probabilities(net, case, COMPUTE, WHOLE, coordinates=coordinates, flip_axes=(0,))
    if not coordinates:
        np.testing.assert_allclose(both, (plain + other[:, ::-1]) / 2, atol=1e-5)
    np.testing.assert_allclose(both.sum(0), 1, rtol=1e-5)
    assert np.abs(both - plain).max() > 1e-3


def test_a_volume_smaller_than_the_window_is_predicted():
    case, net = prepared(), network("V3")
    settings = PredictConfig(memory_gb=1e-9, window_voxels=(64, 64, 64))
    found = predict_probabilities(net, case, COMPUTE, settings, coordinates=False)
    assert found.shape == (3, *SHAPE)
    assert np.isfinite(found).all()


def test_memory_plan_grows_with_the_volume_and_says_so():
    net = network("V0")
    small = plan_memory(net, (10, 10, 10), COMPUTE, WHOLE)
    large = plan_memory(net, (20, 20, 20), COMPUTE, WHOLE)
    fixed = plan_memory(net, (0, 0, 0), COMPUTE, WHOLE).needed_gb
    assert large.needed_gb - fixed == pytest.approx(8 * (small.needed_gb - fixed))
    # What a network fills up counts too.
    odd = plan_memory(net, (19, 20, 19), COMPUTE, WHOLE)
    assert odd.needed_gb == pytest.approx(large.needed_gb)
    assert "whole volume" in str(small)
    assert "sliding windows" in str(plan_memory(net, (20, 20, 20), COMPUTE, WINDOWS))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    design=st.sampled_from(["V0", "V1", "V2", "V3"]),
    is_windowed=st.booleans(),
)
def test_probabilities_have_the_shape_of_any_volume(shape, design, is_windowed):
    axes = np.meshgrid(*[np.arange(n) // 3 for n in shape], indexing="ij")
    regions = np.unique(np.ravel_multi_index(axes, [7, 7, 7]), return_inverse=True)[1]
    box = tuple((0, n) for n in shape)
    case = replace(
        prepared(),
        image=np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32),
        superpixels=regions.reshape(shape).astype(np.int32),
        mask_box=box,
        grid=Grid(shape, Orientation((0, 1, 2), (False,) * 3), shape, box),
    )
    how = replace(WINDOWS, window_voxels=(16, 16, 16)) if is_windowed else WHOLE
    found = predict_probabilities(network(design), case, COMPUTE, how, coordinates=False)
    assert found.shape == (3, *shape)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    assert case.grid.restore(found).shape == shape
