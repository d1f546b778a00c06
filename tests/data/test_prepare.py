import nibabel as nib
import numpy as np
import pytest

from voxseg.data.layouts import Case
from voxseg.data.normalise import OUTSIDE
from voxseg.data.prepare import (
    IGNORED,
    PrepareSettings,
    coordinate_channels,
    foreground,
    is_resampled,
    prepare_case,
    working_grid,
)
from voxseg.data.superpixels import SupervoxelSettings
from voxseg.data.volume import read_geometry
from voxseg.errors import DataError, UsageError


@pytest.fixture
def case(tmp_path, rng):
    """An asymmetric subject on a left-handed, permuted grid with a stripped background."""
    label = np.zeros((14, 11, 9), np.int16)
    label[3:9, 2:8, 2:7] = 3
    label[4:6, 3:7, 3:5] = 7
    image = np.where(label > 0, 50 + 20 * label + rng.normal(0, 2, label.shape), 0)
    affine = np.array([[0, 2.0, 0, 5], [-1.0, 0, 0, 6], [0, 0, 1.5, 7], [0, 0, 0, 1]])
    paths = tmp_path / "a.nii.gz", tmp_path / "a_seg.nii.gz"
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
    nib.save(nib.Nifti1Image(label, affine), paths[1])
    return Case("a", (paths[0],), paths[1]), label


def one_hot(classes, count):
    return np.stack([classes == k for k in range(count)]).astype(np.float32)


def test_restore_undoes_orientation_and_crop(case):
    case, label = case
    prepared = prepare_case(case, PrepareSettings(margin_voxels=1), (0, 3, 7))
    assert prepared.shape == (8, 8, 7)
    assert prepared.spacing == (2.0, 1.0, 1.5)
    classes = prepared.grid.restore(one_hot(prepared.label, 3))
    np.testing.assert_array_equal(np.array([0, 3, 7])[classes], label)


def test_restore_map_puts_values_back(case):
    case, label = case
    prepared = prepare_case(case, PrepareSettings(), (0, 3, 7))
    back = prepared.grid.restore_map(prepared.label.astype(np.float32), outside=0.0)
    np.testing.assert_array_equal(np.array([0, 3, 7])[back.astype(int)], label)


def test_resampled_labels_come_back_almost_whole(case):
    case, label = case
    settings = PrepareSettings(spacing_mm=(0.5, 0.5, 0.5))
    prepared = prepare_case(case, settings, (0, 3, 7))
    assert prepared.spacing == (0.5, 0.5, 0.5)
    back = np.array([0, 3, 7])[prepared.grid.restore(one_hot(prepared.label, 3))]
    assert (back != label).mean() < 0.01


@pytest.mark.parametrize("how", ["zscore", "median"])
def test_normalisation_undoes_scale(case, how, tmp_path):
    case, _ = case
    source = nib.load(case.images[0])
    louder = tmp_path / "louder.nii.gz"
    nib.save(nib.Nifti1Image(source.get_fdata().astype(np.float32) * 7, source.affine), louder)
    settings = PrepareSettings(normalise=how)
    first = prepare_case(case, settings, (0, 3, 7))
    second = prepare_case(Case("b", (louder,), None), settings, (0, 3, 7))
    np.testing.assert_allclose(second.image, first.image, rtol=1e-5, atol=1e-5)
    inside = first.image[0][first.label > 0]
    middle = inside.mean() if how == "zscore" else np.median(inside)
    np.testing.assert_allclose(middle, 0.0 if how == "zscore" else 1.0, atol=1e-5)


def test_labels_that_are_not_listed_are_refused(case):
    with pytest.raises(DataError, match=r"\[7\]"):
        prepare_case(case[0], PrepareSettings(), (0, 3))


def test_class_order_follows_the_list(case):
    case, label = case
    prepared = prepare_case(case, PrepareSettings(margin_voxels=20), (0, 7, 3))
    back = np.array([0, 7, 3])[prepared.grid.restore(one_hot(prepared.label, 3))]
    np.testing.assert_array_equal(back, label)


def test_all_zero_images_are_refused(tmp_path):
    path = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), path)
    with pytest.raises(DataError, match="all zeros"):
        prepare_case(Case("empty", (path,), None), PrepareSettings(), (0, 1))


def test_constant_images_are_refused(tmp_path):
    path = tmp_path / "constant.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 3, np.float32), np.eye(4)), path)
    with pytest.raises(DataError, match=r"constant \(3\)"):
        prepare_case(Case("constant", (path,), None), PrepareSettings(), (0, 1))


def test_auto_mask_takes_all_voxels_without_a_stripped_background():
    array = np.ones((10, 10))
    array[0, :5] = 0
    assert foreground(array, "auto").all()
    assert foreground(array, "nonzero").sum() == 95
    array[:3] = 0
    assert foreground(array, "auto").sum() == 70


def test_coordinates_run_from_minus_one_to_one_and_beyond():
    channels = coordinate_channels(((2, 7), (0, 3)), (slice(0, 9), slice(-1, 3)))
    assert channels.shape == (2, 9, 4)
    np.testing.assert_allclose(channels[0, :, 0], (np.arange(9) - 4) / 2)
    np.testing.assert_allclose(channels[1, 0], [-2, -1, 0, 1])


def test_every_subject_has_the_same_background(case):
    case, _ = case
    prepared = prepare_case(case, PrepareSettings(), (0, 3, 7))
    np.testing.assert_array_equal(prepared.image[0][prepared.label == 0], OUTSIDE)
    assert prepared.image[0][prepared.label > 0].min() > OUTSIDE


@pytest.mark.parametrize("clip", [(0.5, 99.5), (20.0, 60.0), ()], ids=str)
def test_zscore_in_place_has_the_bits_of_the_plain_formula(clip, tmp_path, rng):
    image = rng.normal(100, 30, (13, 11, 9)).astype(np.float32)
    image[:3] = 0
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    settings = PrepareSettings(clip_percentiles=clip, margin_voxels=0)
    found = prepare_case(Case("a", (tmp_path / "a.nii.gz",), None), settings, (0, 1)).image[0]
    expected = image[3:]
    mask = expected != 0
    if clip:
        expected = np.clip(expected, *np.percentile(expected[mask], clip))
    inside = expected[mask]
    mean, deviation = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    expected = np.where(mask, (expected - mean) / deviation, OUTSIDE).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("how", ["zscore", "median", "none"])
def test_the_image_is_float32_however_it_is_normalised(case, how):
    prepared = prepare_case(case[0], PrepareSettings(normalise=how), (0, 3, 7))
    assert prepared.image.dtype == np.float32


@pytest.mark.parametrize("spacing", [(), (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("plane", ["none", "coronal", "all"])
def test_the_working_grid_is_known_from_the_header(case, spacing, plane):
    case, _ = case
    settings = PrepareSettings(spacing_mm=spacing, plane=plane)
    source, _ = read_geometry(case.images)
    shape, millimetres = working_grid(source, settings)
    prepared = prepare_case(case, settings, (0, 3, 7))
    assert shape == prepared.grid.working_shape
    assert is_resampled(source, settings) == prepared.grid.is_resampled
    assert millimetres == prepared.spacing


def test_class_indices_are_not_resampled(case):
    prepared = prepare_case(case[0], PrepareSettings(spacing_mm=(1.0, 1.0, 1.0)), (0, 3, 7))
    with pytest.raises(ValueError, match="restore probabilities"):
        prepared.grid.restore_classes(prepared.label)


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ("none", (2.0, 1.0, 1.5)), ("axial", (1.0, 1.0, 1.5)), ("coronal", (1.5, 1.0, 1.5)),
        ("sagittal", (2.0, 1.0, 1.0)), ("all", (1.0, 1.0, 1.0)),
    ],
)  # fmt: skip
def test_pixels_of_the_seen_planes_are_square(case, plane, expected):
    case, label = case
    prepared = prepare_case(case, PrepareSettings(plane=plane), (0, 3, 7))
    assert prepared.spacing == expected
    assert prepared.grid.is_resampled == (plane != "none")
    back = np.array([0, 3, 7])[prepared.grid.restore(one_hot(prepared.label, 3))]
    assert (back != label).mean() < 0.02


def test_pixels_stay_as_they_are_where_that_is_asked_for(case):
    own = PrepareSettings(plane="axial", square_pixels=False)
    assert prepare_case(case[0], own, (0, 3, 7)).spacing == (2.0, 1.0, 1.5)
    given = PrepareSettings(plane="axial", spacing_mm=(1.0, 2.0, 1.0))
    assert prepare_case(case[0], given, (0, 3, 7)).spacing == (1.0, 2.0, 1.0)


def test_ignored_values_have_an_index_of_their_own(case):
    case, label = case
    settings = PrepareSettings(margin_voxels=20)
    found = prepare_case(case, settings, (3, 0), ignore=(7,))
    expected = np.select([label == 3, label == 0], [0, 1], IGNORED)
    np.testing.assert_array_equal(found.grid.orientation.from_ras(found.label), expected)
    assert found.label.dtype == np.uint8
    with pytest.raises(DataError, match=r"\[7\].*labels\.ignore"):
        prepare_case(case, settings, (3, 0), ignore=(5,))


def test_classes_leave_room_for_what_is_ignored(case):
    values = tuple(range(256))
    assert prepare_case(case[0], PrepareSettings(), values).label.max() == 7
    with pytest.raises(UsageError, match="256 classes, but at most 255"):
        prepare_case(case[0], PrepareSettings(), values, ignore=(300,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalise": "imagenet"}, r"for photographs and .*a\.nii\.gz is a volume"),
        ({"normalise": "unit"}, r"for photographs and .*a\.nii\.gz is a volume"),
        ({"resize_pixels": (4, 5)}, r"for photographs and .*a\.nii\.gz is a volume"),
    ],
    ids=str,
)
def test_settings_of_photographs_are_refused_for_volumes(case, change, message):
    with pytest.raises(UsageError, match=message):
        prepare_case(case[0], PrepareSettings(**change), (0, 3, 7))


def test_supervoxels_by_slice_need_one_plane(case):
    by_slice = SupervoxelSettings(by="slice", size_mm=3.0, iterations=2)
    for plane in ("none", "all"):
        with pytest.raises(UsageError, match=f"data.plane is {plane}"):
            prepare_case(case[0], PrepareSettings(plane=plane), (0, 3, 7), by_slice)
    found = prepare_case(case[0], PrepareSettings(plane="coronal"), (0, 3, 7), by_slice)
    per_slice = [set(np.unique(part)) - {-1} for part in found.superpixels.transpose(1, 0, 2)]
    assert sum(map(len, per_slice)) == len(set().union(*per_slice)) > len(per_slice)
