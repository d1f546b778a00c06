import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Grid, Prepared, PrepareSettings, coordinate_channels
from voxseg.engine import inference
from voxseg.engine.config import ModelConfig, PredictConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.gather import Wanted
from voxseg.engine.inference import (
    Ensemble,
    gather,
    plan_memory,
    predict_probabilities,
    ran_out_of_memory,
)
from voxseg.engine.memory import MemoryPlan
from voxseg.engine.network import build_network
from voxseg.engine.streaming import View
from voxseg.engine.tiles import Tiling, windows_of
from voxseg.errors import VoxsegError
from voxseg.ops.superpixel_places import superpixel_places

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


def network(design, in_channels=1, **options):
    torch.manual_seed(0)
    net = build_network(ModelConfig(design=design, **options), in_channels, 3, 3)
    # Scores that differ visibly, as after training; they start from N(0, 0.01).
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "heads" in name:
                value.normal_(0, 0.5)
    COMPUTE.place(net)
    return net.eval()


@pytest.mark.parametrize("design", ["V0", "V1", "V2", "V3", "V4"])
def test_whole_volume_is_the_network_itself(design):
    case, net = prepared(), network(design)
    found = predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings())
    superpixels = torch.from_numpy(case.superpixels)[None]
    with torch.inference_mode():
        count = int(superpixels.max()) + 1
        logits = net(torch.from_numpy(case.image)[None], superpixels, count)
    np.testing.assert_allclose(found, logits[0].softmax(0).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)


def test_mirrored_supervoxels_lie_at_mirrored_places():
    """A member that sees the volume mirrored is told mirrored places, in mm."""
    case, net = replace(prepared(), spacing=(2.0, 1.0, 1.5)), network("V4")
    view = View(case, COMPUTE, coordinates=False, flips=(0, 2))
    everywhere = tuple(slice(0, n) for n in case.shape)
    superpixels = view.superpixels(everywhere)
    expected = superpixel_places(superpixels, view.count, case.spacing)
    torch.testing.assert_close(view.places(), expected, rtol=1e-5, atol=1e-4)
    assert case.places is case.places  # found once, and not turned over by a member
    np.testing.assert_allclose(view.places()[0, :, 0], -case.places[:, 0])
    found = predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings(), flip_axes=(0,))
    with torch.inference_mode():
        image = torch.from_numpy(case.image)[None]
        labels = torch.from_numpy(case.superpixels)[None]
        places = superpixel_places(labels, view.count, case.spacing)
        mirrored = superpixel_places(labels.flip(1), view.count, case.spacing)
        there = net(image, labels, view.count, places).softmax(1)
        back = net(image.flip(2), labels.flip(1), view.count, mirrored).softmax(1).flip(2)
    expected = ((there + back) / 2)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"design": "V0"},
        {"design": "V1"},
        {"design": "V2", "reduce": "mean"},
        {"design": "V3"},
        {"design": "V3", "stages": 2},
        {"design": "V3", "stages": 2, "fusion": "scores"},
        {"design": "V2", "stages": 2, "fusion": "decoder"},
        {"design": "V4"},
        {"design": "V4", "stages": 2, "fusion": "scores", "reduce": "mean"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_tiles_answer_as_the_whole_and_less_margin_does_not(options):
    net = network(**options, in_channels=4)
    long = int(net.reach[0] * 1.5) // 8 * 8 + 40  # of several tiles, odd at the end
    shape = (long + 3, 11, 9)
    rng = np.random.default_rng(0)
    case = replace(
        prepared(),
        image=rng.normal(size=(1, *shape)).astype(np.float32),
        superpixels=rng.integers(-1, 60, shape).astype(np.int32),
        mask_box=tuple((0, n) for n in shape),
    )
    stride = net.trunk.strides[-1]
    less = tuple(max(0, r // 2 - s) for r, s in zip(net.reach, stride, strict=True))
    ensemble = Ensemble(
        networks=(net,), compute=COMPUTE, data=PrepareSettings(coordinates=True), flip_axes=(0,)
    )
    whole, tiles, kept, short = (
        inference._run(
            ensemble, case, WHOLE, [MemoryPlan(0, 0, cut, keeps)], Wanted()
        ).probabilities
        for cut, keeps in (
            (Tiling(shape, shape, net.reach, stride), True),
            (Tiling(shape, (24, 8, 9), net.reach, stride), False),
            (Tiling(shape, (24, 8, 9), net.reach, stride), True),
            (Tiling(shape, (24, 8, 9), less, stride), False),
        )
    )
    np.testing.assert_allclose(tiles, whole, atol=2e-5)
    np.testing.assert_allclose(kept, whole, atol=2e-5)
    assert np.abs(short - whole).max() > 1e-4  # far above rounding: margins do matter


@pytest.mark.parametrize("design", ["V1", "V2"])
def test_windows_leave_no_seam_in_a_supervoxel(design):
    case, net = prepared(), network(design, norm="instance")
    found = predict_probabilities(net, case, COMPUTE, WINDOWS, PrepareSettings())
    for k in range(0, int(case.superpixels.max()) + 1, 7):
        inside = found[:, case.superpixels == k]
        np.testing.assert_allclose(inside, inside[:, :1].repeat(inside.shape[1], 1), atol=1e-6)


@pytest.mark.parametrize("design", ["V0", "V3"])
def test_windows_blend_as_monai_does(design):
    case, net = prepared(), network(design, norm="instance")
    windows = windows_of(SHAPE, (16, 16, 16), 0.5)
    ensemble = Ensemble(networks=(net,), compute=COMPUTE, data=PrepareSettings())
    found = inference._run(ensemble, case, WHOLE, [MemoryPlan(0, 0, windows, False)], Wanted())
    step = net.forward if design == "V0" else net.features
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of MONAI's indexing
        blended = sliding_window_inference(
            torch.from_numpy(case.image)[None], (16, 16, 16), 1, step, 0.5, "gaussian"
        )
        superpixels = torch.from_numpy(case.superpixels)[None]
        count = int(superpixels.max()) + 1
        logits = blended if design == "V0" else net.classify(blended, superpixels, count)
    np.testing.assert_allclose(found.probabilities, logits[0].softmax(0).numpy(), atol=2e-5)


def test_a_norm_that_sees_the_whole_image_takes_windows_and_batch_norm_tiles():
    plan = plan_memory(network("V3", norm="group"), (200, 200, 200), COMPUTE, WINDOWS)
    assert "windows of 24x24x24" in str(plan)
    plan = plan_memory(network("V3"), (200, 200, 200), COMPUTE, WINDOWS)
    assert "tiles of" in str(plan)


@pytest.mark.parametrize("coordinates", [False, True])
def test_flips_average_mirrored_passes(coordinates):
    case, net = prepared(), network("V0", 4 if coordinates else 1)
    mirrored = replace(case, image=np.ascontiguousarray(case.image[:, ::-1]))
    plain, other = (
        predict_probabilities(net, c, COMPUTE, WHOLE, PrepareSettings(coordinates=coordinates))
        for c in (case, mirrored)
    )
    both = predict_probabilities(
        net, case, COMPUTE, WHOLE, PrepareSettings(coordinates=coordinates), flip_axes=(0,)
    )
    if not coordinates:
        np.testing.assert_allclose(both, (plain + other[:, ::-1]) / 2, atol=1e-5)
    np.testing.assert_allclose(both.sum(0), 1, rtol=1e-5)
    assert np.abs(both - plain).max() > 1e-3


def test_a_flipped_member_sees_mirrored_positions():
    case, net = prepared(), network("V0", 4)
    case = replace(case, mask_box=((3, 30), (0, 24), (2, 30)))
    plain = predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings(coordinates=True))
    both = predict_probabilities(
        net, case, COMPUTE, WHOLE, PrepareSettings(coordinates=True), flip_axes=(0,)
    )
    position = coordinate_channels(case.mask_box, tuple(slice(0, n) for n in SHAPE))
    position = position[:, ::-1] * np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)
    seen = np.concatenate([case.image[:, ::-1], position]).astype(np.float32)
    with torch.inference_mode():
        other = net(torch.from_numpy(seen)[None])[0].softmax(0).numpy()[:, ::-1]
    np.testing.assert_allclose(both, (plain + other) / 2, atol=1e-5)


def test_a_volume_smaller_than_the_window_is_predicted():
    case, net = prepared(), network("V3", norm="instance")
    settings = PredictConfig(memory_gb=1e-9, window_voxels=(64, 64, 64))
    found = predict_probabilities(net, case, COMPUTE, settings, PrepareSettings())
    assert found.shape == (3, *SHAPE)
    assert np.isfinite(found).all()


def test_memory_plan_grows_with_the_volume_and_says_so():
    net = network("V0")
    small = plan_memory(net, (10, 10, 10), COMPUTE, WHOLE)
    large = plan_memory(net, (20, 20, 20), COMPUTE, WHOLE)
    fixed = 0.1
    assert large.needed_gb - fixed == pytest.approx(8 * (small.needed_gb - fixed))
    assert "whole volume" in str(small)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    design=st.sampled_from(["V0", "V1", "V2", "V3", "V4"]),
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
    found = predict_probabilities(network(design), case, COMPUTE, how, PrepareSettings())
    assert found.shape == (3, *shape)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    assert case.grid.restore(found).shape == shape


def test_the_cheapest_way_within_the_budget_is_taken():
    net, shape = network("V3"), (160, 160, 200)
    plans = [
        plan_memory(net, shape, COMPUTE, PredictConfig(memory_gb=gb), supervoxels=9000)
        for gb in (8.0, 1.2, 0.6, 0.3)
    ]
    assert [plan.is_whole for plan in plans] == [True, False, False, False]
    assert all(plan.needed_gb <= plan.budget_gb for plan in plans)
    assert [plan.keeps_features for plan in plans] == [True, True, True, False]
    costs = [plan.cut.cost for plan in plans]
    assert costs == sorted(costs)


def greedy(inner, most, error):
    """A network that fails for more than some voxels, as a device without room does."""
    network = copy.deepcopy(inner)

    def features(x):
        if x[0, 0].numel() > most:
            raise error
        return inner.features(x)

    network.features = features
    return network


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    MemoryError("Unable to allocate 2. GiB for an array"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_way_of_running_out_of_memory_is_known(error):
    assert ran_out_of_memory(error)


def test_out_of_memory_goes_down_a_ladder_and_says_so():
    case, net = large_case(), network("V3")
    ensemble = Ensemble(networks=(net,), compute=COMPUTE, data=PrepareSettings())
    expected, how = gather(ensemble, case, WHOLE, Wanted())
    assert how == "whole volume at once"
    hungry = Ensemble(
        networks=(greedy(net, 60 * 44 * 48, ERRORS[2]),), compute=COMPUTE, data=PrepareSettings()
    )
    said = []
    found, how = gather(hungry, case, WHOLE, Wanted(), say=said.append)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-5)
    assert said[0].startswith("a: out of memory (whole volume at once); trying ")
    assert how.endswith("did not fit")
    assert "after whole volume at once" in how
    assert "slabs" in how or "tiles" in how


def test_the_last_rungs_put_probabilities_on_disk_and_then_fail(tmp_path):
    case = large_case()
    net = greedy(network("V3"), 1, ERRORS[0])
    ensemble = Ensemble(networks=(net,), compute=COMPUTE, data=PrepareSettings())
    said = []
    with pytest.raises(VoxsegError, match=r"a ran out of memory even in .* close other programs"):
        gather(ensemble, case, WHOLE, Wanted(), spare=tmp_path, say=said.append)
    assert "on disk" not in said[0]
    assert said[-1].endswith("with probabilities on disk")
    assert list(tmp_path.iterdir()) == []


def test_networks_of_another_reach_are_cut_apart():
    case = large_case()
    networks = (network("V0"), network("V0", stages=2))
    ensemble = Ensemble(networks=networks, compute=COMPUTE, data=PrepareSettings())
    whole, _ = gather(ensemble, case, WHOLE, Wanted())
    tiled, how = gather(ensemble, case, PredictConfig(memory_gb=1e-9), Wanted())
    assert "of " in how
    np.testing.assert_allclose(tiled.probabilities, whole.probabilities, atol=2e-5)


def test_other_errors_are_not_taken_for_memory():
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out_of_memory(ValueError("out of memory"))
    case, net = large_case(), greedy(network("V3"), 1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings())


def test_several_members_need_their_probabilities():
    ensemble = Ensemble(networks=(network("V0"),) * 2, compute=COMPUTE, data=PrepareSettings())
    with pytest.raises(ValueError, match="several members"):
        gather(ensemble, prepared(), WHOLE, Wanted(probabilities=False))


def large_case():
    """A case that tiles pay for."""
    shape = (80, 44, 48)
    rng = np.random.default_rng(1)
    return replace(
        prepared(),
        image=rng.normal(size=(1, *shape)).astype(np.float32),
        superpixels=rng.integers(-1, 60, shape).astype(np.int32),
        mask_box=tuple((0, n) for n in shape),
    )
