"""Supervoxels of volumes: computed as settings say, kept on disk, renumbered when cut."""

import dataclasses
import io

import numpy as np
import pytest

from voxseg.cache import SUPERVOXELS, keep
from voxseg.data import superpixels as module
from voxseg.data.superpixels import (
    SupervoxelSettings,
    cached_supervoxels,
    compact,
    compute_supervoxels,
)
from voxseg.ops import block_partition, slic

SPACING = (1.0, 1.5, 0.8)
SETTINGS = SupervoxelSettings(size_mm=4.0, iterations=3)


@pytest.fixture
def image(rng):
    return rng.standard_normal((2, 9, 8, 11)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "supervoxels"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_compute_supervoxels_follows_the_settings(image):
    mask = image[0] > -1
    expected = slic(image, size_mm=4.0, compactness=0.1, spacing=SPACING, iterations=3, mask=mask)
    result = compute_supervoxels(image, SPACING, SETTINGS, mask=mask)
    np.testing.assert_array_equal(result, expected)
    blocks = dataclasses.replace(SETTINGS, method="block")
    np.testing.assert_array_equal(
        compute_supervoxels(image, SPACING, blocks, mask=mask),
        block_partition((9, 8, 11), size_mm=4.0, spacing=SPACING, mask=mask),
    )


def test_cached_supervoxels_are_computed_once(image, folder, monkeypatch):
    first = cached_supervoxels(image, SPACING, SETTINGS)
    assert len(files(folder)) == 1

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "compute_supervoxels", fail)
    np.testing.assert_array_equal(cached_supervoxels(image, SPACING, SETTINGS), first)
    fortran = np.asfortranarray(image)
    np.testing.assert_array_equal(cached_supervoxels(fortran, SPACING, SETTINGS), first)


def test_cache_key_holds_everything(image, folder, monkeypatch):
    other = image.copy()
    other[1, 2, 3, 4] += 1
    mask = np.ones(image.shape[1:], bool)
    hole = mask.copy()
    hole[0, 0, 0] = False
    changes = [{"size_mm": 5.0}, {"compactness": 0.2}, {"iterations": 2}, {"sigma_mm": 1.0}]
    changes += [{"min_size": 0.2}, {"method": "block"}]
    cached_supervoxels(image, SPACING, SETTINGS)
    cached_supervoxels(other, SPACING, SETTINGS)
    cached_supervoxels(image, (1.0, 1.5, 0.9), SETTINGS)
    cached_supervoxels(image, SPACING, SETTINGS, mask=mask)
    cached_supervoxels(image, SPACING, SETTINGS, mask=hole)
    for change in changes:
        cached_supervoxels(image, SPACING, dataclasses.replace(SETTINGS, **change))
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    cached_supervoxels(image, SPACING, SETTINGS)
    assert len(files(folder)) == 6 + len(changes)


@pytest.mark.parametrize("content", [b"", b"not an array", "short", "wrong", "flipped"], ids=str)
def test_damaged_cache_is_computed_again(content, image, folder):
    expected = cached_supervoxels(image, SPACING, SETTINGS)
    (path,) = files(folder)
    if content == "short":
        path.write_bytes(path.read_bytes()[:-9])
    elif content == "wrong":
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 4), np.int32))
    elif content == "flipped":  # one bit of one voxel
        stored = bytearray(path.read_bytes())
        stored[-70] ^= 1
        path.write_bytes(stored)
    else:
        path.write_bytes(content)
    np.testing.assert_array_equal(cached_supervoxels(image, SPACING, SETTINGS), expected)
    np.testing.assert_array_equal(np.load(path), expected)
    assert files(folder) == [path]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((9, 8, 10), np.int32),
        np.zeros((9, 8, 11), np.int64),
        np.full((9, 8, 11), -2, np.int32),
        np.full((9, 8, 11), 9 * 8 * 11, np.int32),
        b"no array",
    ],
    ids=["shape", "type", "below", "above", "no array"],
)
def test_a_map_that_is_none_of_this_volume_is_computed_again(wrong, image, folder):
    expected = cached_supervoxels(image, SPACING, SETTINGS)
    (path,) = files(folder)
    content = io.BytesIO(wrong if isinstance(wrong, bytes) else b"")
    if not isinstance(wrong, bytes):
        np.save(content, wrong)
    keep(SUPERVOXELS, path.relative_to(folder).as_posix(), content.getvalue())
    np.testing.assert_array_equal(cached_supervoxels(image, SPACING, SETTINGS), expected)
    np.testing.assert_array_equal(np.load(path), expected)


def test_cache_that_cannot_be_written_costs_nothing_else(image, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VOXSEG_CACHE", str(tmp_path / "file"))
    expected = compute_supervoxels(image, SPACING, SETTINGS)
    np.testing.assert_array_equal(cached_supervoxels(image, SPACING, SETTINGS), expected)


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 1, 2)], ids=str)
def test_compact_golden_and_brute_force(start, rng):
    whole = rng.integers(-1, 40, (9, 8, 11)).astype(np.int32)
    cut = whole[start[0] :, start[1] : 6, start[2] : 9]
    before = whole.copy()
    labels, count = compact(cut)
    np.testing.assert_array_equal(whole, before)
    names = {}
    for label in cut.ravel().tolist():
        if label >= 0:
            names.setdefault(label, len(names))
    expected = [names.get(label, -1) for label in cut.ravel().tolist()]
    np.testing.assert_array_equal(labels.ravel(), expected)
    assert (labels.dtype, count) == (np.int32, len(names))


def test_compact_of_nothing():
    labels, count = compact(np.full((2, 3), -5))
    np.testing.assert_array_equal(labels, np.full((2, 3), -1))
    assert count == 0


@pytest.mark.parametrize(
    "change",
    [
        {"size_mm": 0.0}, {"compactness": -1.0}, {"iterations": 0}, {"sigma_mm": -0.1},
        {"min_size": -0.1},
    ],
    ids=str,
)  # fmt: skip
def test_supervoxel_settings_reject(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SupervoxelSettings(**change)
