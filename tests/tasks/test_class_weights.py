import math

import pytest
import torch

from voxseg.tasks.class_weights import ENCODER_C, C, class_frequencies, class_weights


def test_frequencies_count_known_labels():
    labels = [torch.tensor([[0, 1], [1, 255]]), torch.tensor([3, -1, 1], dtype=torch.int16)]
    assert class_frequencies(labels, 4).tolist() == [1, 3, 0, 1]
    assert class_frequencies([], 2).tolist() == [0, 0]


@pytest.mark.parametrize("c", [C, ENCODER_C])
def test_weights_by_hand(c):
    weights = class_weights(torch.tensor([6, 3, 1, 0]), c)
    expected = [1 / math.log(c + p) for p in (0.6, 0.3, 0.1)]
    torch.testing.assert_close(weights, torch.tensor([*expected, 0.0]))


def test_weights_stay_between_the_bounds_of_c():
    weights = class_weights(torch.tensor([1e-9, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([50.498, 1.4222]), rtol=1e-4, atol=0)


def test_ignored_class_weighs_nothing_but_counts_in_the_shares():
    weights = class_weights(torch.tensor([5, 3, 2]), ignored=[0])
    expected = [0.0, 1 / math.log(1.32), 1 / math.log(1.22)]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_weights_fit_torchs_cross_entropy():
    labels = torch.tensor([[[0, 1], [2, 2]]])
    weights = class_weights(class_frequencies(labels, 3), ENCODER_C, ignored=[0])
    logits = torch.zeros(1, 3, 2, 2)
    loss = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    assert loss.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("frequencies", "options", "message"),
    [
        ([1, 2], {"c": 1.0}, "c must be above 1"),
        ([1, 2], {"c": math.nan}, "c must be above 1"),
        ([1, -2], {}, "frequencies must be"),
        ([0, 0], {}, "frequencies must be"),
        ([[1, 2]], {}, "frequencies must be"),
        ([1, 2], {"ignored": [2]}, r"ignored must be in \[0, 2\)"),
    ],
    ids=str,
)
def test_weights_reject(frequencies, options, message):
    with pytest.raises(ValueError, match=message):
        class_weights(torch.tensor(frequencies), **options)
