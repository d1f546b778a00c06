import pytest
import torch

from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import Config, LabelConfig, ModelConfig, build, to_tables
from voxseg.engine.network import build_network, deepest_stride, initialise_from, network_of
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.models import FCN, DeepLab, EncoderENet, ENet, PixelNet, SplitMergeFCN, SUNet, VoxResNet
from voxseg.models.vgg import LAYERS, VGG16

KINDS = {
    "voxresnet": (VoxResNet, {}),
    "enet": (ENet, {"design": "V3", "version": "port"}),
    "encoder": (EncoderENet, {"network": "enet", "part": "encoder"}),
    "fcn": (FCN, {"depth": 18, "finest_stride": 8}),
    "smp": (SplitMergeFCN, {"depth": 18}),
    "deeplab": (DeepLab, {"depth": 18, "context": "module-a5", "multi_grid": (1, 2)}),
    "sunet": (
        SUNet,
        {"filters": 4, "widths": (4, 8, 8, 8, 8, 8), "output_stride": 16, "degridding": 4},
    ),
    "pixelnet": (
        PixelNet,
        {"widths": (4, 4, 8, 8, 8, 8), "hidden": (6,), "taps": ("2_2", "7"), "batch_norm": True},
    ),
    "pixelnet-voxresnet": (
        PixelNet,
        {"network": "pixelnet", "trunk": "voxresnet", "hidden": (), "normalise_taps": True},
    ),
}


def settings(kind, **more):
    return ModelConfig(**{"network": kind, **KINDS[kind][1], **more})


def kept(tmp_path, config, channels=3, classes=3):
    """A network and the checkpoint of its weights."""
    torch.manual_seed(0)
    network = build_network(config, channels, classes, 2)
    values = tuple(range(classes))
    whole = Config(model=config, labels=LabelConfig(values=values))
    path = tmp_path / f"{config.network}.pt"
    content = {"model": network.state_dict(), "config": to_tables(whole)}
    save_checkpoint(path, {**content, "in_channels": channels, "spatial_dims": 2})
    return network, path


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_network_back(tmp_path, kind):
    network, path = kept(tmp_path, settings(kind))
    content = torch.load(path, weights_only=True)
    again, config = network_of(content, path)
    assert type(again) is KINDS[kind][0]
    assert config.model == settings(kind)
    assert not again.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_answers_and_is_supervised(kind):
    network = build_network(settings(kind), 3, 4, 2).eval()
    image = torch.rand(1, 3, 37, 41)
    regions = torch.arange(37 * 41).reshape(1, 37, 41) // 200
    with torch.inference_mode():
        logits = network(image, regions, 8)
        supervised, _ = network.supervise(image, regions, 8)
    assert logits.shape == (1, 4, 37, 41)
    torch.testing.assert_close(supervised, logits)
    assert all(step >= 1 for step in deepest_stride(network))


def test_v4_is_of_volumes():
    assert build_network(settings("voxresnet", design="V4"), 1, 3, 3).needs_places
    with pytest.raises(UsageError, match="V4 places supervoxels in a volume"):
        build_network(settings("voxresnet", design="V4"), 1, 3, 2)
    with pytest.raises(UsageError, match="V4 places supervoxels in a volume"):
        build_network(settings("enet", design="V4"), 3, 3, 2)


def test_settings_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"model.finest_stride is nothing that smp has"):
        settings("smp", finest_stride=8)
    with pytest.raises(UsageError, match=r"model.depth is nothing that voxresnet has; it has"):
        build({"model": {"depth": 50}})
    with pytest.raises(UsageError, match=r"model.context must be one of .*, got 'vortx'; did you"):
        build({"model": {"network": "deeplab", "context": "vortx"}})
    assert build({"model": {"network": "sunet", "output_stride": 2}}).model.output_stride == 2


def test_a_trunk_has_settings_of_its_own():
    with pytest.raises(ValueError, match=r"model.norm is nothing that pixelnet on vgg16 has"):
        settings("pixelnet", norm="group")
    with pytest.raises(ValueError, match=r"batch_norm is nothing that pixelnet on voxresnet has"):
        settings("pixelnet-voxresnet", batch_norm=True)
    assert settings("pixelnet").is_planar
    assert not settings("pixelnet-voxresnet").is_planar
    volumes = build_network(settings("pixelnet-voxresnet"), 1, 2, 3)
    assert deepest_stride(volumes) == (8, 8, 8)
    assert deepest_stride(build_network(settings("pixelnet"), 3, 2, 2)) == (32, 32)
    with pytest.raises(UsageError, match="pixelnet sees slices or photographs, not volumes"):
        build_network(settings("pixelnet"), 1, 2, 3)


def test_taps_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(UsageError, match=r"model: there is no layer 5_4; VGG-16 has 1_1, 1_2, 2_1"):
        build_network(settings("pixelnet", taps=("1_2", "5_4")), 3, 2, 2)
    with pytest.raises(UsageError, match=r"no layer c1; VoxResNet has conv1b, voxres3, voxres6"):
        build_network(settings("pixelnet-voxresnet", taps=("c1",)), 1, 2, 3)


def test_pixels_are_drawn_for_networks_that_know_them():
    with pytest.raises(UsageError, match="pixels is 2000, but fcn classifies all pixels at once"):
        build({"model": {"network": "fcn"}, "train": {"pixels": 2000}})
    normals = {"task": {"kind": "normals"}, "model": {"network": "pixelnet"}}
    with pytest.raises(UsageError, match="pixel_sampling positives needs classes"):
        build(normals | {"train": {"pixels": 9, "pixel_sampling": "positives"}})
    with pytest.raises(UsageError, match=r"train.positive_share must be in \[0, 1\], got 2"):
        build({"train": {"positive_share": 2}})


def test_a_published_vgg_goes_to_the_trunk(tmp_path):
    source = VGG16(3, LAYERS, widths=(4, 4, 8, 8, 8, 8))
    state = source.state_dict()
    for name in ("classifier.0.weight", "classifier.3.weight"):
        state[name] = state[name].flatten(1)
    torch.save(state, tmp_path / "vgg16.pth")
    network = build_network(settings("pixelnet", batch_norm=False), 3, 5, 2)
    said = initialise_from(network, tmp_path / "vgg16.pth", 3, 5)
    assert said == "30 tensors of the VGG-16, published weights"
    for name, value in network.trunk.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])


def test_a_hypercolumn_head_starts_from_a_voxresnets_trunk(tmp_path):
    base, path = kept(tmp_path, settings("voxresnet", design="V0", stages=3))
    network = build_network(settings("pixelnet-voxresnet"), 3, 3, 2)
    assert "(voxresnet V0 -> this network)" in initialise_from(network, path, 3, 3)
    for name, value in network.trunk.state_dict().items():
        torch.testing.assert_close(value, base.trunk.state_dict()[name])


def test_a_network_that_cannot_be_is_refused_in_words():
    with pytest.raises(UsageError, match=r"model: .*multi_grid"):
        build_network(ModelConfig(network="deeplab", depth=18), 3, 2, 2)
    with pytest.raises(UsageError, match=r"model: DeepLab's output_stride is 8 or 16, got 4"):
        build_network(ModelConfig(network="deeplab", output_stride=4), 3, 2, 2)
    with pytest.raises(UsageError, match=r"model: widths must be 6 positive numbers"):
        build_network(ModelConfig(network="sunet", widths=(32, 64)), 3, 2, 2)


def test_sunet_sees_volumes_too():
    config = settings("sunet", output_stride=4)
    assert not config.is_planar
    network = build_network(config, 1, 3, 3)
    assert (network.spatial_dims, network.output_stride) == (3, 4)
    assert deepest_stride(network) == (1, 1, 1)


def test_the_second_step_of_enet_starts_from_the_first(tmp_path):
    first, path = kept(tmp_path, settings("encoder"))
    second = build_network(ModelConfig(network="enet", design="V3"), 3, 3, 2)
    said = initialise_from(second, path, 3, 3)
    assert "enet" in said
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)


@pytest.mark.parametrize("there", ["fcn", "smp"])
def test_fcn32s_and_smp_start_from_each_other(tmp_path, there):
    options = {"fcn": {"finest_stride": 32}, "smp": {}}
    other = {"fcn": "smp", "smp": "fcn"}[there]
    given, path = kept(tmp_path, ModelConfig(network=there, **options[there]))
    taken = build_network(ModelConfig(network=other, **options[other]), 3, 3, 2)
    initialise_from(taken, path, 3, 3)
    pairs = zip(given.state_dict().values(), taken.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("kind", ["fcn", "smp", "deeplab"])
def test_a_published_resnet_goes_to_the_backbone(tmp_path, kind):
    source = build_network(ModelConfig(network="fcn", depth=18), 3, 2, 2).backbone
    path = tmp_path / "resnet18.pth"
    torch.save(source.state_dict(), path)
    network = build_network(settings(kind), 3, 5, 2)
    assert initialise_from(network, path, 3, 5).endswith("tensors of the ResNet, published weights")
    backbone = network.network.backbone if kind == "smp" else network.backbone
    torch.testing.assert_close(backbone.state_dict(), source.state_dict())


def test_published_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(DataError, match="does not hold an ENet that voxseg knows"):
        initialise_from(build_network(settings("enet"), 3, 2, 2), path, 3, 2)
    with pytest.raises(VoxsegError, match="has no ResNet or VGG-16 that weights of"):
        initialise_from(build_network(settings("voxresnet"), 3, 2, 2), path, 3, 2)


def test_other_classes_or_channels_are_refused(tmp_path):
    _, path = kept(tmp_path, settings("fcn"))
    network = build_network(settings("fcn"), 3, 4, 2)
    with pytest.raises(DataError, match="has 3 classes, but this run has 4"):
        initialise_from(network, path, 3, 4)
    with pytest.raises(DataError, match="was trained on 3 input channels, but this run has 9"):
        initialise_from(network, path, 9, 3)
