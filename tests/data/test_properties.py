"""Whatever a header, a label map or a shape is like: geometry stays, labels come back, shapes fit.

Examples are drawn the same in every run.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from voxseg.data.layouts import Case
from voxseg.data.prepare import PrepareSettings, prepare_case
from voxseg.data.volume import read_channels, read_image, read_label
from voxseg.export.nifti import write_map, write_mask

steady = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
IMAGE_TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
NAME_BYTES = st.binary(max_size=79).filter(lambda text: not text.endswith(b"\0"))


@dataclass(frozen=True)
class Header:
    """What is drawn of a header: where the volume lies, and how its voxels are stored."""

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    signs: tuple[int, int, int]
    angles: tuple[float, float, float]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    shear: float
    codes: tuple[int, int]
    units: tuple[str, str]
    trailing: int
    kind: str
    endianness: str
    scale: tuple[float, float] | None
    descrip: bytes
    suffix: str

    @property
    def affine(self):
        """A turned, flipped, permuted grid."""
        matrix = np.eye(3)[:, self.order] * self.signs
        for axis, angle in enumerate(self.angles):
            turn = np.eye(3)
            a, b = (axis + 1) % 3, (axis + 2) % 3
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
        affine = np.eye(4)
        affine[:3, :3] = matrix * self.spacing
        affine[:3, 3] = self.origin
        return affine


def headers(most=6):
    """Headers of volumes of up to ``most`` voxels along each axis."""
    small = st.floats(-0.4, 0.4)
    return st.builds(
        Header,
        shape=st.tuples(*[st.integers(1, most)] * 3),
        order=st.permutations(range(3)).map(tuple),
        signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
        angles=st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(small, small, small)),
        spacing=st.tuples(*[st.floats(0.1, 6)] * 3),
        origin=st.tuples(*[st.floats(-300, 300)] * 3),
        shear=st.sampled_from((0.0, 0.0, 0.25)),
        codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
        units=st.tuples(
            st.sampled_from(("unknown", "meter", "mm", "micron")),
            st.sampled_from(("unknown", "sec", "msec", "hz")),
        ),
        trailing=st.integers(0, 2),
        kind=st.sampled_from(IMAGE_TYPES),
        endianness=st.sampled_from("<>"),
        scale=st.sampled_from((None, (1.0, 0.0), (2.0, -3.0), (0.5, 0.0), (-1.0, 7.0))),
        descrip=NAME_BYTES,
        suffix=st.sampled_from((".nii", ".nii.gz")),
    )


def save(path, header, voxels):
    """Write voxels (X, Y, Z) under a drawn header; the stored numbers are the voxels."""
    dtype = np.dtype(header.kind).newbyteorder(header.endianness)
    made = nib.Nifti1Header(endianness=header.endianness)
    made.set_data_dtype(dtype)
    made.set_data_shape(header.shape + (1,) * header.trailing)
    made.set_qform(header.affine, header.codes[0])
    sform = header.affine
    sform[:3, :3] = sform[:3, :3] @ [[1, header.shear, 0], [0, 1, 0], [0, 0, 1]]
    made.set_sform(sform, header.codes[1])
    made.set_xyzt_units(*header.units)
    made["descrip"] = header.descrip
    stored = voxels.reshape(made.get_data_shape()).astype(dtype)
    image = nib.Nifti1Image(stored, None, made)
    if header.scale is not None:
        image.header.set_slope_inter(*header.scale)
    nib.save(image, path)
    return path


def numbers(shape, low, high, seed=0):
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def opened_by_itk(path):
    """ITK's view of a file's grid; None where ITK refuses it, as it does sheared ones."""
    try:
        image = SimpleITK.ReadImage(path)
    except RuntimeError:
        return None
    return image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()


@steady
@given(header=headers())
def test_masks_keep_the_place_of_any_image(header, tmp_path):
    voxels = numbers(header.shape, 0, 100)
    path = save(tmp_path / f"image{header.suffix}", header, voxels)
    source = nib.load(path)
    volume = read_image(path)
    np.testing.assert_array_equal(volume.affine, source.affine)
    expected = source.get_fdata().reshape(header.shape)
    np.testing.assert_allclose(volume.array, expected, rtol=1e-6)
    np.testing.assert_array_equal(read_channels([path]).array[0], volume.array)

    label = numbers(header.shape, 0, 3, seed=1)
    out = write_mask(tmp_path / f"mask{header.suffix}", label, volume)
    mask = nib.load(out)
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    for form in ("get_qform", "get_sform"):
        (found, code), (wanted, wanted_code) = (
            getattr(image.header, form)(coded=True) for image in (mask, source)
        )
        assert code == wanted_code
        np.testing.assert_array_equal(found, wanted)
    for field in ("pixdim", "xyzt_units", "descrip", "quatern_b", "srow_x", "qoffset_z"):
        assert mask.header[field].tobytes() == source.header[field].tobytes(), field
    assert mask.header.endianness == header.endianness
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj).reshape(header.shape), label)
    seen = opened_by_itk(path)
    assert seen is not None or header.shear
    assert opened_by_itk(out) == seen
    back = read_label(out)
    np.testing.assert_array_equal(back.array, label)
    assert back.spacing == volume.spacing


@steady
@given(header=headers(most=4))
def test_maps_keep_the_place_of_any_image(header, tmp_path):
    volume = read_image(
        save(tmp_path / f"image{header.suffix}", header, numbers(header.shape, 0, 9))
    )
    values = np.random.default_rng(2).random(header.shape, np.float32)
    written = read_image(write_map(tmp_path / f"map{header.suffix}", values, volume))
    np.testing.assert_array_equal(written.array, values)
    np.testing.assert_array_equal(written.affine, volume.affine)
    assert (written.trailing, written.spacing) == (volume.trailing, volume.spacing)


label_values = st.lists(
    st.one_of(st.integers(-3, 9), st.integers(-(2**31), 2**31 - 1)),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip


def store_label(path, label):
    """Write a label map in the smallest type that holds it, as programs do."""
    kind = next(k for k in ("u1", "i2", "i4") if (label.astype(k) == label).all())
    nib.save(nib.Nifti1Image(label.astype(kind), np.diag([-1, 2, 1.5, 1.0])), path)
    return path


@steady
@given(values=label_values, as_float=st.booleans(), seed=st.integers(0, 99))
def test_any_labels_are_numbered_and_come_back(values, as_float, seed, tmp_path):
    classes = numbers((4, 3, 5), 0, len(values) - 1, seed)
    label = np.array(values)[classes]
    path = tmp_path / "a_seg.nii"
    if as_float:
        assume(np.abs(values).max() < 2**24)  # what float32 holds
        nib.save(nib.Nifti1Image(label.astype(np.float32), np.diag([-1, 2, 1.5, 1.0])), path)
    else:
        store_label(path, label)
    image = nib.Nifti1Image(
        numbers(label.shape, 1, 90, seed).astype(np.int16), nib.load(path).affine
    )
    nib.save(image, tmp_path / "a.nii")
    case = Case("a", (tmp_path / "a.nii",), path)
    prepared = prepare_case(case, PrepareSettings(normalise="none"), tuple(values))
    assert prepared.label.max() < len(values)
    restored = np.array(values)[prepared.grid.restore(one_hot(prepared.label, len(values)))]
    np.testing.assert_array_equal(restored, label)
    written = write_mask(tmp_path / "out.nii.gz", restored, read_channels(case.images))
    np.testing.assert_array_equal(read_label(written).array, label)
    np.testing.assert_array_equal(np.asanyarray(nib.load(written).dataobj), label)


def one_hot(classes, count):
    return np.stack([classes == k for k in range(count)]).astype(np.float32)


@dataclass(frozen=True)
class Subject:
    """A grid, where its foreground lies, and how it is prepared."""

    header: Header
    corners: tuple[tuple[float, float], ...]
    margin: int
    mask: str
    spacing_mm: tuple[float, ...]


def subjects(spacings):
    share = st.floats(0, 1)
    return st.builds(
        Subject,
        header=headers(most=20),
        corners=st.tuples(*[st.tuples(share, share)] * 3),
        margin=st.integers(0, 5),
        mask=st.sampled_from(("auto", "nonzero", "all")),
        spacing_mm=spacings,
    )


def prepare(subject, folder):
    """Write a subject whose classes lie where its image is not 0, and prepare it."""
    header = subject.header
    box = tuple(
        slice(int(min(pair) * (n - 1)), int(max(pair) * (n - 1)) + 1)
        for pair, n in zip(subject.corners, header.shape, strict=True)
    )
    label, image = np.zeros(header.shape, int), np.zeros(header.shape, int)
    label[box] = numbers(label[box].shape, 0, 2)
    image[box] = numbers(image[box].shape, 1, 100)
    paths = folder / "a.nii", folder / "a_seg.nii"
    plain = {"shear": 0.0, "units": ("mm", "sec"), "scale": None}
    made = Header(**{**header.__dict__, **plain})
    save(paths[0], made, image)
    save(paths[1], Header(**{**made.__dict__, "kind": "u1"}), label)
    how = PrepareSettings(
        normalise="none", margin_voxels=subject.margin, mask=subject.mask,
        spacing_mm=subject.spacing_mm,
    )  # fmt: skip
    return prepare_case(Case("a", (paths[0],), paths[1]), how, (0, 1, 2)), label, image


@steady
@given(subject=subjects(st.just(())))
def test_without_resampling_a_label_comes_back_to_the_voxel(subject, tmp_path):
    prepared, label, image = prepare(subject, tmp_path)
    assert prepared.image.shape[1:] == prepared.label.shape
    np.testing.assert_array_equal(prepared.grid.restore(one_hot(prepared.label, 3)), label)
    np.testing.assert_array_equal(prepared.grid.restore_map(prepared.image[0], 0.0), image)
    np.testing.assert_array_equal(prepared.grid.prepare_label(label, (0, 1, 2)), prepared.label)


@steady
@given(subject=subjects(st.tuples(*[st.floats(0.3, 9)] * 3)))
def test_with_resampling_a_prediction_has_the_source_s_shape(subject, tmp_path):
    prepared, label, _ = prepare(subject, tmp_path)
    assert prepared.spacing == subject.spacing_mm
    assert prepared.image.shape[1:] == prepared.label.shape
    restored = prepared.grid.restore(one_hot(prepared.label, 3))
    assert restored.shape == label.shape
    assert set(np.unique(restored)) <= {0, *np.unique(label).tolist()}
    ones = prepared.grid.restore_map(np.ones(prepared.shape, np.float32), 1.0)
    assert ones.shape == label.shape
    np.testing.assert_allclose(ones, 1, rtol=1e-5)
    np.testing.assert_array_equal(prepared.grid.prepare_label(label, (0, 1, 2)), prepared.label)
