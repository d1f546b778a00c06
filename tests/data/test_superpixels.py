"""Supervoxels of volumes: computed as settings say, kept on disk, renumbered when cut."""

import dataclasses
import importlib
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
    expected_count,
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


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("method", ["slic", "block"])
def test_slices_are_divided_on_their_own(image, axis, method):
    mask = image[0] > -1
    mask.swapaxes(0, axis)[1] = False  # a slice with nothing in it
    settings = dataclasses.replace(SETTINGS, method=method, by="slice")
    found = compute_supervoxels(image, SPACING, settings, mask=mask, slice_axis=axis)
    np.testing.assert_array_equal(found < 0, ~mask)
    plane = [s for a, s in enumerate(SPACING) if a != axis]
    total = 0
    for number in range(found.shape[axis]):
        inside = mask.take(number, axis)
        alone = compute_supervoxels(
            image.take(number, axis + 1), plane, settings, mask=inside.copy()
        )
        np.testing.assert_array_equal(compact(found.take(number, axis))[0], alone)
        total += alone.max() + 1
    assert found.max() + 1 == total
    first_voxels = np.unique(found[mask], return_index=True)[1]
    assert (np.diff(first_voxels) > 0).all()  # in raster order


@pytest.mark.parametrize("count", [20, 70])
@pytest.mark.parametrize("method", ["slic", "block"])
def test_a_number_of_superpixels_can_be_asked_for(rng, count, method):
    settings = SupervoxelSettings(count=count, method=method, compactness=10.0)
    picture = rng.standard_normal((3, 61, 83, 1)).astype(np.float32)
    found = compute_supervoxels(picture, (1.0, 1.0, 1.0), settings, slice_axis=2)
    assert found.max() + 1 == pytest.approx(count, rel=0.15)
    assert expected_count((61, 83, 1), (1, 1, 1), settings, 2) == pytest.approx(count, rel=0.15)
    volume = rng.standard_normal((1, 31, 22, 27)).astype(np.float32)
    mask = np.zeros(volume.shape[1:], bool)
    mask[3:24, 4:] = True
    found = compute_supervoxels(volume, (1.0, 1.5, 0.8), settings, mask=mask)
    assert found.max() + 1 == pytest.approx(count, rel=0.25)


def test_expected_count_of_volumes_and_slices():
    settings = SupervoxelSettings(size_mm=4.0)
    assert expected_count((9, 8, 11), SPACING, settings) == 2 * 3 * 2
    assert expected_count((9, 8, 11), SPACING, settings, 1) == 8 * 2 * 2
    assert expected_count((9, 8, 1), SPACING, settings) == 2 * 3


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
    for axis in range(3):
        cached_supervoxels(image, SPACING, SETTINGS, slice_axis=axis)
    cached_supervoxels(image, SPACING, SETTINGS)
    cached_supervoxels(other, SPACING, SETTINGS)
    cached_supervoxels(image, (1.0, 1.5, 0.9), SETTINGS)
    cached_supervoxels(image, SPACING, SETTINGS, mask=mask)
    cached_supervoxels(image, SPACING, SETTINGS, mask=hole)
    for change in changes:
        cached_supervoxels(image, SPACING, dataclasses.replace(SETTINGS, **change))
    algorithm = importlib.import_module("voxseg.ops.slic")
    monkeypatch.setattr(algorithm, "VERSION", algorithm.VERSION + 1)
    cached_supervoxels(image, SPACING, SETTINGS)
    assert len(files(folder)) == 9 + len(changes)


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
        {"min_size": -0.1}, {"count": -1}, {"count": 500, "size_mm": 3.0},
    ],
    ids=str,
)  # fmt: skip
def test_supervoxel_settings_reject(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SupervoxelSettings(**change)
