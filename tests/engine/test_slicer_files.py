"""What ``predict --slicer`` and ``--mrb`` write, by networks that nobody trained."""

import json
import zipfile

import nibabel as nib
import numpy as np
import pytest

import voxseg
from voxseg.engine.config import merge
from voxseg.engine.pairs import find_pairs
from voxseg.engine.predict import PredictRequest, predict
from voxseg.engine.slicer_files import SlicerFiles
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import UsageError

slicerio = pytest.importorskip("slicerio", reason="slicerio is missing: pip install 'voxseg[dev]'")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_subjects, quick_settings):
    """A folder of two subjects, and a run."""
    root = tmp_path_factory.mktemp("trained")
    data = make_subjects(root / "data", 2)
    settings = merge(quick_settings, {"train": {"epochs": 1, "steps_per_epoch": 1}})
    settings = merge(settings, {"model": {"design": "V0"}, "labels": {"names": ["bg", "a", "b"]}})
    train(TrainRequest(data=data, run=root / "run", settings=settings, device="cpu"))
    return data, root / "run"


def test_segmentations_lie_beside_their_masks(trained, tmp_path):
    data, run = trained
    outcomes = voxseg.predict(run, data, tmp_path / "out", mrb=True, device="cpu")
    out = tmp_path / "out"
    for outcome in outcomes:
        name = outcome.case_id
        assert outcome.also == (str(out / f"{name}.seg.nrrd"), str(out / f"{name}.mrb"))
        mask = nib.load(out / f"{name}.nii.gz")
        read = slicerio.read_segmentation(str(out / f"{name}.seg.nrrd"))
        np.testing.assert_array_equal(read["voxels"], np.asarray(mask.dataobj))
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ read["ijkToLPS"], mask.affine)
        assert {s["labelValue"]: s["name"] for s in read["segments"]} == {2: "a", 5: "b"}
        with zipfile.ZipFile(out / f"{name}.mrb") as bundle:
            image = bundle.read(f"{name}/Data/{name}.nii.gz")
        assert image == (data / f"{name}.nii.gz").read_bytes()
    told = json.loads((out / "predict.json").read_text())
    assert told["cases"][1]["also"] == list(outcomes[1].also)
    assert "a,86," in (out / "labels.csv").read_text()
    # What lies beside a mask is no mask.
    assert len(find_pairs(out, data).pairs) == 2
    assert find_pairs(out, data).without_truth == ()


def test_files_that_exist(trained, tmp_path):
    data, run = trained
    out = tmp_path / "out"
    words = (run, data / "case0.nii.gz", out)
    (outcome,) = voxseg.predict(*words, slicer=True, device="cpu")
    assert outcome.also == (str(out / "case0.seg.nrrd"),)
    (out / "case0.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"case0\.seg\.nrrd exists; use --overwrite"):
        voxseg.predict(*words, slicer=True, device="cpu")
    voxseg.predict(*words, device="cpu")  # who does not ask for it does not stumble over it
    (out / "case0.nii.gz").unlink()
    (out / "case0.seg.nrrd").write_bytes(b"stopped half-way")
    voxseg.predict(*words, slicer=True, skip_existing=True, device="cpu")
    assert slicerio.read_segmentation(str(out / "case0.seg.nrrd"))
    (out / "case0.seg.nrrd").write_bytes(b"old")
    (outcome,) = voxseg.predict(*words, slicer=True, skip_existing=True, device="cpu")
    assert (outcome.memory, outcome.also) == ("kept as it was", ())
    voxseg.predict(*words, slicer=True, overwrite=True, device="cpu")
    assert slicerio.read_segmentation(str(out / "case0.seg.nrrd"))


def test_a_mask_of_its_own_name(trained, tmp_path):
    data, run = trained
    target = tmp_path / "new" / "mine.nii"
    (outcome,) = voxseg.predict(run, data / "case0.nii.gz", target, mrb=True, device="cpu")
    assert outcome.also == tuple(str(target.with_name(f"mine{e}")) for e in (".seg.nrrd", ".mrb"))
    with zipfile.ZipFile(target.with_name("mine.mrb")) as bundle:
        assert bundle.namelist()[0] == "case0/case0.mrml"


def test_photographs_have_none(trained, tmp_path, save_pictures):
    _, run = trained
    pictures = save_pictures(tmp_path / "pictures", "a.png")
    extra = SlicerFiles()
    request = PredictRequest(
        checkpoint=run, inputs=(pictures,), output=tmp_path / "out", device="cpu",
        extras=(extra,), beside=extra.endings,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"\.seg\.nrrd is written of volumes, and .*a\.png is a"):
        predict(request)
    assert not (tmp_path / "out").exists()


def test_several_channels_show_the_first(tmp_path, rng):
    from voxseg.engine.slicer_files import write_case_scene

    affine = np.diag([1.0, 2, 3, 1])
    frames = rng.normal(50, 9, (4, 5, 6, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(frames, affine), tmp_path / "both.nii.gz")
    segments = tmp_path / "a.seg.nrrd"
    segments.write_bytes(b"any")
    path = write_case_scene(
        tmp_path / "a.mrb", "both", segments, frames[..., 0] > 50, (tmp_path / "both.nii.gz",)
    )
    with zipfile.ZipFile(path) as bundle:
        (tmp_path / "copy.nrrd").write_bytes(bundle.read("both/Data/both.nrrd"))
    nrrd = pytest.importorskip("nrrd")
    np.testing.assert_array_equal(nrrd.read(str(tmp_path / "copy.nrrd"))[0], frames[..., 0])


def test_a_series_of_dicom_is_an_image(dicom, tmp_path):
    series, affine = tmp_path / "series", dicom.oblique()
    dicom.write_series(series, affine=affine)
    label = (dicom.phantom() == 900).astype(np.uint8)
    nib.save(nib.Nifti1Image(label[:, :, ::-1], affine @ _upside_down(label)), tmp_path / "m.nii")
    (outcome,) = voxseg.export_slicer(
        tmp_path / "m.nii", series, tmp_path / "out", mrb=True, resample=True
    )
    assert [path.name for path in outcome.files] == ["m.seg.nrrd", "m.mrb"]
    read = slicerio.read_segmentation(str(outcome.files[0]))
    middle = np.argwhere(read["voxels"]).mean(0)
    found = np.diag([-1, -1, 1, 1]) @ read["ijkToLPS"] @ [*middle, 1]
    np.testing.assert_allclose(found, affine @ [*np.argwhere(label).mean(0), 1], atol=0.01)
    with zipfile.ZipFile(outcome.files[1]) as bundle:
        assert "m/Data/m.nrrd" in bundle.namelist()  # voxels alone: no file of the patient's
        content = b"".join(bundle.read(name) for name in bundle.namelist())
    assert not [secret for secret in dicom.SECRETS if secret.encode() in content]


def _upside_down(label):
    """Grid whose last axis runs the other way, in voxels of the first."""
    turned = np.diag([1.0, 1, -1, 1])
    turned[2, 3] = label.shape[2] - 1
    return turned
