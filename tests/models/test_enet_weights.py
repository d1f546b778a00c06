"""Loading ENets of others: each layout is run here from its own names and must agree."""

import functools

import pytest
import torch
from torch.nn import functional

from voxseg.errors import DataError
from voxseg.models import ENet, load_published_weights
from voxseg.models.enet_weights import published_names

LAYOUTS = pytest.mark.parametrize("version", ["released", "script", "port"])


def build(version="released", classes=5, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ENet(3, classes, version=version, **options).eval()


@functools.cache
def random_file(version="released", classes=5):
    """A state dict of another program: its names, random values, no counters. Not to be changed."""
    model = build(version, classes)
    generator = torch.Generator().manual_seed(7)
    content = {}
    for own, other in published_names(model).items():
        value = model.state_dict()[own]
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            centred = value.ndim > 1
            content[other] = (noise - 0.5) * 0.6 if centred else noise + 0.5
    return content


def saved(tmp_path, content, name="enet.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


class Layout:
    """A state dict that is run by names."""

    def __init__(self, content, eps):
        self.content, self.eps = content, eps

    def get(self, name):
        return self.content.get(name)

    def conv(self, x, name, **options):
        return functional.conv2d(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"), **options)

    def deconv(self, x, name, **options):
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        return functional.conv_transpose2d(x, weight, bias, stride=2, **options)

    def norm(self, x, name):
        values = [
            self.get(f"{name}.{v}") for v in ("running_mean", "running_var", "weight", "bias")
        ]
        return functional.batch_norm(x, *values, eps=self.eps)

    def act(self, x, name):
        slope = self.get(f"{name}.weight")
        return x.relu() if slope is None else functional.prelu(x, slope)

    def unit(self, x, name, **options):
        """Convolution 0, norm 1 and activation 2 of one name."""
        return self.act(self.norm(self.conv(x, f"{name}.0", **options), f"{name}.1"), f"{name}.2")


def widened(x, channels):
    return torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], 1)


def run_elab(content, x):
    """By numbers, in the order of e-lab's modules; dropout scales in evaluation."""
    net, indices = Layout(content, 1e-3), []
    x = torch.cat([net.conv(x, "0.0", stride=2, padding=1), functional.max_pool2d(x, 2)], 1)
    x = net.act(net.norm(x, "2"), "3")
    stage = ["3", "d2", "a", "d4", "3", "d8", "a", "d16"]
    kinds = ["down", *["3"] * 4, "down", *stage, *stage, "up", "3", "3", "up", "3"]
    for number, kind in enumerate(kinds, start=4):
        name, shortcut = f"{number}.0.0", x
        y = net.conv(x, f"{name}.0", stride=2 if kind == "down" else 1)
        y = net.act(net.norm(y, f"{name}.1"), f"{name}.2")
        place = 3
        if kind == "a":
            y = net.conv(y, f"{name}.3", padding=(0, 2))
            place = 4
            y = net.conv(y, f"{name}.4", padding=(2, 0))
        elif kind == "up":
            y = net.deconv(y, f"{name}.3", padding=1, output_padding=1)
        else:
            rate = int(kind[1:]) if kind[0] == "d" and kind != "down" else 1
            y = net.conv(y, f"{name}.3", padding=rate, dilation=rate)
        y = net.act(net.norm(y, f"{name}.{place + 1}"), f"{name}.{place + 2}")
        y = net.norm(net.conv(y, f"{name}.{place + 3}"), f"{name}.{place + 4}")
        if number < 26:
            y = y * (0.99 if number < 9 else 0.9)
        if kind == "down":
            shortcut, found = functional.max_pool2d(x, 2, return_indices=True)
            indices.append(found)
            shortcut = widened(shortcut, y.shape[1])
        elif kind == "up":
            shortcut = net.norm(net.conv(x, f"{number}.0.1.1"), f"{number}.0.1.2")
            shortcut = functional.max_unpool2d(shortcut, indices.pop(), 2)
        x = net.act(shortcut + y, f"{number}.2")
    return net.deconv(x, "31")


def run_port(content, x):
    """By names, in the order of the port's modules."""
    net, indices = Layout(content, 1e-5), []
    name = "initial_block"
    main = net.conv(x, f"{name}.main_branch", stride=2, padding=1)
    x = torch.cat([main, functional.max_pool2d(x, 3, 2, 1)], 1)
    x = net.act(net.norm(x, f"{name}.batch_norm"), f"{name}.out_activation")
    stage = ["regular", "dilated", "asymmetric", "dilated"] * 2
    rates = iter([2, 4, 8, 16] * 2)
    stages = {
        1: ["downsample", *["regular"] * 4],
        2: ["downsample", *stage],
        3: stage,
        4: ["upsample", "regular", "regular"],
        5: ["upsample", "regular"],
    }
    for number, kinds in stages.items():
        for place, kind in enumerate(kinds):
            name, shortcut = f"{kind}{number}_{place}", x
            y = net.unit(x, f"{name}.ext_conv1", stride=2 if kind == "downsample" else 1)
            if kind == "upsample":
                y = net.norm(net.deconv(y, f"{name}.ext_tconv1"), f"{name}.ext_tconv1_bnorm")
                y = net.act(y, f"{name}.ext_tconv1_activation")
                y = net.norm(net.conv(y, f"{name}.ext_conv2.0"), f"{name}.ext_conv2.1")
                shortcut = net.norm(net.conv(x, f"{name}.main_conv1.0"), f"{name}.main_conv1.1")
                shortcut = functional.max_unpool2d(shortcut, indices.pop(), 2)
            else:
                if kind == "asymmetric":
                    y = net.unit(y, f"{name}.ext_conv2", padding=(2, 0))
                    y = net.conv(y, f"{name}.ext_conv2.3", padding=(0, 2))
                    y = net.act(net.norm(y, f"{name}.ext_conv2.4"), f"{name}.ext_conv2.5")
                else:
                    rate = next(rates) if kind == "dilated" else 1
                    y = net.unit(y, f"{name}.ext_conv2", padding=rate, dilation=rate)
                y = net.unit(y, f"{name}.ext_conv3")
            if kind == "downsample":
                shortcut, found = functional.max_pool2d(x, 2, return_indices=True)
                indices.append(found)
                shortcut = widened(shortcut, y.shape[1])
            x = net.act(shortcut + y, f"{name}.out_activation")
    return net.deconv(x, "transposed_conv", padding=1, output_padding=1)


@LAYOUTS
def test_loaded_network_answers_as_its_layout(tmp_path, version):
    content = random_file(version)
    model = build(version)
    load_published_weights(model, saved(tmp_path, content))
    image = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    expected = (run_port if version == "port" else run_elab)(content, image)
    assert expected.std() > 0.01
    with torch.no_grad():
        scale = expected.abs().max()
        torch.testing.assert_close(model(image) / scale, expected / scale, rtol=1e-4, atol=1e-5)


@LAYOUTS
def test_every_tensor_of_a_file_is_used_once(version):
    names = published_names(build(version))
    assert len(set(names.values())) == len(names)
    content = random_file(version)
    assert set(content) == {name for name in names.values() if "num_batches" not in name}


@LAYOUTS
def test_report_names_what_the_file_lacks(tmp_path, version):
    model = build(version, design="V3")
    report = load_published_weights(model, saved(tmp_path, random_file(version)))
    missing = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    auxiliary = ["auxiliary.0.bias", "auxiliary.0.weight"]
    assert sorted(missing) == [*auxiliary, "superpixel.bias", "superpixel.linear.weight"]
    assert not report.unexpected


def test_dropout_scale_goes_into_the_norm(tmp_path):
    content, model = random_file(), build()
    load_published_weights(model, saved(tmp_path, content))
    state = model.state_dict()
    for own, other, share in (
        ("trunk.stage1.4.residual.7", "8.0.0.7", 0.99),
        ("trunk.stage2.0.residual.7", "9.0.0.7", 0.9),
        ("trunk.stage3.2.residual.8", "20.0.0.8", 0.9),
        ("decoder.stage4.1.residual.7", "27.0.0.7", 1.0),
    ):
        for value in ("weight", "bias"):
            expected = content[f"{other}.{value}"] * share
            torch.testing.assert_close(state[f"{own}.{value}"], expected, rtol=0, atol=0)
        assert torch.equal(state[f"{own}.running_mean"], content[f"{other}.running_mean"])


@LAYOUTS
def test_unlabelled_is_left_out(tmp_path, version):
    path = saved(tmp_path, random_file(version, classes=6))
    whole, model = build(version, 6), build(version, 5)
    load_published_weights(whole, path)
    load_published_weights(model, path, drop_unlabelled=True)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(image), whole(image)[:, 1:])


def test_checkpoint_of_several_gpus_loads(tmp_path):
    content = random_file("port")
    wrapped = {f"module.{name}": value for name, value in content.items()}
    path = saved(tmp_path, {"epoch": 3, "miou": 0.5, "state_dict": wrapped})
    model, other = build("port"), build("port", seed=1)
    load_published_weights(model, path)
    load_published_weights(other, saved(tmp_path, content, "plain.pth"))
    for name in ("trunk.initial.conv.weight", "pixel.weight"):
        assert torch.equal(model.state_dict()[name], other.state_dict()[name])


def test_superpixels_alone_do_without_the_last_layer(tmp_path):
    model = build(design="V2")
    report = load_published_weights(model, saved(tmp_path, random_file(classes=9)))
    assert "trunk.stage3.7.residual.7.running_var" in report.loaded


@pytest.mark.parametrize(
    ("version", "change", "message"),
    [
        (
            "released",
            {"5.0.0.3.bias": None},
            r"enet\.pth lacks 5\.0\.0\.3\.bias: .*version='released'",
        ),
        ("released", {"32.weight": torch.ones(1)}, r"has also 32\.weight"),
        ("port", {"regular1_1.ext_conv1.0.bias": torch.ones(1)}, "has also regular1_1"),
        ("released", {"0.0.weight": torch.ones(13, 1, 3, 3)}, "other channels"),
        ("released", {"0.0.weight": None}, "does not hold an ENet that voxseg knows"),
        ("released", {"epoch": 3}, "other things than tensors"),
    ],
    ids=str,
)
def test_file_of_something_else_is_refused(tmp_path, version, change, message):
    content = random_file(version) | change
    content = {name: value for name, value in content.items() if value is not None}
    model = build(version)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_published_weights(model, saved(tmp_path, content))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("of", "into", "message"),
    [
        ("port", "released", "davidtvs's layout.*build it with version='port'"),
        ("released", "port", "e-lab's layout.*build it with version='released'"),
        ("released", "script", r"has also 26\.0\.0\.2\.weight, .* more: it is not of"),
        ("script", "released", r"lacks 26\.0\.0\.2\.weight, .* more: it is not of"),
    ],
)
def test_another_version_is_refused(tmp_path, of, into, message):
    with pytest.raises(DataError, match=message):
        load_published_weights(build(into), saved(tmp_path, random_file(of)))


def test_another_number_of_classes_is_refused(tmp_path):
    path = saved(tmp_path, random_file(classes=6))
    with pytest.raises(DataError, match=r"enet\.pth: .*pixel\.weight \(16, 6, 2, 2\)"):
        load_published_weights(build(classes=5), path)


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "weights.pth"
    text.write_text("not a network")
    for path, reason in ((text, "cannot be read"), (tmp_path / "none.pth", "cannot be read")):
        with pytest.raises(DataError, match=reason):
            load_published_weights(build(), path)
    with pytest.raises(DataError, match="other things than tensors"):
        load_published_weights(build(), saved(tmp_path, [1, 2]))
    with pytest.raises(DataError, match="does not hold an ENet"):
        load_published_weights(build(), saved(tmp_path, {}))


class Evil:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    with pytest.raises(DataError, match="cannot be read"):
        load_published_weights(build(), saved(tmp_path, {"0.0.weight": Evil()}))
    assert "must not run" not in capsys.readouterr().out
