import numpy as np
import pytest
import torch

from voxseg.tasks.answers import BoundaryShares, Shares, UnitVectors, answer_of, two_classes

generator = torch.Generator().manual_seed(0)


def test_classes_have_shares_that_add_up_to_one():
    logits = torch.randn(4, 5, 6, generator=generator)
    answer = answer_of("segmentation", 4)
    assert answer.channels == 4
    torch.testing.assert_close(answer.values(logits), logits.softmax(0))
    between = answer.values(logits)[:, :2] * 0.9
    torch.testing.assert_close(answer.tidied(between).sum(0), torch.ones(2, 6))


def test_a_boundary_is_the_logistic_function_of_one_number():
    z = torch.randn(1, 7, 3, generator=generator)
    answer = answer_of("boundaries", 1)
    assert isinstance(answer, BoundaryShares)
    assert answer.channels == 2
    torch.testing.assert_close(answer.values(z)[1], z[0].sigmoid())
    torch.testing.assert_close(answer.values(z)[0], 1 - z[0].sigmoid())


def test_two_classes_have_the_cross_entropy_of_one_number():
    z = torch.randn(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 2, (2, 4, 5), generator=generator)
    one = torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], label.double())
    two = torch.nn.functional.cross_entropy(two_classes(z), label)
    torch.testing.assert_close(one, two)


def test_normals_have_length_one_and_none_stays_none():
    logits = torch.randn(3, 4, 5, generator=generator)
    logits[:, 0, 0] = 0
    values = answer_of("normals", 3).values(logits)
    lengths = values.norm(dim=0)
    assert lengths[0, 0] == 0
    torch.testing.assert_close(lengths.flatten()[1:], torch.ones(19))


@pytest.mark.parametrize(
    ("axes", "signs"),
    [((), (1, 1, 1)), ((1,), (-1, 1, 1)), ((0,), (1, -1, 1)), ((0, 1), (-1, -1, 1))],
)
def test_a_mirrored_picture_has_mirrored_normals(axes, signs):
    values = np.full((3, 2, 2), 0.5, np.float32)
    found = UnitVectors().mirrored(values, axes)
    np.testing.assert_array_equal(found[:, 0, 0], 0.5 * np.asarray(signs))


def test_classes_have_no_sides():
    values = np.random.default_rng(0).random((2, 3, 3))
    np.testing.assert_array_equal(Shares(2).mirrored(values, (0, 1)), values)
