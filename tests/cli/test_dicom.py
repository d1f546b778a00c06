"""DICOM in and out through the program: series, predictions, Segmentations, and refusals."""

import gzip
import json
import re
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxseg.engine.train import TrainRequest, train

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (24, 20, 18)
SPACING = (1.1, 1.0, 1.4)


def head(seed):
    """(columns, rows, slices): a ball in a ball, off the middle, in int16."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum((a - s) ** 2 for a, s in zip(axes, (0.1, -0.15, 0.05), strict=True)))
    label = np.zeros(SHAPE, np.uint8)
    label[radius < 0.7] = 1
    label[radius < 0.4] = 4
    image = np.array([300, 900, 0, 0, 1500])[label] + rng.normal(0, 60, SHAPE)
    return image.astype(np.int16), label


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that has learned the two balls."""
    root = tmp_path_factory.mktemp("dicom-run")
    data = root / "data"
    data.mkdir()
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
    for number in range(3):
        image, label = head(number)
        nib.save(nib.Nifti1Image(image, affine), data / f"s{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), data / f"s{number}_seg.nii.gz")
    settings = {
        "model": {"design": "V0", "stages": 1, "width_divisor": 8},
        "train": {
            "epochs": 12, "steps_per_epoch": 4, "patch_voxels": [16, 16, 16],
            "validate_every": 12, "learning_rate": 5e-3, "precision": "float32",
        },
    }  # fmt: skip
    train(TrainRequest(data=data, run=root / "run", settings=settings, device="cpu"))
    return root / "run"


@pytest.fixture
def patient(tmp_path, dicom):
    """A folder with a scan and a localizer, called as no folder should be."""
    folder = tmp_path / "in" / "Doe_Jane"
    image, _ = head(9)
    affine = dicom.oblique(spacing=SPACING)
    dicom.write_series(folder / "scan", image, affine, name="DOE_JANE.{:03d}")
    dicom.write_series(
        folder / "scout", image[:, :, :2], affine, SeriesInstanceUID=dicom.uid("scout"),
        SeriesNumber=1, SeriesDescription="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_masks_of_dicom_lie_where_those_of_nifti_do(voxseg, run, patient, tmp_path, dicom):
    highdicom = pytest.importorskip("highdicom")
    image, truth = head(9)
    affine = dicom.oblique(spacing=SPACING)
    (tmp_path / "nifti").mkdir()
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "nifti" / "same.nii.gz")
    outcome = voxseg("predict", run, patient, "-o", tmp_path / "out", "--dicom-seg", "-d", "cpu")
    assert outcome.code == 0, outcome.err
    assert "left aside: series 1 'scout' (MR, 2 slices of 24x20), a localizer" in outcome.out
    assert voxseg("predict", run, tmp_path / "nifti", "-o", tmp_path / "b", "-d", "cpu").code == 0
    mask, other = (nib.load(tmp_path / name) for name in ("out/Doe_Jane.nii.gz", "b/same.nii.gz"))
    np.testing.assert_array_equal(mask.dataobj, other.dataobj)
    np.testing.assert_allclose(mask.affine, other.affine, atol=1e-5)
    assert ((np.asarray(mask.dataobj) > 0) == (truth > 0)).mean() > 0.9
    volume = highdicom.seg.segread(tmp_path / "out" / "Doe_Jane.seg.dcm").get_volume(
        combine_segments=True
    )
    for number, value in ((1, 1), (2, 4)):
        mm = LPS @ volume.affine @ [*np.argwhere(volume.array == number).mean(0), 1]
        there = mask.affine @ [*np.argwhere(np.asarray(mask.dataobj) == value).mean(0), 1]
        np.testing.assert_allclose(mm, there, atol=1e-3)
    told = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert told["cases"][0]["also"] == [str(tmp_path / "out" / "Doe_Jane.seg.dcm")]


def unpacked(content):
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def contents(folder):
    return {
        path: unpacked(path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.slow
def test_nothing_written_tells_who_the_patient_is(voxseg, run, patient, tmp_path, dicom, validate):
    out = tmp_path / "out"
    outcome = voxseg(
        "predict", run, patient, "-o", out, "--hash-names", "--dicom-seg", "--anonymise",
        "--report", out / "page.html", "--save-uncertainty", "--slicer", "--mrb", "-d", "cpu",
        "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    files = contents(out)
    assert len(files) == 11, sorted(files)
    (scene,) = out.glob("*.mrb")
    with zipfile.ZipFile(scene) as parts:
        files |= {Path(name): parts.read(name) for name in parts.namelist()}
    told = {**files, "stdout": outcome.out.encode(), "stderr": outcome.err.encode()}
    for secret in (*dicom.SECRETS, "Doe_Jane", "DOE_JANE", dicom.uid("series"), dicom.uid("study")):
        for path, content in told.items():
            assert secret.encode() not in content, (secret, path)
            assert secret not in str(path)
    manifest = json.loads((out / "predict_manifest.json").read_text())
    validate(manifest)
    assert manifest["command"][-1] == "(hidden by --hash-names)"
    page = (out / "page.html").read_text()
    assert "1 of 1" in outcome.err  # drawn
    assert page.count("data:image") >= 1


@pytest.mark.slow
def test_names_of_nifti_files_are_hashed_too(voxseg, run, tmp_path, dicom):
    image, _ = head(4)
    for number, name in enumerate(("Doe_Jane", "Roe_Max")):
        place = tmp_path / "in" / f"{name}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        made = nib.Nifti1Image(image + number, dicom.axial(spacing=SPACING))
        made.header["descrip"] = b"Doe_Jane of old"
        made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of Doe_Jane"))
        nib.save(made, place)
    place.write_bytes(place.read_bytes()[:900])  # which is told, too
    out = tmp_path / "out"
    outcome = voxseg(
        "predict", run, tmp_path / "in", "-o", out, "--hash-names", "--report", out / "page.html",
        "--mrb", "-d", "cpu",
    )  # fmt: skip
    assert outcome.code == 4, outcome.err
    (mask,) = (nib.load(path) for path in out.glob("*.nii.gz"))
    assert not mask.header.extensions
    assert mask.header["descrip"].item() == b""
    np.testing.assert_array_equal(mask.affine, made.affine.astype(np.float32))
    told = {**contents(out), "stdout": outcome.out.encode(), "stderr": outcome.err.encode()}
    (scene,) = out.glob("*.mrb")
    with zipfile.ZipFile(scene) as parts:
        told |= {name: unpacked(parts.read(name)) for name in parts.namelist()}
    for name in ("Doe_Jane", "Roe_Max"):
        for path, content in told.items():
            assert name.encode() not in content, (name, path)
            assert name not in str(path)


@pytest.mark.slow
def test_without_hashes_only_the_folder_is_named(voxseg, run, patient, tmp_path, dicom, validate):
    out = tmp_path / "out"
    assert voxseg("predict", run, patient, "-o", out, "-d", "cpu").code == 0
    for path, content in contents(out).items():
        for secret in (*dicom.SECRETS, "DOE_JANE", dicom.uid("series")):
            assert secret.encode() not in content, (secret, path)
    manifest = json.loads((out / "predict_manifest.json").read_text())
    validate(manifest)
    (entry,) = manifest["files"]["Doe_Jane"]["images"]
    assert entry["path"] == str(patient / "scan")
    made = voxseg("report", out, "-o", tmp_path / "page.html")  # finds the series again
    assert made.code == 0
    assert "1 of 1 cases drawn, 0 warnings" in made.out


@pytest.mark.slow
def test_a_broken_series_among_others_is_told_without_its_name(
    voxseg, run, patient, tmp_path, dicom
):
    bad = tmp_path / "in" / "Roe_Max"
    files = dicom.write_series(
        bad, head(1)[0], dicom.axial(spacing=SPACING), SeriesInstanceUID=dicom.uid("bad")
    )
    files[7].unlink()
    outcome = voxseg(
        "predict", run, bad, patient, "-o", tmp_path / "out", "--hash-names", "-d", "cpu"
    )
    assert outcome.code == 4
    assert "lacks 1 slice" in outcome.err
    (failed,) = [
        case
        for case in json.loads((tmp_path / "out/predict.json").read_text())["cases"]
        if case["error"]
    ]
    assert re.fullmatch(r"[0-9a-f]{12} lacks 1 slice: .*", failed["error"])
    for name in ("Roe", "Doe"):
        assert name not in outcome.err + outcome.out


@pytest.mark.slow
def test_predictions_that_cannot_be_made(voxseg, run, patient, tmp_path, dicom):
    out = tmp_path / "out"

    def refused(code, words, *options, place=patient):
        outcome = voxseg("predict", run, place, "-o", out, "-d", "cpu", *options)
        assert outcome.code == code, outcome.err
        assert re.search(words, outcome.err), outcome.err
        assert not any(secret in outcome.err for secret in dicom.SECRETS)

    refused(2, "no series of .* is called t2", "--series", "t2")
    refused(2, "--anonymise is about DICOM that is written: add --dicom-seg", "--anonymise")
    nifti = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(head(1)[0], np.eye(4)), nifti)
    refused(2, "--dicom-seg is for DICOM series", "--dicom-seg", place=nifti)
    refused(2, "--series is about DICOM", "--series", "1", place=nifti)
    within = voxseg("predict", run, patient, "-o", patient / "masks", "-d", "cpu")
    assert (within.code, "lies within" in within.err) == (2, True)
    out.mkdir()
    (out / "Doe_Jane.seg.dcm").write_text("here")
    refused(2, r"Doe_Jane\.seg\.dcm exists; use --overwrite", "--dicom-seg")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing")
    refused(3, "holds no .*, no DICOM and no photograph", place=empty)


def unread(folder):
    """A checkpoint that is there, and is not looked into before the series are."""
    path = folder / "best.pt"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PhotometricInterpretation": "RGB"}, "colour pictures"),
        ({"Rows": lambda k: 11 if k else 10}, "slices of different size"),
        ({"ImagePositionPatient": lambda k: [0, 0, k // 2]}, "lie at|positions with|is 4D"),
    ],
)
def test_series_that_are_no_volume_end_with_3(voxseg, tmp_path, dicom, changes, words):
    dicom.write_series(tmp_path / "in", **changes)
    outcome = voxseg("predict", unread(tmp_path), tmp_path / "in", "-o", tmp_path / "out")
    assert outcome.code == 3
    assert re.search(words, outcome.err)
    listed = voxseg("data", "series", tmp_path / "in")
    assert listed.code == 0
    assert re.search(words, listed.out)


def test_two_studies_end_with_2(voxseg, tmp_path, dicom):
    for name in "ab":
        dicom.write_series(
            tmp_path / "in" / name,
            StudyInstanceUID=dicom.uid(name),
            SeriesInstanceUID=dicom.uid(name, 1),
        )
    outcome = voxseg("predict", unread(tmp_path), tmp_path / "in", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "holds 2 studies" in outcome.err


def test_series_are_listed(voxseg, patient, dicom, validate):
    listed = voxseg("data", "series", patient)
    assert listed.code == 0
    for words in ("scout", "localizer", "t1 mprage", "volume", "24x20", dicom.uid("series")):
        assert words in listed.out
    assert not any(secret in listed.out for secret in dicom.SECRETS)
    document = voxseg("data", "series", patient, "--json").json
    validate(document)
    assert [row["kind"] for row in document["series"]] == ["localizer", "volume"]
    assert not any(secret in json.dumps(document) for secret in dicom.SECRETS)
    none = voxseg("data", "series", patient.parent / "none")
    assert (none.code, "check the name" in none.err) == (3, True)


@pytest.fixture
def mask(tmp_path, dicom):
    """The balls on a finer grid that is turned, flipped and larger than the series."""
    _, label = head(9)
    fine = np.pad(label.repeat(2, 0).repeat(2, 1).repeat(2, 2), 3)[::-1].transpose(2, 0, 1)
    affine = dicom.oblique(spacing=SPACING) @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = (dicom.oblique(spacing=SPACING) @ [-1.75, -1.75, -1.75, 1])[:3]
    flipped = affine @ np.array(
        [[-1, 0, 0, fine.shape[1] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(fine), flipped[:, [2, 0, 1, 3]]), path)
    return path


def test_a_mask_from_elsewhere_is_laid_onto_the_series(voxseg, patient, mask, tmp_path, dicom):
    highdicom = pytest.importorskip("highdicom")
    out = tmp_path / "new" / "mask.dcm"
    table = tmp_path / "table.csv"
    table.write_text(
        "LabelValue,Name,Color_R,Color_G,Color_B\n1,shell,1,2,3\n4,core,9,9,9\n6,rim,0,0,0\n"
    )
    made = voxseg("export", "dicom", mask, "--series", patient, "--label-table", table, "-o", out)
    assert made.code == 0, made.err
    _, label = head(9)
    shell, core = (int((label == value).sum()) for value in (1, 4))
    assert "resampled onto series 3 't1 mprage' (MR, 18 slices of 24x20)" in made.out
    assert f"shell: {8 * shell} voxels in the mask, {shell} here" in made.out
    assert f"core: {8 * core} voxels in the mask, {core} here" in made.out
    assert "rim: no voxel, described only" in made.out
    seg = highdicom.seg.segread(out)
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["shell", "core", "rim"]
    volume = seg.get_volume(combine_segments=True)
    mm = LPS @ volume.affine @ [*np.argwhere(volume.array == 2).mean(0), 1]
    there = dicom.oblique(spacing=SPACING) @ [*np.argwhere(label == 4).mean(0), 1]
    np.testing.assert_allclose(mm, there, atol=0.01)


def test_dicom_is_shown_and_goes_into_scenes(voxseg, patient, tmp_path, dicom):
    _, label = head(9)
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(label, dicom.oblique(spacing=SPACING)), path)
    page = tmp_path / "page.html"
    shown = voxseg("view", patient, path, "-o", page)
    assert shown.code == 0, shown.err
    scene = voxseg("export", "slicer", path, "--image", patient, "-o", tmp_path / "s", "--mrb")
    assert scene.code == 0, scene.err
    with zipfile.ZipFile(tmp_path / "s" / "mask.mrb") as parts:
        names = parts.namelist()
        told = b"".join(parts.read(name) for name in names)
    assert [name for name in names if name.endswith("mask.nrrd")]
    for secret in dicom.SECRETS:
        assert secret.encode() not in page.read_bytes() + told
    moved = nib.Nifti1Image(label, dicom.axial(spacing=SPACING))
    nib.save(moved, path)
    refused = voxseg("export", "slicer", path, "--image", patient, "-o", tmp_path / "s2")
    assert (refused.code, "--resample" in refused.err) == (3, True)


def test_exports_that_cannot_be_made(voxseg, patient, mask, tmp_path, dicom):
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj)

    def saved(name, array, affine=image.affine):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
        return tmp_path / name

    far = image.affine.copy()
    far[:3, 3] += 400
    out = tmp_path / "o.dcm"

    def refused(code, words, mask=mask, out=out, series=patient, more=()):
        done = voxseg("export", "dicom", mask, "--series", series, "-o", out, *more)
        assert done.code == code, done.err
        assert re.search(words, done.err), done.err

    refused(
        3,
        "lies outside the series .* the mask has .* axes .* and the series 24x20x18 voxels",
        saved("far.nii.gz", voxels, far),
    )
    refused(3, "has no voxel above 0", saved("none.nii.gz", voxels * 0))
    negative = voxels.astype(np.int16) - 1
    refused(3, "has values below 0", saved("minus.nii.gz", negative))
    large = voxels.astype(np.int32) * 70_000
    refused(3, "labels of masks go to 65535", saved("large.nii.gz", large))
    refused(3, "label table brain tissues has 1, 2, 3",
            more=("--label-table", "brain-tissues"))  # fmt: skip
    refused(3, "holds no DICOM", series=run_folder(tmp_path))
    refused(2, "no series of .* is called t9", more=("--series-uid", "t9"))
    refused(2, "must end in .dcm", out=tmp_path / "o.nii.gz")
    refused(2, "is a folder", out=tmp_path)
    out.write_text("here")
    refused(2, "use --overwrite")
    assert out.read_text() == "here"
    done = voxseg("export", "dicom", mask, "--series", patient, "-o", out, "--overwrite",
                  "--series-uid", "mprage", "--anonymise")  # fmt: skip
    assert done.code == 0
    assert "anonymised" in done.out
    assert b"Doe" not in out.read_bytes()
    assert dicom.read(out).PatientIdentityRemoved == "YES"


def run_folder(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("words")
    return folder
