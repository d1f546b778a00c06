"""Patches of slices and photographs: what is cut, where, and how it is resized and turned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from voxseg.data.grid import IGNORED, Grid
from voxseg.data.normalise import OUTSIDE
from voxseg.data.orientation import Orientation
from voxseg.data.patches import PatchSampler, PatchSettings
from voxseg.data.prepare import Prepared, coordinate_channels
from voxseg.data.transforms import Augment, AugmentSettings

PLAIN = AugmentSettings(flip_axes=(), affine_probability=0.0, intensity_probability=0.0)
SHAPE = (20, 15, 12)


def prepared(shape, label, *, is_image=False, channels=1):
    """A case whose image holds its own linear index, plus 10,000 by channel; superpixels too."""
    index = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    image = np.stack([index + 10_000 * c for c in range(channels)])
    box = tuple((0, n) for n in shape)
    grid = Grid(shape, Orientation((0, 1, 2), (False,) * 3), shape, box)
    regions = (index - 1).astype(np.int32) // 7
    return Prepared("a", image, label, regions, box, (1.0, 1.0, 1.0), grid, is_image)


def volume(channels=1):
    label = np.zeros(SHAPE, np.uint8)
    label[3:9, 4:10, 2:8] = 1
    label[5, 6, 11] = 2  # a class of one voxel, in the last axial slice
    return prepared(SHAPE, label, channels=channels)


def photograph(height=31, width=43):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (height, width, 1)).astype(np.uint8)
    label[:, : width // 3] = IGNORED
    return prepared((height, width, 1), label, is_image=True, channels=3)


def sampler(cases, patch, settings=PLAIN, seed=0, share=0.0, **what):
    augment = Augment(settings, patch, is_image=cases[0].is_image)
    given = PatchSettings(voxels=patch, class_share=share, **what)
    return PatchSampler(cases, 3, given, augment, seed=seed)


def places(image):
    """Indices into the flat array that an image cut from ``prepared`` shows."""
    return image.round().long().numpy() - 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_cut_across_its_axis(axis):
    case = volume()
    made = sampler([case], (8, 6), slice_axes=(axis,), share=0.5)
    for step in range(8):
        batch = made.batch(step, 2)
        assert batch.image.shape == (2, 1, 8, 6)
        assert batch.label.shape == (2, 1, 8, 6)
        assert batch.superpixels.shape == (2, 8, 6)
        for image, label, regions in zip(
            batch.image[:, 0], batch.label[:, 0], batch.superpixels, strict=True
        ):
            flat = places(image)
            where = np.unravel_index(flat, SHAPE)
            assert len(np.unique(where[axis])) == 1
            rows, columns = (where[a] for a in range(3) if a != axis)
            np.testing.assert_array_equal(np.diff(rows, axis=0), 1)
            np.testing.assert_array_equal(np.diff(columns, axis=1), 1)
            np.testing.assert_array_equal(label, case.label.ravel()[flat])
            pairs = np.unique([case.superpixels.ravel()[flat].ravel(), regions.ravel()], axis=1)
            assert pairs.shape[1] == regions.max() + 1 <= batch.count


def test_each_plane_is_drawn_and_a_rare_class_is_met():
    made = sampler([volume()], (8, 6), slice_axes=(2, 1, 0), share=1.0)
    seen, rare = set(), 0
    for step in range(40):
        batch = made.batch(step, 1)
        where = np.unravel_index(places(batch.image[0, 0]), SHAPE)
        seen |= {axis for axis in range(3) if len(np.unique(where[axis])) == 1}
        rare += bool((batch.label == 2).any())
    assert seen == {0, 1, 2}
    assert rare > 8


def test_neighbours_come_in_order_and_the_outermost_slice_again():
    case = volume(channels=2)
    made = sampler([case], (8, 6), slice_axes=(2,), neighbours=2, share=1.0)
    numbers = set()
    for step in range(30):
        image = made.batch(step, 1).image[0]
        assert image.shape == (10, 8, 6)
        middle = np.unravel_index(places(image[4]), SHAPE)
        number = int(middle[2][0, 0])
        numbers.add(number)
        for channel in range(10):
            shown = min(max(number - 2 + channel // 2, 0), SHAPE[2] - 1)
            expected = case.image[channel % 2][middle[0], middle[1], shown]
            np.testing.assert_array_equal(image[channel], expected)
    assert 11 in numbers  # the last slice has no neighbours after it


def test_coordinates_of_a_slice_are_those_of_the_volume_and_follow_flips():
    case = volume()
    flips = replace(PLAIN, flip_axes=(0, 2))
    made = sampler([case], (8, 6), flips, slice_axes=(1,), coordinates=True)
    all_places = coordinate_channels(case.mask_box, tuple(slice(0, n) for n in SHAPE))
    flipped = set()
    for step in range(20):
        image = made.batch(step, 1).image[0]
        assert image.shape == (4, 8, 6)
        where = np.unravel_index(places(image[0]), SHAPE)
        mirrored = [np.diff(where[0], axis=0)[0, 0] < 0, np.diff(where[2], axis=1)[0, 0] < 0]
        flipped.add(tuple(bool(m) for m in mirrored))
        signs = np.array([-1 if mirrored[0] else 1, 1, -1 if mirrored[1] else 1])
        expected = all_places[(slice(None), *where)] * signs[:, None, None]
        np.testing.assert_allclose(image[1:], expected, atol=1e-6)
    assert len(flipped) == 4


def test_a_volume_goes_on_beyond_its_border_and_a_photograph_does_not():
    of_volume = sampler([volume()], (30, 25), slice_axes=(2,)).batch(0, 1)
    assert of_volume.image.min() == 1
    assert (of_volume.label == IGNORED).sum() == 0
    case = photograph(5, 7)
    batch = sampler([case], (8, 9)).batch(0, 4)
    assert batch.image.shape == (4, 3, 8, 9)
    outside = batch.image[:, 0] == 0
    assert (outside.sum((1, 2)) == 8 * 9 - 5 * 7).all()
    assert (batch.image[outside[:, None].expand_as(batch.image)] == 0).all()
    assert (batch.label[:, 0][outside] == IGNORED).all()
    assert (batch.superpixels[outside] == -1).all()
    assert (batch.superpixels[~outside] >= 0).all()


def test_a_photograph_is_met_everywhere_alike():
    case = photograph(12, 40)
    made = sampler([case], (6, 8))
    corners = [places(image[0])[0, 0] for s in range(100) for image in made.batch(s, 4).image]
    rows, columns = np.unravel_index(corners, case.shape)[:2]
    for found, size in ((rows, 7), (columns, 33)):
        counts = np.bincount(found, minlength=size)
        assert len(counts) == size
        assert counts.max() < 3 * 400 / size


def test_classes_of_photographs_are_found_when_they_are_drawn():
    rare = photograph(40, 60)
    rare.label[rare.label < IGNORED] = 0
    rare.label[33, 51] = 2

    class Counted(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    cases = Counted([rare] * 50)
    made = sampler(cases, (8, 8), share=1.0)
    assert cases.reads <= 2  # those of this test and of the sampler: what kind of cases they are
    found = [bool((made.batch(step, 1).label == 2).any()) for step in range(40)]
    assert np.mean(found) > 0.35
    nothing = replace(rare, label=np.full_like(rare.label, IGNORED))
    assert (sampler([nothing], (8, 8), share=1.0).batch(0, 1).label == IGNORED).all()


@pytest.mark.parametrize("settings", [PLAIN, AugmentSettings(resize=(0.5, 2.0))], ids=["", "all"])
def test_one_pixel_is_enough(settings):
    batch = sampler([photograph(1, 1)], (32, 33), settings).batch(0, 2)
    assert batch.image.isfinite().all()
    assert batch.image.shape == (2, 3, 32, 33)


def centred(height=121, width=141):
    """A photograph whose label says the place: 0 or 1 by quarters; the image holds row, column."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    label = ((rows // 10 + columns // 10) % 2).astype(np.uint8)[..., None]
    case = prepared((height, width, 1), label, is_image=True, channels=3)
    image = np.stack([rows + 1, columns + 1, rows * 0 + 1]).astype(np.float32)[..., None]
    return replace(case, image=image, superpixels=((rows // 10) * 100 + columns // 10)
                   .astype(np.int32)[..., None])  # fmt: skip


def check_places(batch, case):
    """Label and superpixels are those of the place that the image shows, away from seams."""
    rows, columns = (batch.image[:, c].numpy() - 1 for c in (0, 1))
    clear = (batch.image[:, 2] == 1).numpy()
    for place in (rows, columns):
        near = np.abs((place + 0.5) / 10 - np.round((place + 0.5) / 10)) < 0.12
        clear &= ~near
    assert clear.mean() > 0.3
    at = tuple(np.rint(p[clear]).astype(int) for p in (rows, columns))
    np.testing.assert_array_equal(batch.label[:, 0].numpy()[clear], case.label[..., 0][at])
    for number in range(len(batch.image)):
        inside = clear[number]
        at = tuple(np.rint(p[number][inside]).astype(int) for p in (rows, columns))
        pairs = np.stack([case.superpixels[..., 0][at], batch.superpixels[number][inside]])
        assert len(np.unique(pairs, axis=1).T) == len(np.unique(pairs[0]))


@pytest.mark.parametrize("turned", [0.0, 1.0], ids=["straight", "turned"])
def test_patches_are_resized_between_the_factors_and_maps_go_along(turned):
    case = centred()
    settings = replace(
        PLAIN, resize=(0.5, 2.0), affine_probability=turned, scale=0.0, rotate_degrees=10.0
    )
    made = sampler([case], (48, 40), settings)
    sizes, angles = [], []
    for step in range(12):
        batch = made.batch(step, 2)
        assert batch.image.shape == (2, 3, 48, 40)
        check_places(batch, case)
        for image in batch.image.numpy():
            clear = image[2] == 1
            down, right = (np.gradient(image[c]) for c in (0, 1))
            slopes = [np.median(g[clear]) for g in (*down, *right)]
            sizes.append(1 / np.hypot(slopes[0], slopes[2]))
            angles.append(np.rad2deg(np.arctan2(slopes[1], slopes[0])))
    assert 0.45 < min(sizes) < 0.75
    assert 1.5 < max(sizes) < 2.1
    limits = (0, 0.1) if not turned else (4, 10.5)
    assert limits[0] <= np.abs(angles).max() <= limits[1]


def test_what_lies_beyond_a_turned_photograph_counts_nowhere():
    case = centred(61, 61)
    settings = replace(PLAIN, resize=(0.5, 0.5), affine_probability=1.0, scale=0.0)
    batch = sampler([case], (80, 80), settings).batch(0, 3)
    outside = batch.image[:, 2] == 0
    assert 0.8 < outside.float().mean() < 0.9
    assert (batch.label[:, 0][outside] == IGNORED).all()
    assert (batch.superpixels[outside] == -1).all()
    whole = batch.image[:, 2] == 1
    assert (batch.label[:, 0][whole] != IGNORED).all()


def test_slices_of_volumes_are_turned_with_their_border():
    case = volume()
    settings = replace(PLAIN, affine_probability=1.0)
    batch = sampler([case], (24, 20), settings, slice_axes=(0,), coordinates=True).batch(1, 2)
    assert batch.image.shape == (2, 4, 24, 20)
    assert (batch.label != IGNORED).all()
    assert batch.image[:, 0].min() > 0.99


def test_photographs_have_no_air_and_no_field():
    case = photograph()
    settings = replace(PLAIN, intensity_probability=1.0, contrast=0.0, gamma=0.0, noise=0.0)
    field = sampler([case], (8, 8), settings).batch(0, 1)
    plain = sampler([case], (8, 8)).batch(0, 1)
    torch.testing.assert_close(field.image, plain.image, rtol=0, atol=0)
    dark = replace(case, image=np.full_like(case.image, OUTSIDE))
    brighter = replace(settings, contrast=0.5)
    assert (sampler([dark], (8, 8), brighter).batch(0, 1).image != OUTSIDE).all()


def test_volumes_can_be_resized_too():
    settings = replace(PLAIN, resize=(2.0, 2.0))
    batch = sampler([volume()], (8, 6, 4), settings, share=1.0, coordinates=True).batch(0, 2)
    assert batch.image.shape == (2, 4, 8, 6, 4)
    steps = batch.image[:, 1].diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / (SHAPE[0] - 1)), atol=0.03, rtol=0)


def test_a_narrow_patch_that_is_turned_sees_no_border_in_the_middle():
    case = centred(201, 401)
    case.label[:] = IGNORED
    case.label[100, 200] = 0  # patches are centred near it
    settings = replace(PLAIN, affine_probability=1.0, rotate_degrees=30.0)
    made = sampler([case], (16, 80), settings, share=1.0)
    for step in range(10):
        assert made.batch(step, 1).image[:, 2].min() > 0.99


def test_a_small_photograph_lies_anywhere_in_its_patch():
    made = sampler([photograph(5, 7)], (8, 9))
    corners = {
        tuple(torch.nonzero(image[0])[0].tolist())
        for step in range(40)
        for image in made.batch(step, 2).image
    }
    assert corners == {(row, column) for row in range(4) for column in range(3)}
