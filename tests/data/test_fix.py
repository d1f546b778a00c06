"""Corrected copies: each planted defect is gone from the copy, and the source is as it was."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxseg.data.check import check_dataset, find_pairs
from voxseg.data.fix import FIXES, fix_dataset, fix_summary, open_folder, safe_names
from voxseg.data.layouts import find_cases
from voxseg.data.volume import read_image, read_label
from voxseg.errors import UsageError

UPRIGHT = np.diag([0.9, 1.5, 2.0, 1.0])


@pytest.fixture
def data(tmp_path, save, phantom):
    """One good case, ``a``."""
    save(tmp_path / "data/a.nii.gz", phantom[0])
    save(tmp_path / "data/a_seg.nii.gz", phantom[1])
    return tmp_path / "data"


@pytest.fixture
def fix(tmp_path, data):
    """Check the data, write copies, check those; the source must not change by a byte."""

    def run(**options):
        before = {path.name: path.read_bytes() for path in data.iterdir()}
        dataset, known = find_pairs(data)
        report, out = check_dataset(dataset, known=known), tmp_path / "out"
        open_folder(out, [data], dataset, overwrite=True)
        fixes = fix_dataset(dataset, report, out, **options)
        assert {path.name: path.read_bytes() for path in data.iterdir()} == before
        assert json.loads((out / FIXES).read_text())["finished"] is True
        again = check_dataset(find_cases(out)) if any(one.files for one in fixes) else None
        return {one.case_id: one for one in fixes}, again, out

    return run


def itk_places(path, like):
    """Tell whether SimpleITK puts every corner of a file where nibabel's affine does."""
    image = SimpleITK.ReadImage(str(path))
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, image.GetSize(), strict=True)]
        expected = (like @ [*index, 1])[:3] * (-1, -1, 1)  # ITK's world runs left and back
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)


def test_a_good_set_is_copied_as_it_is(fix, data):
    fixes, again, out = fix()
    assert fixes["a"].outcome == "copied"
    assert fixes["a"].files == ("a.nii.gz", "a_seg.nii.gz")
    assert again.findings == ()
    for name in fixes["a"].files:
        assert (out / name).read_bytes() == (data / name).read_bytes()


@pytest.mark.parametrize("header_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_forms_that_contradict_each_other(fix, data, phantom, header_class):
    turned = UPRIGHT[[1, 0, 2, 3]] * (1, -1, 1, 1)
    turned[:3, 3] = 3, -40.5, 7
    for array, name in zip(phantom, ("a", "a_seg"), strict=True):
        image = header_class(array, None)
        image.header.set_qform(UPRIGHT, 1)
        image.header.set_sform(turned, 4)
        nib.save(header_class(array, None, image.header), data / f"{name}.nii.gz")
    fixes, again, out = fix()
    assert again.findings == ()
    assert fixes["a"].outcome == "fixed"
    assert fixes["a"].changes[0] == "a.nii.gz: qform set to the sform"
    header = nib.load(out / "a.nii.gz").header
    np.testing.assert_allclose(header.get_qform(), turned, atol=1e-5)
    np.testing.assert_array_equal(header.get_sform(), nib.load(data / "a.nii.gz").affine)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (4, 4)
    np.testing.assert_array_equal(read_image(out / "a.nii.gz").array, phantom[0])
    if header_class is nib.Nifti1Image:  # this ITK reads NIfTI-1 only where forms are at odds
        itk_places(out / "a.nii.gz", turned)


def test_a_sheared_sform_switches_the_qform_off(fix, data, save, phantom, affine):
    def edit(header):
        header.set_qform(UPRIGHT, 1)
        header.set_sform(affine, 1)

    for array, name in zip(phantom, ("a", "a_seg"), strict=True):
        save(data / f"{name}.nii.gz", array, edit=edit)
    fixes, again, out = fix()
    assert {finding.kind for finding in again.findings} == {"shear"}
    assert "the qform is switched off" in fixes["a"].changes[0]
    assert any("sheared" in words for words in fixes["a"].remaining)
    np.testing.assert_allclose(nib.load(out / "a.nii.gz").affine, affine, atol=1e-5)


def test_pixdim_and_the_fourth_axis(fix, data, save, phantom):
    def edit(header):
        header.set_sform(UPRIGHT, 2)
        header["qform_code"] = 0
        header["pixdim"][1:4] = 1, 1, 1

    for array, name in zip(phantom, ("a", "a_seg"), strict=True):
        save(data / f"{name}.nii.gz", array[..., None], edit=edit)
    fixes, again, out = fix()
    assert again.findings == ()
    assert len(fixes["a"].changes) == 4
    assert "from 1 x 1 x 1 to 0.9 x 1.5 x 2" in fixes["a"].changes[1]
    assert nib.load(out / "a.nii.gz").header["dim"].tolist() == [3, 5, 6, 7, 1, 1, 1, 1]
    assert SimpleITK.ReadImage(str(out / "a.nii.gz")).GetDimension() == 3
    itk_places(out / "a.nii.gz", UPRIGHT)


@pytest.mark.parametrize(
    ("angles", "signs"),
    [((0.1, 0.2, 0.3), (-1, 1, 1)), ((0, 0, 3), (1, 1, 1)), ((0, 0, 0), (-1, -1, 1)),
     ((0, 0, 0), (-1, 1, 1)), ((2, -1, -3), (1, 1, -1)), ((0, 0, 0), (-1, -1, -1))],
    ids=str,
)  # fmt: skip
def test_pixdim_with_a_qform_in_use(fix, data, save, phantom, angles, signs):
    """The qform is made of pixdim, so one cannot be mended without the other."""
    rotation = nib.eulerangles.euler2mat(*angles)
    oblique = nib.affines.from_matvec(rotation @ np.diag([0.9, 1.5, 2]) * signs, [5, 6, 7])

    def edit(header):
        header.set_qform(oblique, 1)
        header.set_sform(oblique, 1)
        header["pixdim"][1] *= 1.002

    save(data / "a.nii.gz", phantom[0], edit=edit)
    save(data / "a_seg.nii.gz", phantom[1], oblique)
    _, again, out = fix()
    assert again.findings == ()
    np.testing.assert_allclose(nib.load(out / "a.nii.gz").get_qform(), oblique, atol=1e-4)
    itk_places(out / "a.nii.gz", oblique)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("top", [4, 300, 70000, -3])
def test_float_labels_become_integers(fix, data, phantom, order, top):
    label = phantom[1].astype(np.float32)
    label[label == 4] = top
    label[label == 1] += np.float32(7e-4)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.float32)
    nib.save(nib.Nifti1Image(label, UPRIGHT, header), data / "a_seg.nii.gz")
    fixes, again, out = fix()
    assert again.errors == again.notes == ()
    assert "values from float32 to" in fixes["a"].changes[0]
    np.testing.assert_array_equal(read_label(out / "a_seg.nii.gz").array, np.rint(label))
    assert nib.load(out / "a_seg.nii.gz").get_data_dtype().kind in "iu"
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out / "a_seg.nii.gz")))
    np.testing.assert_array_equal(found.T, np.rint(label))


def test_a_scaled_label_keeps_its_values(fix, data, phantom):
    image = nib.Nifti1Image((phantom[1] / 2).astype(np.float32), UPRIGHT)
    image.header.set_slope_inter(2, 1)
    image.to_filename(data / "a_seg.nii.gz")
    header = bytearray(gzip.decompress((data / "a_seg.nii.gz").read_bytes()))
    header[112:120] = np.array([2, 1], "<f4").tobytes()  # nibabel writes 1 and 0 for floats
    (data / "a_seg.nii.gz").write_bytes(gzip.compress(header))
    np.testing.assert_array_equal(read_label(data / "a_seg.nii.gz").array, phantom[1] + 1)
    _, again, out = fix()
    assert again.findings == ()
    np.testing.assert_array_equal(read_label(out / "a_seg.nii.gz").array, phantom[1] + 1)


def test_a_label_slightly_off_gets_its_images_geometry(fix, data, save, phantom):
    near = UPRIGHT.copy()
    near[0, 3] = 0.003
    save(data / "a_seg.nii.gz", phantom[1], near)
    fixes, again, out = fix()
    assert again.findings == ()
    assert fixes["a"].changes == ("a_seg.nii.gz: geometry taken over from the image",)
    np.testing.assert_array_equal(
        nib.load(out / "a_seg.nii.gz").affine, nib.load(out / "a.nii.gz").affine
    )


def test_nan_needs_a_value(fix, data, save, phantom):
    image = phantom[0].astype(np.float32)
    image[0, 1, 2], image[3, 3, 3] = np.nan, -np.inf
    save(data / "a.nii.gz", image)
    fixes, again, _ = fix()
    assert (fixes["a"].outcome, again) == ("left out", None)
    assert "1 NaN and 1 infinite voxels" in fixes["a"].remaining[0]
    fixes, again, out = fix(value_for_nan=-1.0)
    assert again.findings == ()
    assert fixes["a"].changes == ("a.nii.gz: 2 NaN or infinite voxels set to -1",)
    expected = np.where(np.isfinite(image), image, -1)
    np.testing.assert_array_equal(read_image(out / "a.nii.gz").array, expected)


def test_nan_in_a_label(fix, data, save, phantom):
    label = phantom[1].astype(np.float64)
    label[0, 1, 2] = np.nan
    save(data / "a_seg.nii.gz", label)
    assert fix(value_for_nan=0.5)[0]["a"].outcome == "left out"
    fixes, again, _ = fix(value_for_nan=0.0)
    assert (fixes["a"].outcome, again.findings) == ("fixed", ())


def test_a_value_that_the_type_cannot_hold(fix, data, save, phantom):
    image = phantom[0].astype(np.float32)
    image[0, 1, 2] = np.nan
    save(data / "a.nii.gz", image)
    fixes, _, _ = fix(value_for_nan=1e300)
    assert fixes["a"].outcome == "left out"
    assert "cannot hold the value 1e+300" in fixes["a"].remaining[0]


def test_what_cannot_be_guessed_is_left_out_and_said(fix, data, save, phantom, tmp_path):
    image, label = phantom
    for number, name in enumerate("bcdef"):
        save(data / f"{name}.nii.gz", image + np.int16(number + 1))
        save(data / f"{name}_seg.nii.gz", np.roll(label, number + 1, 2))
    save(data / "b_seg.nii.gz", label[1:])
    (data / "c_seg.nii.gz").unlink()
    save(data / "d.nii.gz", image)
    (data / "e.nii.gz").write_bytes((data / "e.nii.gz").read_bytes()[:-30])
    fixes, again, out = fix()
    assert {name: one.outcome for name, one in fixes.items()} == {
        "a": "copied", "b": "left out", "c": "left out", "d": "left out", "e": "left out",
        "f": "copied",
    }  # fmt: skip
    reasons = [fixes[name].remaining[0] for name in "bcde"]
    words = ("4x6x7 voxels", "no label", "the same voxels as case a", "truncated or damaged")
    assert [word in reason for word, reason in zip(words, reasons, strict=True)] == [True] * 4
    assert again.findings == ()
    summary = fix_summary(out, tuple(fixes.values()), again)
    assert (summary["errors"], len(summary["cases"])) == (0, 6)
    assert json.loads((out / FIXES).read_text())["cases"] == json.loads(
        json.dumps(summary["cases"])
    )


def test_plain_files_are_compressed_and_channels_pair_up_again(tmp_path, save, phantom):
    image, label = phantom
    save(tmp_path / "p.nii", image)
    save(tmp_path / "q.nii", image + np.int16(3))
    save(tmp_path / "l.nii", label)
    (tmp_path / "list.csv").write_text("case,image,image2,label\n../up_seg,p.nii,q.nii,l.nii\n")
    dataset = find_cases(tmp_path / "list.csv")
    out = tmp_path / "out"
    open_folder(out, [tmp_path / "list.csv"], dataset, overwrite=False)
    (fixed,) = fix_dataset(dataset, check_dataset(dataset), out)
    assert fixed.files[0] == "_up_seg_case_0000.nii.gz"
    copies = find_cases(out)
    assert [len(case.images) for case in copies.cases] == [2]
    assert gzip.decompress((out / fixed.files[1]).read_bytes()) == (tmp_path / "q.nii").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "p.nii", "q.nii", "l.nii", "list.csv", "out",
    }  # fmt: skip


def test_an_interrupted_fix_can_be_repeated(data, tmp_path, monkeypatch):
    dataset, out = find_cases(data), tmp_path / "out"
    report = check_dataset(dataset)

    def stop(source, target, content):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    open_folder(out, [data], dataset, overwrite=False)
    monkeypatch.setattr("voxseg.data.fix._write_file", stop)
    with pytest.raises(KeyboardInterrupt):
        fix_dataset(dataset, report, out)
    monkeypatch.undo()
    assert json.loads((out / FIXES).read_text())["finished"] is False
    open_folder(out, [data], dataset, overwrite=True)
    assert list(out.iterdir()) == []
    assert fix_dataset(dataset, report, out)[0].outcome == "copied"


def test_safe_names():
    assert safe_names(["a", "A", "x/y", "..", "mask_1", "é b"]) == [
        "a", "A-2", "x_y", "case", "mask_1_case", "é_b",
    ]  # fmt: skip


def test_the_folder_can_harm_nothing(data, tmp_path, save, phantom):
    dataset = find_cases(data)

    def refuse(out, words, *, overwrite=False):
        with pytest.raises(UsageError, match=words):
            open_folder(out, [data], dataset, overwrite=overwrite)

    refuse(data, "lies inside")
    refuse(data / "copies", "lies inside")
    refuse(tmp_path, "a source", overwrite=True)
    (tmp_path / "link").symlink_to(data)
    refuse(tmp_path / "link/copies", "lies inside")
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file", "is a file")
    out = tmp_path / "out"
    open_folder(out, [data], dataset, overwrite=False)
    fix_dataset(dataset, check_dataset(dataset), out)
    refuse(out, "already holds files")
    save(out / "mine.nii.gz", phantom[0])
    refuse(out, "mine.nii.gz, which --fix did not write", overwrite=True)
    (out / "mine.nii.gz").unlink()
    (data / "a.nii.gz").rename(data / "b.nii.gz")
    (data / "a_seg.nii.gz").rename(data / "b_seg.nii.gz")
    dataset = find_cases(data)
    open_folder(out, [data], dataset, overwrite=True)
    fix_dataset(dataset, check_dataset(dataset), out)
    assert {path.name for path in out.iterdir()} == {"b.nii.gz", "b_seg.nii.gz", FIXES}
