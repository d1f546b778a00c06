import numpy as np
import pytest

from voxseg.export.slicer_view import view_of, window_of

ORIENTATIONS = ("RAS", "RAI", "RPS", "RPI", "LAS", "LAI", "LPS", "LPI", "oblique")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slices_cut_the_mask_wherever_axes_run(head, orientation):
    affine = head.oriented_affines()[orientation]
    _, label = head.phantom(affine)
    view = view_of(label, affine)
    voxel = np.rint(np.linalg.solve(affine, [*view.centre, 1])[:3]).astype(int)
    assert label[tuple(voxel)] > 0
    # The letters' common centroid is near the head's centre, shifted to the left and up.
    np.testing.assert_allclose(view.middle, head.CENTRE, atol=1e-4)
    offset = np.array(view.centre) - head.CENTRE
    assert np.abs(offset).max() < 18
    places = np.argwhere(label) @ affine[:3, :3].T + affine[:3, 3]
    distances = np.linalg.norm(places - view.centre, axis=1)
    assert distances.max() <= view.radius < distances.max() + 40
    if orientation != "oblique":
        # 28 x 26 x 20 voxels of 2 x 2.5 x 3 mm
        assert view.extent == pytest.approx((56, 65, 60))
        # The middle of an even number of voxels is one of two.
        assert view.centre == pytest.approx(view_of(*_ras(head)).centre, abs=3)


def _ras(head):
    affine = head.oriented_affines()["RAS"]
    return head.phantom(affine)[1], affine


def test_the_centre_is_in_one_of_two_halves_not_between():
    label = np.zeros((9, 5, 5), np.uint8)
    label[1, 2, 2], label[6:9, 1:4, 2] = 1, 2
    view = view_of(label, np.diag([2.0, 1, 1, 1]))
    assert view.centre == (14, 2, 2)  # the middle of the half that is nearer to the centroid
    label[7, 2, 2] = 0  # now hollow
    assert view_of(label, np.diag([2.0, 1, 1, 1])).centre == (12, 2, 2)


def test_an_empty_mask_shows_the_middle_of_the_image():
    view = view_of(np.zeros((3, 5, 7), bool), np.diag([1.0, 1, 2, 1]))
    assert view.centre == (1, 2, 6)
    assert view.radius == pytest.approx(np.linalg.norm([1.5, 2.5, 7]))


def test_window_ignores_background_and_a_few_bright_voxels(rng):
    image = np.zeros((20, 20, 20), np.float32)
    image[5:15] = rng.uniform(100, 200, (10, 20, 20))
    image[7, 3, :3] = 1e6
    low, high = window_of(image)
    assert 100 <= low < 103
    assert 195 < high <= 200


def test_window_of_flat_images():
    assert window_of(np.full((2, 2, 2), 7.0)) == (7, 8)
    image = np.zeros((4, 4, 4))
    image[0] = 3  # a mask has one value above its minimum
    assert window_of(image) == (0, 3)
    image[1:] = 2  # the darkest of few values is not black, and the background is
    image[3] = 0
    assert window_of(image) == (0, 3)
