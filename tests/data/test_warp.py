"""Resizing and turning: where every voxel goes, and what comes from beyond the border."""

import numpy as np
import pytest
import torch

from voxseg.data.warp import resize, rotation, turn


def sample(shape):
    index = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(1, *shape)
    return {
        "image": torch.cat([index, -index]),
        "coordinates": torch.cat([index] * len(shape)),
        "label": (index % 7).to(torch.uint8),
        "superpixels": index.int() * 1000,
    }


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=str)
def test_the_identity_changes_nothing(shape):
    given = sample(shape)
    for out in (resize(given, shape), turn(given, shape, np.eye(len(shape)), {})):
        for key, value in given.items():
            assert out[key].dtype == value.dtype
            torch.testing.assert_close(out[key], value, rtol=0, atol=2e-4)


def test_twice_the_size_by_hand():
    given = {"image": torch.tensor([[[0.0, 4.0]]]), "label": torch.tensor([[[3, 255]]])}
    out = resize(given, (1, 4))
    torch.testing.assert_close(out["image"], torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))
    assert out["label"].tolist() == [[[3, 3, 255, 255]]]


@pytest.mark.parametrize("size", [(10, 12), (3, 2)], ids=str)
def test_turning_by_nothing_is_resizing(size):
    given = sample((5, 6))
    scale = np.diag([5 / size[0], 6 / size[1]])
    turned, resized = turn(given, size, scale, {}), resize(given, size)
    torch.testing.assert_close(turned["image"], resized["image"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("plane", "angles"), [((0, 1), [0, 0, 1]), ((1, 2), [1, 0, 0])])
def test_a_quarter_turn_of_a_cube(plane, angles):
    given = sample((5, 5, 5))
    out = turn(given, (5, 5, 5), rotation([a * np.pi / 2 for a in angles]), {})
    for key, value in given.items():
        expected = np.rot90(value.numpy(), -1, [a + 1 for a in plane]).copy()
        np.testing.assert_allclose(out[key].numpy(), expected, atol=1e-3)


def test_a_quarter_turn_of_a_square_and_back():
    given = sample((4, 4))
    there = turn(given, (4, 4), rotation([np.pi / 2]), {})
    np.testing.assert_array_equal(there["label"][0], np.rot90(given["label"][0], -1))
    back = turn(there, (4, 4), rotation([-np.pi / 2]), {})
    torch.testing.assert_close(back["superpixels"], given["superpixels"])


def test_beyond_the_border_lies_what_is_named_or_the_border():
    given = sample((4, 4))
    outside = {"label": 255.0, "superpixels": -1.0, "image": 0.0}
    out = turn(given, (12, 12), np.eye(2), outside)
    inside = slice(4, 8)
    for key, fill in outside.items():
        rest = out[key].clone()
        torch.testing.assert_close(rest[:, inside, inside], given[key], rtol=0, atol=1e-4)
        rest[:, inside, inside] = fill
        torch.testing.assert_close(rest, torch.full_like(rest, fill))
    corner = out["coordinates"][0, :4, :4]
    torch.testing.assert_close(corner, torch.zeros(4, 4))


def test_rotations_turn_and_do_not_stretch():
    matrix = rotation([0.3, -0.2, 1.1])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)
    np.testing.assert_allclose(rotation([0.4]) @ [1, 0], [np.cos(0.4), np.sin(0.4)])
