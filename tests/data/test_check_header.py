"""The header by itself says what nibabel says of the same bytes."""

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.check import check_dataset
from voxseg.data.check_header import parse_header, read_content, read_header, stored_voxels
from voxseg.data.fix import fix_dataset, open_folder
from voxseg.data.layouts import find_cases
from voxseg.data.volume import read_image
from voxseg.errors import DataError


def _rotation(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q  # of either handedness


@pytest.mark.parametrize("header_class", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (3, 4), (9, 0)], ids=str)
def test_geometry_is_nibabels(header_class, order, codes, rng, tmp_path):
    for _ in range(5):
        header = header_class(endianness=order)
        header.set_data_shape((5, 6, 7))
        header.set_data_dtype(np.int16)
        linear = _rotation(rng) * rng.uniform(0.3, 4, 3)
        affine = nib.affines.from_matvec(linear, rng.normal(size=3) * 100)
        header.set_qform(affine, 1)
        header.set_sform(nib.affines.from_matvec(linear, rng.normal(size=3)), 1)
        header["qform_code"], header["sform_code"] = codes
        header.set_xyzt_units("micron")
        if header["qform_code"] == 9:  # no such code: nibabel takes it as 0
            header["qform_code"] = 0
            expected = header.get_best_affine()
            header["qform_code"] = 9
        else:
            expected = header.get_best_affine()
        found = parse_header(tmp_path / "x.nii", header.binaryblock + bytes(4))
        np.testing.assert_allclose(found.affine, expected, atol=1e-5)
        np.testing.assert_allclose(found.qform, header.get_qform(), atol=1e-5)
        assert found.orientation == "".join(nib.aff2axcodes(expected))
        assert found.get_data_dtype() == header.get_data_dtype()
        assert (found.shape, found.unit_mm) == ((5, 6, 7), 0.001)
        assert found.shear_degrees < 0.01
        assert found.handedness == ("left" if np.linalg.det(expected) < 0 else "right")


def test_voxels_are_the_files(tmp_path, phantom, affine):
    image = nib.Nifti1Image(phantom[0].astype(np.float32), affine)
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii.gz")
    header, content = read_content(tmp_path / "a.nii.gz")
    assert header.scaling == (0.5, 3)
    values = stored_voxels(header, content) * 0.5 + 3
    np.testing.assert_allclose(values, read_image(tmp_path / "a.nii.gz").array)
    np.testing.assert_allclose(header.affine, affine, atol=1e-5)
    assert header.handedness == "left"


def test_bad_headers_are_refused_in_the_words_of_the_reader(tmp_path, save, phantom):
    def colour(header):
        header["datatype"], header["bitpix"] = 32, 64

    def flat(header):
        header.set_sform(np.diag([1, 1, 0, 1]), 1)

    for edit in (colour, flat):
        path = save(tmp_path / "a.nii", phantom[0])
        _, content = read_content(path)
        image = nib.Nifti1Header(bytes(content[:348]))
        edit(image)
        path.write_bytes(image.binaryblock + bytes(content[348:]))
        with pytest.raises(DataError) as expected:
            read_image(path)
        with pytest.raises(DataError) as found:
            read_header(path)
        assert str(found.value) == str(expected.value)
    for head in (b"\x89PNG" + bytes(600), b"nothing"):
        path.write_bytes(head)
        with pytest.raises(DataError) as expected:
            read_image(path)
        with pytest.raises(DataError) as found:
            read_header(path)
        assert str(found.value) == str(expected.value)


def test_an_unknown_unit_is_refused(tmp_path, save, phantom):
    def edit(header):
        header["xyzt_units"] = 7

    with pytest.raises(DataError, match="a unit that NIfTI does not have"):
        read_header(save(tmp_path / "a.nii", phantom[0], edit=edit))


def test_a_short_file_is_refused(tmp_path, save, phantom):
    path = save(tmp_path / "a.nii", phantom[0])
    path.write_bytes(path.read_bytes()[:-10])
    header, content = read_content(path)
    with pytest.raises(DataError, match="ends before its last voxel"):
        stored_voxels(header, content)
    with pytest.raises(DataError, match="truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_any_bits_in_a_header_end_as_findings(tmp_path, phantom, rng, image_class):
    """Whatever a header holds, nothing is raised, and what is copied can be read."""
    data, out = tmp_path / "data", tmp_path / "out"
    is_first = image_class is nib.Nifti1Image
    places = np.r_[40:57, 70:124, 252:328] if is_first else np.r_[12:240, 344:508]
    data.mkdir()
    whole = {}
    for array, name in zip(phantom, ("a.nii", "a_seg.nii"), strict=True):
        image = image_class(array, np.diag([-1, 1.2, 2, 1.0]))
        image.header.set_qform(image.affine, 1)
        nib.save(image_class(array, None, image.header), data / name)
        whole[name] = (data / name).read_bytes()
    outcomes = set()
    for _ in range(150):
        for name, content in whole.items():
            damaged = bytearray(content)
            for place in rng.choice(places, rng.integers(0, 4)):
                damaged[place] = rng.choice([0, 1, 127, 128, 192, 255])
            (data / name).write_bytes(damaged)
        dataset = find_cases(data)
        report = check_dataset(dataset)
        open_folder(out, [data], dataset, overwrite=True)
        (fixed,) = fix_dataset(dataset, report, out, value_for_nan=0.0)
        outcomes.add(fixed.outcome)
        if fixed.files:
            again = check_dataset(find_cases(out)).errors
            assert {error.kind for error in again} <= {"background-only"}, again
    assert outcomes == {"fixed", "copied", "left out"}
