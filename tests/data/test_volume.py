"""Reading volumes: geometry as nibabel has it, and one sentence for each thing that is wrong."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.hashes import content_hash, file_hash
from voxseg.data.names import case_name, is_volume_file
from voxseg.data.volume import (
    check_same_grid,
    form_distance,
    read_channels,
    read_geometry,
    read_image,
    read_label,
)
from voxseg.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(400)
DICOM = bytes(128) + b"DICM" + bytes(400)


def refused(read, path):
    """Return the one sentence that ``read`` refuses ``path`` with."""
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "; " in message  # what to do
    return message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_read_image_keeps_axes_and_affine(suffix, tmp_path, save, phantom, affine):
    image, _ = phantom
    volume = read_image(save(tmp_path / f"a{suffix}", image, affine))
    np.testing.assert_array_equal(volume.array, image)
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    np.testing.assert_array_equal(volume.affine, affine.astype(np.float32))
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
    assert (volume.shape, volume.trailing) == ((5, 6, 7), 0)


def test_read_image_applies_slope_and_intercept(tmp_path, phantom, affine):
    image, _ = phantom
    scaled = nib.Nifti1Image(image, affine)
    scaled.header.set_slope_inter(0.25, -3)
    nib.save(scaled, tmp_path / "a.nii.gz")
    stored = nib.load(tmp_path / "a.nii.gz").dataobj.get_unscaled()
    assert stored.dtype == np.int16
    volume = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, image * np.float32(0.25) - 3)


def test_read_image_squeezes_trailing_axes(tmp_path, save, phantom):
    image, label = phantom

    def like_ibsr(header):
        header["pixdim"][4] = 0
        header["qform_code"] = 0

    path = save(tmp_path / "a.nii.gz", image[..., None, None], edit=like_ibsr)
    volume = read_image(path)
    np.testing.assert_array_equal(volume.array, image)
    assert volume.trailing == 2
    seg = read_label(save(tmp_path / "b.nii.gz", label[..., None], edit=like_ibsr))
    assert (seg.array.dtype, seg.trailing) == (np.dtype(np.int32), 1)
    check_same_grid(volume, seg)


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 4), "sform"), ((1, 0), "qform"), ((0, 0), "pixdim")], ids=str
)
def test_affine_is_the_one_nibabel_takes(codes, expected, tmp_path, save, phantom):
    qform = np.diag([2.0, 3.0, 4.0, 1.0])
    sform = np.array([[0, -3, 0, 8.0], [2, 0, 0, -5.0], [0, 0, 4, 1.5], [0, 0, 0, 1.0]])

    def edit(header):
        header.set_qform(qform, codes[0])
        header.set_sform(sform, codes[1])

    volume = read_image(save(tmp_path / "a.nii", phantom[0], edit=edit))
    centred = np.diag([-2.0, 3.0, 4.0, 1.0])
    centred[:3, 3] = -(np.array([5, 6, 7]) - 1) / 2 * [-2, 3, 4]
    affines = {"sform": sform, "qform": qform, "pixdim": centred}
    np.testing.assert_array_equal(volume.affine, affines[expected])
    assert (form_distance(volume) > 1) == (expected == "sform")


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("unknown", 1)])
def test_spacing_is_in_mm_whatever_the_unit(unit, factor, tmp_path, save, phantom):
    path = save(tmp_path / "a.nii", phantom[0], edit=lambda h: h.set_xyzt_units(unit))
    np.testing.assert_allclose(read_image(path).spacing, np.array([0.9, 1.5, 2]) * factor, 1e-6)


def test_a_unit_that_no_standard_knows_counts_as_mm(save, phantom, tmp_path):
    def edit(header):
        header["xyzt_units"] = 7

    path = save(tmp_path / "a.nii", phantom[0], edit=edit)
    assert read_image(path).spacing == pytest.approx((0.9, 1.5, 2.0))


def test_read_image_opens_nifti2_and_big_endian(tmp_path, phantom, affine):
    image, _ = phantom
    nib.save(nib.Nifti2Image(image, affine), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "two.nii.gz").array, image)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(image, affine, header), tmp_path / "big.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "big.nii").array, image)


def test_read_image_rejects_frames_and_read_channels_takes_them(tmp_path, save, phantom):
    frames = np.stack([phantom[0], phantom[0] + 7], -1)
    path = save(tmp_path / "a.nii.gz", frames)
    assert "2 frames of 5x6x7" in refused(read_image, path)
    assert "2 frames" in refused(read_label, path)
    channels = read_channels([path])
    np.testing.assert_array_equal(channels.array, np.moveaxis(frames, -1, 0))
    assert (channels.shape, channels.trailing) == ((5, 6, 7), 0)


@pytest.mark.parametrize("frames", [1, 2, "files"])
def test_read_geometry_gives_all_but_the_voxels(frames, tmp_path, save, phantom, affine):
    image, _ = phantom
    paths = [save(tmp_path / "a.nii.gz", image[..., None], affine)]
    if frames == 2:
        paths = [save(tmp_path / "a.nii.gz", np.stack([image, image], axis=-1), affine)]
    elif frames == "files":
        paths.append(save(tmp_path / "b.nii.gz", image, affine))
    whole, (geometry, num_bytes) = read_channels(paths), read_geometry(paths)
    assert geometry.array.shape == whole.array.shape
    assert (geometry.shape, geometry.spacing) == (whole.shape, whole.spacing)
    assert geometry.trailing == whole.trailing
    np.testing.assert_array_equal(geometry.affine, whole.affine)
    assert not geometry.array.any()
    assert geometry.array.strides[1:] == (0, 0, 0)
    # Two bytes a voxel in the file, its copy in float32 (two of several files), what is finite.
    copies = 2 if len(paths) > 1 else 1
    expected = (2 * whole.array.size + whole.array.size) // len(paths) + copies * whole.array.nbytes
    assert num_bytes == expected
    with pytest.raises(DataError, match="there is no file"):
        read_geometry([tmp_path / "none.nii.gz"])


def test_read_channels_stacks_files_on_one_grid(tmp_path, save, phantom, affine):
    image, _ = phantom
    paths = [save(tmp_path / f"a_{n}.nii", image + np.int16(n), affine) for n in range(2)]
    np.testing.assert_array_equal(read_channels(paths).array, np.stack([image, image + 1]))
    np.testing.assert_array_equal(read_channels(paths[:1]).array, image[None])
    elsewhere = save(tmp_path / "c.nii", image, np.diag([1.0, 1, 2, 1]))
    assert str(paths[0]) in refused(lambda p: read_channels([paths[0], p]), elsewhere)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_read_image_rejects_nan_and_infinite_voxels(bad, tmp_path, save, phantom):
    image = phantom[0].astype(np.float32)
    image[1, 2, 3:5] = bad
    message = refused(read_image, save(tmp_path / "a.nii.gz", image))
    assert ("2 NaN and 0 infinite" if np.isnan(bad) else "0 NaN and 2 infinite") in message


def test_read_image_rejects_values_beyond_float32(tmp_path, save, phantom):
    image = phantom[0].astype(np.float64)
    image[0, 0, 0] = 1e300
    assert "1 infinite" in refused(read_image, save(tmp_path / "a.nii", image))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint16, np.int32])
def test_read_label_accepts_whole_numbers_of_any_type(kind, tmp_path, save, phantom):
    volume = read_label(save(tmp_path / "a.nii.gz", phantom[1].astype(kind)))
    assert volume.array.dtype == np.int32
    np.testing.assert_array_equal(volume.array, phantom[1])


def test_read_label_rejects_fractions_with_an_example(tmp_path, save, phantom):
    label = phantom[1].astype(np.float32)
    label[2, 3, 1:4] = 0.25
    message = refused(read_label, save(tmp_path / "a.nii.gz", label))
    assert "3 voxels" in message
    assert "0.25" in message


def test_read_label_rejects_nan_and_values_beyond_32_bits(tmp_path, save, phantom):
    label = phantom[1].astype(np.float64)
    label[0, 0, 0] = np.nan
    assert "1 NaN" in refused(read_label, save(tmp_path / "a.nii.gz", label))
    label[0, 0, 0] = 2.0**40
    assert "beyond 32 bits" in refused(read_label, save(tmp_path / "b.nii.gz", label))


@pytest.mark.parametrize("keep", [10, 200, 450, -9])
def test_truncated_gzip_is_damaged(keep, tmp_path, save, rng):
    whole = save(tmp_path / "whole.nii.gz", rng.integers(0, 999, (9, 10, 11)).astype(np.int16))
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(whole.read_bytes()[:keep])
    assert "truncated or damaged" in refused(read_image, path)


def test_truncated_plain_file_is_damaged(tmp_path, save, phantom):
    path = save(tmp_path / "a.nii", phantom[0])
    path.write_bytes(path.read_bytes()[:-2])
    assert "truncated or damaged" in refused(read_image, path)


def test_flipped_bit_is_caught_by_the_checksum(tmp_path, phantom, save):
    packed = gzip.compress(save(tmp_path / "a.nii", phantom[0]).read_bytes(), 0)
    wrong = bytearray(packed)
    wrong[-40] ^= 1
    path = tmp_path / "b.nii.gz"
    path.write_bytes(wrong)
    assert "CRC" in refused(read_image, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PNG, "a PNG image"),
        (DICOM, "a DICOM file"),
        (gzip.compress(DICOM), "a DICOM file"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG image"),
        (b"case,image\n" * 9, "a text file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x01\x02\x03" * 200, "something else"),
        (b"", "empty"),
        (gzip.compress(b""), "nothing in it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_under_a_nifti_name_are_recognised(content, words, tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    assert words in refused(read_image, path)


def test_wrong_compression_suffix_says_the_right_name(tmp_path, save, phantom):
    plain = save(tmp_path / "a.nii", phantom[0])
    packed = save(tmp_path / "b.nii.gz", phantom[0])
    assert "rename it to c.nii" in refused(read_image, plain.rename(tmp_path / "c.nii.gz"))
    assert "rename it to d.nii.gz" in refused(read_image, packed.rename(tmp_path / "d.nii"))


def test_missing_files_folders_and_other_suffixes(tmp_path):
    assert "there is no file" in refused(read_image, tmp_path / "none.nii.gz")
    assert "is a folder" in refused(read_image, tmp_path)
    assert "neither .nii nor .nii.gz" in refused(read_image, tmp_path / "a.mha")


def test_headers_that_describe_no_volume(tmp_path, save, phantom):
    image, _ = phantom
    assert "three axes" in refused(read_image, save(tmp_path / "flat.nii", image[0]))

    def collapse(header):
        header.set_sform(np.diag([1.0, 1, 0, 1]), 1)

    assert "affine" in refused(read_image, save(tmp_path / "a.nii", image, edit=collapse))
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colour voxels" in refused(read_image, save(tmp_path / "c.nii", colour))
    waves = np.ones((3, 4, 5), np.complex64)
    assert "complex voxels" in refused(read_image, save(tmp_path / "d.nii", waves))
    path = save(tmp_path / "bomb.nii.gz", image)
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(header))
    assert "cannot hold the 30000x30000x30000 voxels" in refused(read_image, path)


def test_headers_that_nibabel_repairs_are_read_in_silence(tmp_path, save, phantom, caplog, capfd):
    def edit(header):
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 20))

    raw = bytearray(save(tmp_path / "a.nii", phantom[0], edit=edit).read_bytes())
    raw[76:80] = np.float32(0).tobytes()  # qfac, which must be 1 or -1
    raw[80:84] = np.float32(-0.9).tobytes()  # a negative voxel size
    raw[352:356] = np.int32(31).tobytes()  # an extension of 31 bytes instead of 32
    (tmp_path / "b.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii").array, phantom[0])
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_check_same_grid_names_files_and_numbers(tmp_path, save, phantom, affine):
    image = read_image(save(tmp_path / "image.nii.gz", phantom[0], affine))
    label = read_label(save(tmp_path / "label.nii.gz", phantom[1][:, :, :6], affine))
    with pytest.raises(DataError, match=r"5x6x6 voxels but .*image.nii.gz has 5x6x7"):
        check_same_grid(image, label)
    moved = affine.copy()
    moved[1, 3] += 0.5
    label = read_label(save(tmp_path / "label.nii.gz", phantom[1], moved))
    with pytest.raises(DataError, match=r"entry \(1, 3\) is -6.75 against -7.25"):
        check_same_grid(image, label)
    moved[1, 3] = affine[1, 3] + 1e-4  # rounding of another program
    check_same_grid(image, read_label(save(tmp_path / "label.nii.gz", phantom[1], moved)))


def test_hashes_follow_content_not_storage(tmp_path, save, phantom, affine):
    plain = save(tmp_path / "a.nii", phantom[0], affine)
    packed = save(tmp_path / "a.nii.gz", phantom[0], affine)
    assert file_hash(plain) != file_hash(packed)
    one, two = read_image(plain), read_image(packed)
    digest = content_hash(one.array, one.affine)
    assert digest == content_hash(np.asfortranarray(two.array), two.affine)
    assert digest != content_hash(one.array.transpose(0, 2, 1), one.affine)
    assert digest != content_hash(one.array, one.affine + 1e-9)
    changed = one.array.copy()
    changed[0, 0, 0] += 1
    assert digest != content_hash(changed, one.affine)


def test_names(tmp_path):
    assert case_name(tmp_path / "sub-01.v2_T1w.nii.gz") == "sub-01.v2_T1w"
    assert case_name(tmp_path / "a.nii") == "a"
    assert is_volume_file(tmp_path / "A.NII.GZ")
    assert not is_volume_file(tmp_path / "._a.nii.gz")
    assert not is_volume_file(tmp_path / "a.nii.txt")


def test_real_ibsr(real_data):
    folder = real_data / "ibsr18" / "IBSR_01"
    image = read_image(folder / "IBSR_01.nii.gz")
    label = read_label(folder / "IBSR_01_seg.nii.gz")
    check_same_grid(image, label)
    assert (image.shape, image.trailing, image.spacing) == (
        (256, 128, 256),
        1,
        (0.9375, 1.5, 0.9375),
    )
    np.testing.assert_array_equal(np.unique(label.array), [0, 1, 2, 3])
