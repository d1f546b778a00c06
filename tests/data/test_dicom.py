"""DICOM series as volumes, against SimpleITK's series reader and nibabel's wrappers."""

import sys
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import JPEG2000Lossless, RLELossless

from voxseg.data.dicom import read_grid, read_series
from voxseg.data.dicom_headers import is_dicom_file, read_header
from voxseg.data.layouts import find_cases
from voxseg.data.reading import read_channels, read_geometry
from voxseg.data.resample import resample_label
from voxseg.errors import DataError, VoxsegError

AFFINES = ("axial", "oblique", "left_handed", "coronal")
SHAPE = (14, 11, 9)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(params=AFFINES)
def affine(request, dicom):
    return getattr(dicom, request.param)()


@pytest.fixture(scope="module")
def nibabels_affine():
    """What nibabel makes of a file: (row, column, slice) to mm in LPS."""
    with warnings.catch_warnings():
        # On import, about parts that are not used here.
        warnings.filterwarnings("ignore", "The DICOM readers are highly experimental")
        from nibabel.nicom.dicomwrappers import wrapper_from_data

    return lambda path: wrapper_from_data(pydicom.dcmread(path)).affine


def by_sitk(folder):
    """Voxels (X, Y, Z) and affine in RAS as SimpleITK's GDCM series reader gives them."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ lps


def test_every_voxel_lies_where_it_was_put(tmp_path, affine, dicom):
    volume = read_series(dicom.write_series(tmp_path / "s", affine=affine))
    for place in ((3, 7, 2), (0, 0, 0), (13, 10, 8)):
        mm = affine @ [*place, 1]
        found = np.linalg.solve(volume.affine, mm)[:3]
        np.testing.assert_allclose(found, np.rint(found), atol=1e-4)
        index = tuple(np.rint(found).astype(int))
        assert volume.array[(0, *index)] == dicom.phantom()[place]


def test_same_voxels_and_millimetres_as_simpleitk(tmp_path, affine, dicom):
    files = dicom.write_series(tmp_path / "s", affine=affine)
    volume = read_series(files)
    voxels, theirs = by_sitk(tmp_path / "s")
    np.testing.assert_array_equal(volume.array[0], voxels)
    np.testing.assert_allclose(volume.affine, theirs, atol=2e-5)


def test_same_millimetres_as_nibabels_wrappers(tmp_path, affine, dicom, nibabels_affine):
    files = dicom.write_series(tmp_path / "s", affine=affine)
    grid = read_grid(files)
    for depth, (path, _) in enumerate(grid.frames):
        theirs = nibabels_affine(path)
        ours = LPS @ grid.affine
        for column, row in ((0, 0), (5, 2), (13, 10)):
            np.testing.assert_allclose(
                ours @ [column, row, depth, 1], theirs @ [row, column, 0, 1], atol=1e-6
            )


def test_geometry_alone_is_that_of_the_volume(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    volume, (head, num_bytes) = read_channels(files), read_geometry(files)
    assert head.array.shape == volume.array.shape == (1, *SHAPE)
    assert not head.array.any()
    assert num_bytes >= volume.array.nbytes
    np.testing.assert_array_equal(head.affine, volume.affine)
    assert volume.array.dtype == np.float32
    assert (int(volume.header["qform_code"]), int(volume.header["sform_code"])) == (1, 1)
    assert volume.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(volume.header.get_qform(), volume.affine, atol=1e-4)


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path, dicom):
    files = dicom.write_series(
        tmp_path / "s",
        affine=dicom.axial(),
        RescaleSlope=lambda k: k + 2,
        RescaleIntercept="-5",
    )
    expected = dicom.phantom() * (np.arange(SHAPE[2]) + 2) - 5
    np.testing.assert_allclose(read_series(files).array[0], expected, rtol=1e-6)
    np.testing.assert_allclose(read_series(files).array[0], by_sitk(tmp_path / "s")[0], rtol=1e-6)


@pytest.mark.parametrize("is_signed", [True, False])
def test_signed_and_unsigned_values(tmp_path, is_signed, dicom):
    array = dicom.phantom()
    array[0, 0, 0] = -1
    changes = {} if is_signed else {"PixelRepresentation": 0}
    volume = read_series(dicom.write_series(tmp_path / "s", array, dicom.axial(), **changes))
    assert volume.array[0, 0, 0, 0] == (-1 if is_signed else 65535)


@pytest.mark.parametrize("order", [None, [3, 1, 0, 2, 8, 7, 6, 5, 4]])
def test_multiframe_is_the_same_volume(tmp_path, affine, order, dicom):
    path = dicom.write_multiframe(tmp_path / "many.dcm", affine=affine, order=order)
    volume = read_series([path])
    single = read_series(dicom.write_series(tmp_path / "s", affine=affine))
    np.testing.assert_allclose(volume.affine, single.affine, atol=1e-5)
    slopes = np.arange(SHAPE[2]) + 2
    is_reversed = np.linalg.det(LPS @ affine) < 0
    expected = single.array[0] * (slopes[::-1] if is_reversed else slopes) - 7
    np.testing.assert_array_equal(volume.array[0], expected)


def test_multiframe_lies_where_nibabel_says(tmp_path, dicom, nibabels_affine):
    path = dicom.write_multiframe(tmp_path / "many.dcm")
    theirs = nibabels_affine(path)
    ours = LPS @ read_grid([path]).affine
    # It counts slices from the other end.
    np.testing.assert_allclose(ours @ [5, 2, 3, 1], theirs @ [2, 5, 8 - 3, 1], atol=1e-6)


def test_folder_is_a_case_called_after_it(tmp_path, dicom):
    folder = tmp_path / "subject 1"
    files = dicom.write_series(folder / "deep" / "er", name="{:03d}")
    (folder / "readme.txt").write_text("not DICOM " * 40)
    (folder / "preview.jpg").write_bytes(b"\xff\xd8\xff")
    dicom.write_dicomdir(folder / "DICOMDIR")
    dataset = find_cases(folder, need_labels=False)
    (case,) = dataset.cases
    assert case.case_id == "subject 1"
    assert sorted(case.images) == sorted(files)
    assert not case.is_image
    assert dataset.layout == "a DICOM series"


def test_multiframe_file_is_a_case(tmp_path, dicom):
    path = dicom.write_multiframe(tmp_path / "scan.dcm")
    (case,) = find_cases(path, need_labels=False).cases
    assert (case.case_id, case.images) == ("scan", (path,))


def test_nifti_comes_first(tmp_path, dicom):
    dicom.write_series(tmp_path)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    assert find_cases(tmp_path, need_labels=False).cases[0].images == (tmp_path / "a.nii.gz",)


def test_files_without_preamble_are_read(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    expected = read_series(files)
    for path in files:
        found = dicom.read(path)
        bare = pydicom.Dataset(found)
        bare.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
        assert is_dicom_file(path)
    np.testing.assert_array_equal(read_series(files).array, expected.array)


@pytest.mark.parametrize("start", [b"", b"\x08\x00\x05\x00CS", b"hello " * 50, b"\x02\x00" * 99])
def test_other_files_are_not_dicom(tmp_path, start):
    path = tmp_path / "file"
    path.write_bytes(start)
    assert not is_dicom_file(path)
    assert not is_dicom_file(tmp_path)
    assert not is_dicom_file(tmp_path / "none")


def test_rle_compressed_series_is_read(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    expected = read_series(files)
    for path in files:
        found = dicom.read(path)
        found.compress(RLELossless, generate_instance_uid=False)
        found.save_as(path)
    np.testing.assert_array_equal(read_series(files).array, expected.array)


def test_missing_decoder_is_named(tmp_path, monkeypatch, dicom):
    files = dicom.write_series(tmp_path / "s")
    found = dicom.read(files[0])
    found.file_meta.TransferSyntaxUID = JPEG2000Lossless
    found.PixelData = pydicom.encaps.encapsulate([b"\0" * 10])
    found.save_as(files[0])
    decoder = pydicom.pixels.get_decoder(JPEG2000Lossless)
    monkeypatch.setattr(type(decoder), "is_available", False)
    with pytest.raises(DataError, match=r"compressed as JPEG 2000 .*pip install pylibjpeg"):
        read_series(files)


def test_damaged_pixels_are_told(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:-50])
    with pytest.raises(DataError, match=rf"pixels of {files[2]} cannot be read"):
        read_series(files)


def test_damaged_header_is_told(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:130] + b"CM" + b"\xfe" * 40 + whole[172:])
    with pytest.raises(DataError, match=rf"{files[2]} is truncated or damaged DICOM"):
        read_header(files[2])


def test_fewer_frames_than_announced_are_told(tmp_path, dicom):
    path = dicom.write_multiframe(tmp_path / "m.dcm")
    found = dicom.read(path)
    found.NumberOfFrames = 8
    found.PixelData = found.PixelData[: 8 * 11 * 14 * 2]
    found.save_as(path)
    with pytest.raises(DataError, match="fewer pixels than its headers say"):
        read_series([path])


def test_wrong_number_of_coordinates_is_told(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "s")
    found = dicom.read(files[0])
    found.ImagePositionPatient = ["1", "2"]
    found.save_as(files[0])
    with pytest.raises(DataError, match="2 numbers in ImagePositionPatient, not 3"):
        read_grid(files)


def test_files_of_two_series_are_no_volume(tmp_path, dicom):
    files = dicom.write_series(tmp_path / "a")
    files += dicom.write_series(tmp_path / "b", SeriesInstanceUID=dicom.uid("b"))
    with pytest.raises(DataError, match="several DICOM series"):
        read_grid(files)


def test_missing_pydicom_is_one_sentence(tmp_path, monkeypatch, dicom):
    files = dicom.write_series(tmp_path / "s")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(VoxsegError, match=r"pip install 'voxseg\[dicom\]'"):
        find_cases(tmp_path / "s", need_labels=False)
    with pytest.raises(VoxsegError, match=r"pip install 'voxseg\[dicom\]'"):
        read_channels(files)


def test_phantom_tells_all_sides_apart(dicom):
    """A phantom that equals its own mirror image proves nothing."""
    array = dicom.phantom()
    for axis in range(3):
        assert (np.flip(array, axis) != array).any()
    assert resample_label(array, SHAPE).shape == SHAPE
    assert dicom.place_of(LPS @ dicom.axial(), np.ones(3), 0)["ImageOrientationPatient"]
