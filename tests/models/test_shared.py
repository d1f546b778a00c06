"""Fine-tuning one network from another."""

import pytest
import torch

from voxseg.errors import VoxsegError
from voxseg.models import VoxResNet, load_shared_weights


def small(design="V0", seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VoxResNet(1, 4, design=design, **({"stages": 2, "width_divisor": 16} | options))


@pytest.mark.parametrize(
    ("design", "missing", "unexpected"),
    [
        ("V1", (), ()),
        (
            "V2",
            ("heads.0.superpixel.bias", "heads.0.superpixel.linear.weight"),
            ("heads.0.voxel.weight", "heads.0.voxel.bias"),
        ),
        ("V3", ("heads.0.superpixel.linear.weight",), ()),
    ],
)
def test_shared_weights_load_from_the_baseline(design, missing, unexpected):
    baseline, model = small(), small(design, seed=1)
    report = load_shared_weights(model, baseline.state_dict())
    assert report.missing == missing
    assert report.unexpected == unexpected
    assert set(report.loaded) == set(baseline.state_dict()) - set(unexpected)
    own = model.state_dict()
    for name in report.loaded:
        torch.testing.assert_close(own[name], baseline.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"width_divisor": 8}, "trunk.conv1a.weight"), ({"spatial_dims": 2}, "and .* more")],
    ids=str,
)
def test_shared_weights_reject_another_shape(options, named):
    model = small("V3")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(VoxsegError, match=named):
        load_shared_weights(model, small(**options).state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_shared_weights_reject_another_number_of_classes():
    other = VoxResNet(1, 7, stages=2, width_divisor=16)
    with pytest.raises(VoxsegError, match=r"heads\.0\.voxel\.weight \(7, 4"):
        load_shared_weights(small(), other.state_dict())


def test_shared_weights_reject_another_model():
    with pytest.raises(VoxsegError, match="shares no parameter"):
        load_shared_weights(small(), torch.nn.Linear(2, 3).state_dict())
