"""Written files carry their source's header bit for bit, whatever kind it is, or are not there."""

import errno
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxseg.errors import UsageError, VoxsegError
from voxseg.export.nifti import Geometry, plain_geometry, write_map, write_mask

SHAPE = (5, 6, 7)
FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "descrip", "dim_info",
    "toffset", "slice_duration",
)  # fmt: skip
# qform code, sform code, whether the sform is another one than the qform, whether it is sheared.
KINDS = {
    "q and s equal": (1, 1, False, False),
    "qform only": (1, 0, False, False),
    "sform only": (0, 1, False, False),
    "q and s differ": (1, 4, True, False),
    "sheared sform": (0, 2, False, True),
    "neither": (0, 0, False, False),
}


@dataclass(frozen=True)
class Source:
    """What hypothesis draws: everything that a header can bring."""

    kind: str
    angles: tuple[float, float, float]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    is_left_handed: bool
    trailing: int
    suffix: str
    endianness: str
    is_nifti2: bool
    is_scaled: bool
    extensions: tuple[bytes, ...]
    descrip: bytes
    pixdim4: float


numbers = st.floats(-300, 300, width=32)
sources = st.builds(
    Source,
    kind=st.sampled_from(sorted(KINDS)),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 6)] * 3),
    origin=st.tuples(numbers, numbers, numbers),
    is_left_handed=st.booleans(),
    trailing=st.integers(0, 2),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    endianness=st.sampled_from("<>"),
    is_nifti2=st.booleans(),
    is_scaled=st.booleans(),
    extensions=st.lists(st.binary(min_size=1, max_size=40), max_size=2).map(tuple),
    descrip=st.binary(max_size=79),
    pixdim4=st.sampled_from([0.0, 1.0, 2.5]),
)


def rotation(angles):
    """Return the rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def make_source(path, source):
    """Write an image with the header that ``source`` describes; return its voxels as stored."""
    qcode, scode, differ, sheared = KINDS[source.kind]
    qform = np.eye(4)
    qform[:3, :3] = rotation(source.angles) * source.spacing
    if source.is_left_handed:
        qform[:3, 0] *= -1
    qform[:3, 3] = source.origin
    sform = qform.copy()
    if differ:
        sform[:3, 3] += 10
    if sheared:
        sform[:3, :3] = sform[:3, :3] @ [[1, 0.3, 0], [0, 1, 0.1], [0, 0, 1]]
    kind = nib.Nifti2Header if source.is_nifti2 else nib.Nifti1Header
    header = kind(endianness=source.endianness)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(source.endianness))
    header.set_data_shape(SHAPE + (1,) * source.trailing)
    header.set_qform(qform, qcode)
    header.set_sform(sform, scode)
    header["pixdim"][4] = source.pixdim4
    header["descrip"] = source.descrip
    header.set_xyzt_units("mm", "sec")
    header.set_dim_info(0, 2, 1)
    header["toffset"], header["slice_duration"] = 1.5, 0.25
    header["cal_max"], header["cal_min"] = 1289, 12
    header.set_intent("vector", name="to be cleared")
    for content in source.extensions:
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", content))
    voxels = np.random.default_rng(0).integers(-50, 900, header.get_data_shape()).astype(np.int16)
    image = (nib.Nifti2Image if source.is_nifti2 else nib.Nifti1Image)(voxels, None, header)
    if source.is_scaled:
        image.header.set_slope_inter(0.5, -7)
    nib.save(image, path)
    return path


def geometry_of(path):
    """Return what a reader hands to the writer."""
    image = nib.load(path)
    return Geometry(image.affine.copy(), image.header.copy(), len(image.shape) - 3)


def label_of(highest=3):
    """Return labels without symmetry, from 0 to ``highest``."""
    label = np.random.default_rng(1).integers(0, highest + 1, SHAPE)
    label[0, 0, 0], label[-1, -1, -1] = 0, highest
    return label.astype(np.int32)


def assert_same_header(written, source):
    """Compare everything that places voxels in the world, bit for bit."""
    for field in FIELDS:
        assert written.header[field].tobytes() == source.header[field].tobytes(), field
    np.testing.assert_array_equal(written.affine, source.affine)
    for form in ("get_qform", "get_sform"):
        (left, left_code), (right, right_code) = (
            getattr(image.header, form)(coded=True) for image in (written, source)
        )
        assert left_code == right_code
        np.testing.assert_array_equal(left, right)
    assert written.header.endianness == source.header.endianness
    contents = [
        [(e.get_code(), e.content.rstrip(b"\0")) for e in image.header.extensions]
        for image in (written, source)
    ]
    assert contents[0] == contents[1]


@settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(source=sources)
def test_every_header_kind_comes_back_bit_for_bit(source, tmp_path):
    path = make_source(tmp_path / f"source{source.suffix}", source)
    label = label_of()
    out = write_mask(tmp_path / f"out{source.suffix}", label, geometry_of(path))
    written, original = nib.load(out), nib.load(path)
    assert_same_header(written, original)
    assert type(written) is type(original)
    assert written.shape == SHAPE + (1,) * source.trailing
    assert written.get_data_dtype().itemsize == 1
    np.testing.assert_array_equal(np.asanyarray(written.dataobj).reshape(SHAPE), label)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"sheared sform"}))  # ITK cannot open these
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_itk_sees_mask_and_image_on_one_grid(kind, suffix, tmp_path):
    source = Source(
        kind, (0.3, -0.2, 0.5), (0.9, 1.5, 2), (12, -7, 3), True, 0, suffix, "<", False, True,
        (b"note",), b"scanner", 0.0,
    )  # fmt: skip
    path = make_source(tmp_path / f"source{suffix}", source)
    label = label_of()
    out = write_mask(tmp_path / f"out{suffix}", label, geometry_of(path))
    image, mask = SimpleITK.ReadImage(path), SimpleITK.ReadImage(out)
    assert mask.GetOrigin() == image.GetOrigin()
    assert mask.GetSpacing() == image.GetSpacing()
    assert mask.GetDirection() == image.GetDirection()
    assert mask.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask).T, label)


@pytest.fixture
def like():
    """An oblique, left-handed geometry from no file."""
    affine = np.array(
        [[-0.9, 0.2, 0.1, 12.5], [0.15, 1.4, -0.1, -7.25], [0.1, 0.3, 2.1, 3.5], [0, 0, 0, 1]]
    )
    return plain_geometry(affine, SHAPE, code="mni")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, np.uint8),
        (0, 255, np.uint8),
        (0, 256, np.int16),
        (-1, 9, np.int16),
        (0, 40000, np.uint16),
        (-1, 40000, np.int32),
        (0, 2**31 - 1, np.int32),
    ],
)
def test_write_mask_takes_the_smallest_type(low, high, expected, tmp_path, like):
    label = label_of(1).astype(np.int64)
    label[0, 0, 0], label[1, 2, 3] = low, high
    written = nib.load(write_mask(tmp_path / "a.nii.gz", label, like))
    assert written.get_data_dtype() == expected
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), label)
    assert (written.header["cal_min"], written.header["cal_max"]) == (
        np.float32(low),
        np.float32(high),
    )


def test_write_mask_sets_the_voxel_fields_anew(tmp_path):
    source = Source(
        "q and s equal", (0, 0, 0), (1, 1, 1), (0, 0, 0), False, 1, ".nii", "<", False, True, (),
        b"", 0.0,
    )  # fmt: skip
    like = geometry_of(make_source(tmp_path / "source.nii", source))
    assert nib.load(tmp_path / "source.nii").dataobj.slope == 0.5
    like.header.set_slope_inter(0.5, 3)
    path = write_mask(tmp_path / "a.nii", label_of() > 1, like)
    raw = np.frombuffer(path.read_bytes()[:348], nib.nifti1.header_dtype)[0]
    assert (raw["scl_slope"], raw["scl_inter"], raw["intent_code"], raw["cal_max"]) == (1, 0, 0, 1)
    assert raw["intent_name"] == b""
    np.testing.assert_array_equal(raw["dim"][:5], [4, 5, 6, 7, 1])


def test_write_mask_is_reproducible_and_makes_folders(tmp_path, like):
    one = write_mask(tmp_path / "new" / "deep" / "a.nii.gz", label_of(), like)
    two = write_mask(tmp_path / "b.nii.gz", label_of(), like)
    assert one.read_bytes() == two.read_bytes()
    write_mask(one, label_of(1), like)  # replaces
    assert nib.load(one).get_fdata().max() == 1
    assert [p.name for p in one.parent.iterdir()] == ["a.nii.gz"]


def test_write_map_writes_float32_in_three_or_four_dimensions(tmp_path, like, rng):
    values = rng.random((3, *SHAPE))
    one = nib.load(write_map(tmp_path / "one.nii.gz", values[1], replace(like, trailing=1)))
    assert (one.shape, one.get_data_dtype()) == ((*SHAPE, 1), np.float32)
    np.testing.assert_array_equal(one.get_fdata()[..., 0], values[1].astype(np.float32))
    many = nib.load(write_map(tmp_path / "many.nii", values, like))
    np.testing.assert_array_equal(many.get_fdata(), np.moveaxis(values, 0, -1).astype(np.float32))
    np.testing.assert_array_equal(many.affine, like.affine)
    assert many.header["sform_code"] == 4


def test_write_mask_rejects_wrong_calls(tmp_path, like):
    label = label_of()
    with pytest.raises(TypeError, match="float64"):
        write_mask(tmp_path / "a.nii", label / 2, like)
    with pytest.raises(ValueError, match="not on the grid"):
        write_mask(tmp_path / "a.nii", label.T, like)
    with pytest.raises(ValueError, match="X, Y, Z"):
        write_mask(tmp_path / "a.nii", label[0], like)
    with pytest.raises(ValueError, match="32 bits"):
        write_mask(tmp_path / "a.nii", label.astype(np.int64) + 2**40, like)
    with pytest.raises(ValueError, match="C, X, Y, Z"):
        write_map(tmp_path / "a.nii", np.zeros((5, 6)), like)
    with pytest.raises(UsageError, match=r"must end in \.nii"):
        write_mask(tmp_path / "a.nrrd", label, like)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file_and_no_half_file(tmp_path, like, monkeypatch):
    path = write_mask(tmp_path / "a.nii.gz", label_of(), like)
    before = path.read_bytes()

    def half_then_full(self, name, **_):
        name.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", half_then_full)
    with pytest.raises(VoxsegError, match=r"cannot write .*a\.nii\.gz: No space left on device; "):
        write_mask(path, label_of(1), like)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert path.read_bytes() == before


def test_unwritable_output_says_why(tmp_path, like):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "a.nii.gz", tmp_path / "file" / "deep" / "a.nii.gz"):
        with pytest.raises(VoxsegError, match=r"cannot write .*file.*a\.nii\.gz: "):
            write_mask(path, label_of(), like)
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(VoxsegError, match=r"cannot write .*b\.nii\.gz: Is a directory"):
        write_mask(tmp_path / "b.nii.gz", label_of(), like)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.nii.gz", "file"]


@pytest.mark.parametrize("damage", ["voxels", "pixdim", "affine", "extensions"])
def test_a_file_that_reads_back_differently_is_removed(damage, tmp_path, like, monkeypatch):
    save = nib.Nifti1Image.to_filename

    def spoil(self, name, **_):
        if damage == "voxels":
            self.dataobj[1, 2, 3] += 1
        elif damage == "pixdim":
            self.header["pixdim"][4] = 9
        elif damage == "affine":
            self.header["srow_x"][3] += 1e-3
        else:
            self.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"new"))
        save(self, name)
        self.dataobj[:] = label_of()

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", spoil)
    with pytest.raises(VoxsegError, match=f"read back with another .*{damage}"):
        write_mask(tmp_path / "a.nii.gz", label_of(), like)
    assert list(tmp_path.iterdir()) == []


def test_volume_of_the_data_room_fits_the_protocol(tmp_path, like):
    from voxseg.data.volume import read_image, read_label

    source = write_map(tmp_path / "image.nii.gz", label_of().astype(float), like)
    image = read_image(source)
    mask = read_label(write_mask(tmp_path / "mask.nii.gz", label_of(), image))
    np.testing.assert_array_equal(mask.array, label_of())
    np.testing.assert_array_equal(mask.affine, image.affine)
