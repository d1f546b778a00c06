from dataclasses import replace

import numpy as np
import pytest
import torch

from voxseg.data.orientation import Orientation
from voxseg.data.patches import PatchSampler, PatchSettings
from voxseg.data.prepare import Grid, Prepared, PrepareSettings, coordinate_channels
from voxseg.data.superpixels import compact
from voxseg.data.transforms import Augment, AugmentSettings
from voxseg.engine.config import ModelConfig, PredictConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.gather import Wanted
from voxseg.engine.inference import Ensemble, gather, predict_probabilities
from voxseg.engine.network import build_network, image_channels, network_axes, network_channels
from voxseg.engine.slices import SliceView, slice_of
from voxseg.errors import UsageError

COMPUTE = choose_compute(torch.device("cpu"), "float32", "auto", 2)
SHAPE = (21, 18, 5)
WHOLE = PredictConfig(memory_gb=100)


def prepared(shape=SHAPE, channels=1):
    rng = np.random.default_rng(0)
    identity = Orientation((0, 1, 2), (False,) * 3)
    box = tuple((0, n) for n in shape)
    return Prepared(
        case_id="a",
        image=rng.normal(size=(channels, *shape)).astype(np.float32),
        label=None,
        superpixels=rng.integers(-1, 9, shape).astype(np.int32),
        mask_box=tuple((1, n - 1) if n > 2 else (0, n) for n in shape),
        spacing=(1.0, 1.0, 1.0),
        grid=Grid(shape, identity, shape, box),
    )


def network(channels, **options):
    torch.manual_seed(1)
    settings = ModelConfig(**{"network": "fcn", "depth": 18, **options})
    net = build_network(settings, channels, 3, 2).eval()
    with torch.no_grad():  # statistics and scales as of a trained network
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
    COMPUTE.place(net)
    return net


def by_hand(net, case, axis, neighbours=0):
    """Softmax of the network on each slice, put together."""
    length = case.shape[axis]
    answers = []
    for n in range(length):
        near = [min(max(n + d, 0), length - 1) for d in range(-neighbours, neighbours + 1)]
        image = np.concatenate([case.image.take(m, axis + 1) for m in near])
        inputs = [torch.from_numpy(image)[None]]
        if net.needs_superpixels:
            regions, count = compact(case.superpixels.take(n, axis))
            inputs += [torch.from_numpy(regions)[None], max(count, 1)]
        with torch.inference_mode():
            answers.append(net(*inputs)[0].softmax(0).numpy())
    return np.stack(answers, axis + 1)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_slices_of_a_plane_are_the_network_on_each(plane, axis):
    case, net = prepared(), network(3)
    data = PrepareSettings(plane=plane, neighbours=1)
    found = predict_probabilities(net, case, COMPUTE, WHOLE, data)
    np.testing.assert_allclose(found, by_hand(net, case, axis, 1), atol=1e-5)


def test_all_planes_are_averaged():
    case, net = prepared((20, 18, 19)), network(1)
    found = predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings(plane="all"))
    mean = sum(by_hand(net, case, axis) for axis in range(3)) / 3
    np.testing.assert_allclose(found, mean, atol=1e-5)


@pytest.mark.parametrize("design", ["V1", "V2", "V3"])
def test_each_slice_pools_its_own_superpixels(design):
    case, net = prepared(), network(1, network="enet", design=design)
    found = predict_probabilities(net, case, COMPUTE, WHOLE, PrepareSettings(plane="axial"))
    np.testing.assert_allclose(found, by_hand(net, case, 2), atol=1e-5)


def test_little_memory_cuts_an_enet_into_tiles_with_the_same_answer():
    case = prepared((2400, 16, 1), 3)
    net = network(3, network="enet", design="V3")
    data = PrepareSettings(plane="axial")
    whole = predict_probabilities(net, case, COMPUTE, WHOLE, data)
    settings = PredictConfig(memory_gb=0.11)
    ensemble = Ensemble(networks=(net,), compute=COMPUTE, data=data)
    assert str(ensemble.plan(case.shape, settings, 9).cut).startswith("2 slabs of")
    found = predict_probabilities(net, case, COMPUTE, settings, data)
    np.testing.assert_allclose(found, whole, atol=2e-5)


def test_split_merge_keeps_its_answer_within_a_budget():
    case, net = prepared((40, 70, 1), 3), network(3, network="smp")
    data = PrepareSettings(plane="axial")
    whole = predict_probabilities(net, case, COMPUTE, WHOLE, data)
    np.testing.assert_allclose(whole, by_hand(net, case, 2), atol=1e-5)
    found = predict_probabilities(net, case, COMPUTE, PredictConfig(memory_gb=0.02), data)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_flips_act_on_the_axes_of_the_volume():
    case, net = prepared(), network(1)
    data = PrepareSettings(plane="sagittal")
    mirrored = replace(case, image=np.ascontiguousarray(case.image[:, :, ::-1]))
    both = predict_probabilities(net, case, COMPUTE, WHOLE, data, flip_axes=(1,))
    other = by_hand(net, mirrored, 0)[:, :, ::-1]
    np.testing.assert_allclose(both, (by_hand(net, case, 0) + other) / 2, atol=1e-5)
    # Left and right are across sagittal slices: there is nothing to mirror.
    across = predict_probabilities(net, case, COMPUTE, WHOLE, data, flip_axes=(0,))
    np.testing.assert_allclose(across, by_hand(net, case, 0), atol=1e-5)


def test_several_sizes_are_averaged_at_the_slices_own():
    case, net = prepared(), network(1)
    ensemble = Ensemble(
        networks=(net,),
        compute=COMPUTE,
        data=PrepareSettings(plane="axial"),
        scales=(0.5, 1.0, 1.5),
        flip_axes=(0,),
    )
    assert ensemble.num_members == 6
    assert [look.size(SHAPE) for look in ensemble.looks[::2]] == [(10, 9), (21, 18), (32, 27)]
    uniform = replace(case, image=np.ones_like(case.image))
    plain = predict_probabilities(net, uniform, COMPUTE, WHOLE, ensemble.data)
    gathered, how = gather(ensemble, uniform, WHOLE, Wanted())
    assert how == "whole image at once"
    np.testing.assert_allclose(gathered.probabilities.sum(0), 1, atol=1e-5)
    assert gathered.probabilities.shape == plain.shape


def test_the_shorter_side_is_brought_to_a_size():
    ensemble = Ensemble(
        networks=(network(1),),
        compute=COMPUTE,
        data=PrepareSettings(plane="coronal"),
        scales=(0.5, 1.0),
        shorter_side=10,
    )
    # Coronal slices of 21 x 5: the 5 becomes 5 and 10.
    assert [look.size(SHAPE) for look in ensemble.looks] == [(21, 5), (42, 10)]
    assert SliceView(2, shorter_side=512, scale=0.75).size((375, 500, 1)) == (384, 512)


def test_even_windows_average_what_overlaps():
    case, net = prepared((50, 20, 1)), network(1)
    settings = PredictConfig(
        memory_gb=100, always_windows=True, window_voxels=(32, 32), overlap=0.5, blend="even"
    )
    data = PrepareSettings(plane="axial")
    ensemble = Ensemble(networks=(net,), compute=COMPUTE, data=data)
    how = str(ensemble.plan(case.shape, settings, 9).cut)
    assert how == "3 windows of 32x20, averaged where they overlap"
    found = predict_probabilities(net, case, COMPUTE, settings, data)
    image = torch.from_numpy(case.image[None, ..., 0])
    total, times = torch.zeros(3, 50, 20), torch.zeros(50, 1)
    for start in (0, 16, 18):
        with torch.inference_mode():
            total[:, start : start + 32] += net(image[:, :, start : start + 32])[0]
        times[start : start + 32] += 1
    np.testing.assert_allclose(found[..., 0], (total / times).softmax(0), atol=1e-5)
    small = predict_probabilities(net, prepared((32, 20, 1)), COMPUTE, settings, data)
    whole = predict_probabilities(net, prepared((32, 20, 1)), COMPUTE, WHOLE, data)
    np.testing.assert_allclose(small, whole, atol=1e-6)


def test_a_slice_comes_with_neighbours_positions_and_whole_numbers():
    case = prepared()
    look = SliceView(1, neighbours=2, coordinates=True, flips=(0,))
    first = slice_of(case, 0, look)
    assert first.image.shape == (5 + 3, 21, 5)
    for channel, number in enumerate((0, 0, 0, 1, 2)):
        np.testing.assert_array_equal(first.image[channel], case.image[0, :, number])
    whole = coordinate_channels(case.mask_box, tuple(slice(0, n) for n in SHAPE))[:, :, 0]
    np.testing.assert_array_equal(first.image[5:], whole * np.array([-1, 1, 1])[:, None, None])
    np.testing.assert_array_equal(np.unique(first.superpixels >= 0), [False, True])
    assert int(first.superpixels.max()) + 1 == len(np.unique(first.superpixels)) - 1


def test_a_larger_slice_takes_the_superpixel_under_each_pixel():
    case = prepared()
    plain, large = (slice_of(case, 2, SliceView(2, scale=scale)) for scale in (1.0, 2.0))
    assert large.image.shape == (1, 42, 36)
    np.testing.assert_array_equal(large.superpixels[::2, ::2], plain.superpixels)
    np.testing.assert_array_equal(large.superpixels[1::2, 1::2], plain.superpixels)


def test_channels_and_axes_of_sliced_data():
    data = PrepareSettings(plane="axial", neighbours=1, coordinates=True)
    assert network_axes(data, 3) == 2
    assert network_channels(data, 2, 3) == 9
    assert image_channels(data, 9, 2) == 2
    assert network_axes(PrepareSettings(), 3) == 3


def test_a_network_of_slices_refuses_volumes():
    with pytest.raises(UsageError, match=r"sees slices or photographs.*--plane"):
        build_network(ModelConfig(network="enet"), 1, 3, 3)


def test_training_and_prediction_see_the_same_slices():
    case = prepared((16, 12, 5), 2)
    case = replace(case, label=np.zeros(case.shape, np.uint8), superpixels=None)
    settings = PatchSettings(
        voxels=(16, 12), class_share=0.0, coordinates=True, slice_axes=(2,), neighbours=1
    )
    still = AugmentSettings(flip_axes=(), affine_probability=0.0, intensity_probability=0.0)
    sampler = PatchSampler([case], 2, settings, Augment(still, (16, 12)), seed=0)
    look = SliceView(2, neighbours=1, coordinates=True)
    slices = [slice_of(case, number, look).image for number in range(5)]
    for image in sampler.batch(0, 8).image.numpy():
        assert any(np.array_equal(image, one) for one in slices)
