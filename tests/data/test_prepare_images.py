"""Photographs as network input, and predictions back at their size."""

import numpy as np
import pytest
from PIL import Image

from voxseg.data.cases import Case
from voxseg.data.prepare import (
    IGNORED,
    PrepareSettings,
    is_resampled,
    prepare_case,
    working_grid,
)
from voxseg.data.reading import read_geometry
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.errors import DataError, UsageError

VALUES = (0, 4, 9)
UNIT = PrepareSettings(normalise="unit", plane="axial")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photograph(tmp_path, rng):
    """A picture of 13 x 18 pixels and its mask; 255 is in it."""
    pixels = rng.integers(0, 256, (13, 18, 3), dtype=np.uint8)
    mask = rng.choice(np.array([*VALUES, 255], np.uint8), (13, 18))
    return write(tmp_path, pixels, mask), pixels, mask


def write(folder, pixels, mask):
    paths = folder / "a.png", folder / "a_mask.png"
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(mask).save(paths[1])
    return Case("a", (paths[0],), paths[1])


def prepare(case, settings=UNIT, supervoxels=None):
    return prepare_case(case, settings, VALUES, supervoxels, ignore=(255,))


def test_a_photograph_is_whole(photograph):
    case, pixels, mask = photograph
    found = prepare(case)
    np.testing.assert_allclose(found.image[..., 0], pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert found.image.dtype == np.float32
    expected = np.select([mask == v for v in VALUES], [0, 1, 2], IGNORED)
    np.testing.assert_array_equal(found.label[..., 0], expected)
    assert found.is_image
    assert found.mask_box == ((0, 13), (0, 18), (0, 1))
    assert found.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(
        found.grid.restore_classes(found.label)[..., 0], found.label[..., 0]
    )


def test_imagenet_by_hand(tmp_path):
    pixels = np.full((2, 3, 3), (255, 0, 102), np.uint8)
    case = write(tmp_path, pixels, np.zeros((2, 3), np.uint8))
    found = prepare(case, PrepareSettings(normalise="imagenet"))
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.4 - 0.406) / 0.225]
    np.testing.assert_allclose(found.image[:, 1, 2, 0], expected, rtol=1e-5)


def test_zscore_counts_all_pixels(tmp_path, rng):
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    pixels[:4] = 0  # of a volume, this would be background
    case = write(tmp_path, pixels, np.zeros((9, 7), np.uint8))
    found = prepare(case, PrepareSettings(clip_percentiles=()))
    np.testing.assert_allclose(found.image.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.image.std((1, 2, 3)), 1, rtol=1e-5)
    assert found.shape == (9, 7, 1)


def test_resized_photographs_come_back_at_full_size(tmp_path):
    mask = np.zeros((24, 36), np.uint8)
    mask[:12, 12:] = 4
    mask[12:, :12] = 255
    pixels = np.repeat((mask == 4)[..., None] * np.uint8(200), 3, -1)
    case = write(tmp_path, pixels, mask)
    settings = PrepareSettings(normalise="none", resize_pixels=(12, 12))
    found = prepare(case, settings)
    assert found.image.shape == (3, 12, 12, 1)
    np.testing.assert_allclose(found.image.mean((1, 2, 3)), pixels.mean((0, 1)), rtol=0.02)
    assert set(np.unique(found.label)) == {0, 1, IGNORED}
    source, _ = read_geometry(case.images)
    assert working_grid(source, settings) == ((12, 12, 1), (1.0, 1.0, 1.0))
    assert is_resampled(source, settings)
    assert not is_resampled(source, UNIT)
    scores = np.stack([found.label == k for k in range(3)]).astype(np.float32)
    restored = found.grid.restore(scores)
    assert restored.shape == (24, 36, 1)
    assert (restored[..., 0] != (mask == 4)).mean() < 0.03
    assert found.grid.restore_map(scores[1], 0.0).shape == (24, 36, 1)


def test_no_pixel_is_too_few(tmp_path):
    case = write(tmp_path, np.full((1, 1, 3), 7, np.uint8), np.full((1, 1), 4, np.uint8))
    found = prepare(case, UNIT, SupervoxelSettings(iterations=2))
    assert found.image.shape == (3, 1, 1, 1)
    assert found.superpixels.tolist() == [[[0]]]
    assert found.label.tolist() == [[[1]]]


@pytest.mark.parametrize("by", ["volume", "slice"])
def test_superpixels_cover_the_whole_photograph(photograph, by):
    settings = SupervoxelSettings(by=by, count=12, compactness=5.0)
    found = prepare(photograph[0], UNIT, settings).superpixels
    assert found.shape == (13, 18, 1)
    assert found.min() == 0
    assert 8 <= found.max() + 1 <= 16


def test_unknown_values_and_millimetres_are_refused(photograph):
    case, _, _ = photograph
    with pytest.raises(DataError, match=r"a_mask.png holds label values \[255\]"):
        prepare_case(case, UNIT, VALUES)
    with pytest.raises(UsageError, match=r"for volumes and .*a\.png is a photograph"):
        prepare(case, PrepareSettings(spacing_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match="256 classes, but at most 255"):
        prepare_case(case, UNIT, tuple(range(256)))


@pytest.mark.parametrize("size", [(3,), (0, 5), (1, 2, 3)], ids=str)
def test_settings_reject_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="resize_pixels"):
        PrepareSettings(resize_pixels=size)


@pytest.mark.parametrize("size", [(), (5, 9)], ids=str)
def test_normals_are_the_target_of_their_task(size, tmp_path, rng):
    pixels = rng.integers(0, 256, (10, 18, 3), dtype=np.uint8)
    normals = rng.normal(size=(10, 18, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[:4, :6] = 0
    np.savez(tmp_path / "a.npz", image=pixels, normal=normals.astype(np.float32))
    case = Case("a", (tmp_path / "a.npz",), tmp_path / "a.npz", task="normals")
    settings = PrepareSettings(normalise="unit", plane="axial", resize_pixels=size)
    found = prepare_case(case, settings, ())
    assert found.label is None
    assert found.normals.shape == (3, *found.shape)
    expected = normals.transpose(2, 0, 1)[..., None]
    if size:
        expected = expected[:, 1::2, 1::2]  # the nearest, as they are
    np.testing.assert_allclose(found.normals, expected, atol=1e-6)
