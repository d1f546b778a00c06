"""What the public pooling ops refuse, and the sentence they refuse it with."""

import pytest
import torch

from voxseg.ops import slic, superpixel_plan, superpixel_pool, superpixel_unpool

FEATURES = torch.zeros(2, 3, 4, 5)
LABELS = torch.zeros(2, 4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("features", "labels", "count", "reduce", "error", "message"),
    [
        (FEATURES[0, 0], LABELS, 4, "max", ValueError, "1 to 3 spatial axes, got \\(4, 5\\)"),
        (FEATURES[..., None, None, None], LABELS, 4, "max", ValueError, "1 to 3 spatial axes"),
        (FEATURES, LABELS[:1], 4, "max", ValueError, "must be \\(B, \\*S\\) = \\(2, 4, 5\\)"),
        (FEATURES, LABELS.mT, 4, "mean", ValueError, "got \\(2, 5, 4\\)"),
        (FEATURES, LABELS, -1, "max", ValueError, "count must be in .* got -1"),
        (FEATURES, LABELS, 2**31, "max", ValueError, "count must be in"),
        (FEATURES, LABELS, 4, "sum", ValueError, "reduce must be .* got 'sum'"),
        (FEATURES.long(), LABELS, 4, "max", TypeError, "features must be .* got torch.int64"),
        (FEATURES, LABELS.float(), 4, "max", TypeError, "superpixels must be integer"),
        (FEATURES, LABELS.bool(), 4, "max", TypeError, "must be integer, got torch.bool"),
        (FEATURES.to("meta"), LABELS, 4, "max", ValueError, "one device, got meta and cpu"),
    ],
)
def test_superpixel_pool_rejects(features, labels, count, reduce, error, message):
    with pytest.raises(error, match=message):
        superpixel_pool(features, labels, count, reduce)


@pytest.mark.parametrize(
    ("values", "labels", "error", "message"),
    [
        (FEATURES, LABELS, ValueError, "values must be \\(B, C, K\\)"),
        (FEATURES[..., 0], LABELS[:1], ValueError, "with B = 2"),
        (FEATURES[..., 0], LABELS[:, 0, 0], ValueError, "1 to 3 spatial axes"),
        (FEATURES[..., 0].long(), LABELS, TypeError, "values must be float64"),
        (FEATURES[..., 0], LABELS.float(), TypeError, "superpixels must be integer"),
    ],
)
def test_superpixel_unpool_rejects(values, labels, error, message):
    with pytest.raises(error, match=message):
        superpixel_unpool(values, labels)


@pytest.mark.cuda
def test_tensors_of_two_devices_are_refused(cuda_device):
    features, labels = FEATURES.to(cuda_device), LABELS.to(cuda_device)
    for one, other in (
        (features, LABELS),
        (FEATURES, labels),
        (features, superpixel_plan(LABELS, 1)),
    ):
        with pytest.raises(ValueError, match=r"must be on one device, got .* and "):
            superpixel_pool(one, other, 1)
    with pytest.raises(ValueError, match="must be on one device, got cuda:0 and cpu"):
        superpixel_unpool(features[..., 0], LABELS)
    mask = torch.ones(4, 5, dtype=torch.bool)
    with pytest.raises(
        ValueError, match="mask must be on the image's device, cuda:0, got one on cpu"
    ):
        slic(features[0, 0], n_segments=2, compactness=0.1, mask=mask)
