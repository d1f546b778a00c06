"""Vectors of mirrored, turned and resized pictures, against a surface that is turned itself."""

import numpy as np
import pytest
import torch

from voxseg.data.normal_warp import mirror_vectors, resize_normals, turn_vectors
from voxseg.data.warp import rotation, turn


def vectors(*rows):
    """Normals (3, 1, n) of length 1."""
    array = torch.tensor(rows, dtype=torch.float64).T
    return (array / array.norm(dim=0))[:, None]


def surface(places):
    """Height over places (2, ...) in (row, column), smooth and without any symmetry."""
    row, column = places / 40
    return 8 * np.sin(2 * row + 0.3) * np.cos(1.5 * column - 0.4) + 5 * row * column


def normals_of(height):
    """Normals (3, H, W) of a height over pixels: x right, y up, z to the viewer."""
    down, right = np.gradient(height)
    normals = np.stack([-right, down, np.ones_like(height)])
    return normals / np.linalg.norm(normals, axis=0)


def places(rows, columns):
    """Row and column of every pixel, from the centre."""
    grid = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack(
        [axis - (size - 1) / 2 for axis, size in zip(grid, (rows, columns), strict=True)]
    )


MAPS = {
    "rotation": rotation([0.4]),
    "size": np.eye(2) * 0.8,
    "stretch": np.diag([0.8, 1.1]),
    "all": rotation([-1.9]) * np.array([0.9, 1.2]),
    "left and right": np.diag([1.0, -1.0]),
}


@pytest.mark.parametrize("name", MAPS)
def test_turned_vectors_are_those_of_the_turned_surface(name):
    matrix = MAPS[name]
    source, target = places(81, 95), places(41, 47)
    normals = torch.from_numpy(normals_of(surface(source))).float()
    moved = turn(
        {"image": normals[:1], "normals": normals}, target.shape[1:], matrix, {"normals": 0.0}
    )["normals"]
    found = turn_vectors(moved, matrix)
    # The surface itself, seen through the map; it is stretched in depth as in the plane.
    depth = 1 / np.sqrt(abs(np.linalg.det(matrix)))
    inner = (slice(None), slice(1, -1), slice(1, -1))  # gradients at the border are one-sided
    expected = normals_of(depth * surface(np.einsum("ij,jhw->ihw", matrix, target)))

    def error(normals):
        cosine = (normals.numpy() * expected)[inner].sum(0).clip(-1, 1)
        return np.rad2deg(np.arccos(cosine)).max()

    assert error(found) < 1.5  # the nearest pixel's normal
    assert name == "size" or error(moved) > 1.5  # as it would be without
    np.testing.assert_allclose(found.norm(dim=0), 1, rtol=1e-6)


def test_a_quarter_turn_by_hand():
    """A picture turned clockwise by 90 degrees: what faced right faces down."""
    matrix = rotation([np.pi / 2])  # a place in the result to one in the source
    assert np.allclose(matrix @ [0, 1], [-1, 0])  # what is right of the centre now was above it
    right, up, viewer = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    found = turn_vectors(vectors(right, up, viewer), matrix)
    torch.testing.assert_close(found, vectors((0, -1, 0), right, viewer))


def test_a_change_of_size_leaves_vectors(generator):
    normals = torch.nn.functional.normalize(torch.randn(3, 5, 6, generator=generator), dim=0)
    torch.testing.assert_close(turn_vectors(normals, np.eye(2) * 1.7), normals)


def test_a_turn_and_its_inverse_leave_vectors(generator):
    normals = torch.nn.functional.normalize(torch.randn(3, 5, 6, generator=generator), dim=0)
    matrix = rotation([0.7]) * np.array([0.9, 1.3])
    back = turn_vectors(turn_vectors(normals, matrix), np.linalg.inv(matrix))
    torch.testing.assert_close(back, normals)


@pytest.mark.parametrize(("axis", "expected"), [(0, (1, -2, 3)), (1, (-1, 2, 3))])
def test_mirrored_vectors_by_hand(axis, expected):
    given = vectors((1, 2, 3))
    found = mirror_vectors(given, axis)
    torch.testing.assert_close(found, vectors(expected))
    torch.testing.assert_close(mirror_vectors(found, axis), given)
    matrix = np.diag([-1.0, 1.0] if axis == 0 else [1.0, -1.0])
    torch.testing.assert_close(turn_vectors(given, matrix), found)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_vectors_are_those_of_the_mirrored_surface(axis):
    height = surface(places(9, 12))
    normals = torch.from_numpy(normals_of(height))
    found = mirror_vectors(normals.flip(axis + 1), axis)
    np.testing.assert_allclose(found, normals_of(np.flip(height, axis)), atol=1e-12)


def test_what_is_unknown_stays_unknown():
    nothing = torch.zeros(3, 2, 4)
    assert not turn_vectors(nothing, rotation([0.3]) * np.array([1.0, 2.0])).any()
    assert not mirror_vectors(nothing, 1).any()


def test_resizing_takes_pixels_as_they_are():
    normals = np.arange(3 * 2 * 3).reshape(3, 2, 3).astype(np.float32)
    found = resize_normals(normals, (4, 3))
    np.testing.assert_array_equal(found, normals.repeat(2, axis=1))
    assert resize_normals(normals, (1, 2)).tolist() == [[[3, 5]], [[9, 11]], [[15, 17]]]
