import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from voxseg.engine import case_memory, predictor
from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.predict import Part, PredictRequest, predict
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import DataError, UsageError


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_subjects, quick_settings):
    """A data folder and a run trained on it well enough to tell the classes apart."""
    root = tmp_path_factory.mktemp("trained")
    data = make_subjects(root / "data", 4)
    settings = merge(
        quick_settings, {"train": {"epochs": 25, "steps_per_epoch": 6, "validate_every": 25}}
    )
    run = root / "run"
    result = train(TrainRequest(data=data, run=run, settings=settings, device="cpu"))
    return data, run, result


def request(run, inputs, output, **changes):
    return PredictRequest(
        checkpoint=run, inputs=tuple(inputs), output=output, device="cpu", **changes
    )


def dice(found, truth, value):
    both = ((found == value) & (truth == value)).sum()
    return 2 * both / ((found == value).sum() + (truth == value).sum())


def test_training_learned_the_subjects(trained):
    assert trained[2].best_dice > 0.85


def test_masks_lie_on_the_sources_grid_with_the_labels_values(trained, tmp_path, make_subjects):
    _, run, _ = trained
    new = make_subjects(tmp_path / "new", 1, seed=99)
    outcomes = predict(request(run, [new / "case0.nii.gz"], tmp_path / "out"))
    assert [o.error for o in outcomes] == [""]
    mask = nib.load(tmp_path / "out" / "case0.nii.gz")
    source = nib.load(new / "case0.nii.gz")
    truth = np.asarray(nib.load(new / "case0_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert set(np.unique(mask.dataobj)) == {0, 2, 5}
    assert min(dice(np.asarray(mask.dataobj), truth, v) for v in (2, 5)) > 0.75


def test_one_file_may_be_named_and_a_subject_may_be_turned(trained, tmp_path):
    data, run, _ = trained
    source = nib.load(data / "case1.nii.gz")
    turned = nib.Nifti1Image(np.asarray(source.dataobj).transpose(2, 0, 1)[::-1], None)
    matrix = source.affine[:, [2, 0, 1, 3]] @ np.diag([-1, 1, 1, 1.0])
    matrix[:3, 3] = (source.affine[:, [2, 0, 1, 3]] @ [source.shape[2] - 1, 0, 0, 1])[:3]
    turned = nib.Nifti1Image(np.asarray(turned.dataobj), matrix)
    nib.save(turned, tmp_path / "turned.nii.gz")
    predict(request(run, [data / "case1.nii.gz"], tmp_path / "a.nii.gz"))
    predict(request(run, [tmp_path / "turned.nii.gz"], tmp_path / "b.nii.gz"))
    plain = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    back = np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj)[::-1].transpose(1, 2, 0)
    np.testing.assert_array_equal(back, plain)


def test_probabilities_and_flips(trained, tmp_path):
    data, run, _ = trained
    asked = request(
        run, [data / "case0.nii.gz"], tmp_path / "out", save_probabilities=True, tta=True
    )
    predict(asked)
    maps = [nib.load(tmp_path / "out" / f"case0_probability-{v}.nii.gz") for v in (0, 2, 5)]
    values = np.stack([np.asarray(m.dataobj) for m in maps])
    np.testing.assert_allclose(values.sum(0), 1, atol=1e-5)
    mask = np.asarray(nib.load(tmp_path / "out" / "case0.nii.gz").dataobj)
    np.testing.assert_array_equal(np.array([0, 2, 5])[values.argmax(0)], mask)


def test_stages_are_told_and_lie_within_the_whole(trained, tmp_path):
    data, run, _ = trained
    [outcome] = predict(request(run, [data / "case0.nii.gz"], tmp_path / "out"))
    assert set(outcome.stages) == {"read", "prepare", "supervoxels", "network", "write"}
    assert 0 < sum(outcome.stages.values()) <= outcome.seconds


def test_a_run_that_always_averages_mirror_images_predicts_as_with_tta(trained, tmp_path):
    data, run, _ = trained
    always = tmp_path / "always"
    shutil.copytree(run, always)
    path = always / "checkpoints" / "best.pt"
    content = torch.load(path, weights_only=True)
    content["config"]["predict"]["tta"] = True
    save_checkpoint(path, content)
    for name, one, tta in (("plain", run, False), ("tta", run, True), ("always", always, False)):
        out = tmp_path / name
        predict(request(one, [data / "case0.nii.gz"], out, save_probabilities=True, tta=tta))
    plain, tta, found = (
        np.asarray(nib.load(tmp_path / name / "case0_probability-2.nii.gz").dataobj)
        for name in ("plain", "tta", "always")
    )
    np.testing.assert_array_equal(found, tta)
    assert np.abs(found - plain).max() > 1e-4


def test_need_and_free_memory_are_told_before_a_case_starts(trained, tmp_path):
    data, run, _ = trained
    said = []
    (outcome,) = predict(request(run, [data / "case0.nii.gz"], tmp_path / "out"), say=said.append)
    assert re.fullmatch(
        r"case0: needs about \d+\.\d GB \(whole volume at once\), \d+\.\d GB free", said[0]
    )
    assert outcome.memory == "whole volume at once"
    assert f"{outcome.needed_gb:.1f} GB (" in said[0]
    assert f"{outcome.free_gb:.1f} GB free" in said[0]
    (kept,) = json.loads((tmp_path / "out/predict.json").read_text())["cases"]
    assert kept["needed_gb"] == outcome.needed_gb


def test_low_memory_answers_the_same_in_tiles_and_from_disk(trained, tmp_path, monkeypatch):
    data, run, _ = trained
    inputs = [data / "case0.nii.gz"]
    predict(request(run, inputs, tmp_path / "whole", save_uncertainty=True, tta=True))
    # As little as makes a case of this size too large.
    monkeypatch.setattr(predictor, "_LOW_MEMORY_GB", 1e-6)
    tiny = request(run, inputs, tmp_path / "low", save_uncertainty=True, tta=True, low_memory=True)
    said = []
    (outcome,) = predict(tiny, say=said.append)
    assert "on disk" in said[0]
    assert outcome.error == ""
    for name in ("case0", "case0_entropy", "case0_disagreement"):
        one, other = (
            np.asarray(nib.load(tmp_path / folder / f"{name}.nii.gz").dataobj)
            for folder in ("whole", "low")
        )
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert not list((tmp_path / "low").glob(".*"))


def test_too_little_memory_is_told_and_tried_all_the_same(trained, tmp_path, monkeypatch):
    data, run, _ = trained
    monkeypatch.setattr(case_memory, "free_gb", lambda _: 0.05)
    said = []
    inputs = [data / "case0.nii.gz"]
    (outcome,) = predict(request(run, inputs, tmp_path / "out"), say=said.append)
    assert said[0].endswith("0.1 GB free: not enough, it may be stopped")
    assert outcome.error == ""


def test_no_memory_for_the_volume_is_one_sentence_and_the_others_go_on(
    trained, tmp_path, monkeypatch
):
    data, run, _ = trained
    prepare = predictor.Predictor.prepare

    def refuse(self, case):
        if case.case_id == "case0":
            raise MemoryError("Unable to allocate 9 GiB")
        return prepare(self, case)

    monkeypatch.setattr(predictor.Predictor, "prepare", refuse)
    inputs = [data / f"case{k}.nii.gz" for k in (0, 1)]
    first, second = predict(request(run, inputs, tmp_path / "out"))
    assert first.error.startswith("case0 ran out of memory: it needs about ")
    assert second.error == ""


def test_resampled_cases_are_restored_from_probabilities_on_disk(
    tmp_path, make_subjects, quick_settings, monkeypatch
):
    data = make_subjects(tmp_path / "data", 2)
    settings = merge(quick_settings, {"data": {"spacing_mm": [1.5, 1.5, 1.5]}})
    run = tmp_path / "run"
    train(TrainRequest(data=data, run=run, settings=settings, device="cpu"))
    inputs = [data / "case0.nii.gz"]
    predict(request(run, inputs, tmp_path / "whole"))
    monkeypatch.setattr(predictor, "_LOW_MEMORY_GB", 1e-6)
    said = []
    predict(request(run, inputs, tmp_path / "low", low_memory=True), say=said.append)
    assert "on disk" in said[0]
    one, other = (
        np.asarray(nib.load(tmp_path / folder / "case0.nii.gz").dataobj)
        for folder in ("whole", "low")
    )
    assert one.shape == (22, 19, 17)
    assert (one != other).mean() < 1e-3


def test_a_broken_file_does_not_stop_the_others(trained, tmp_path):
    data, run, _ = trained
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(data / "case0.nii.gz", folder / "good.nii.gz")
    whole = (data / "case1.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with gzip.open(folder / "text.nii.gz", "wb") as file:
        file.write(b"not an image " * 100)
    outcomes = {o.case_id: o for o in predict(request(run, [folder], tmp_path / "out"))}
    assert outcomes["good"].error == ""
    assert "cut.nii.gz" in outcomes["cut"].error
    assert "text.nii.gz" in outcomes["text"].error
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    tables = ["labels.csv", "labels.ctbl", "predict.json", "volumes.csv"]
    assert written == ["good.nii.gz", *tables]


def test_existing_masks_are_refused_kept_or_replaced(trained, tmp_path):
    data, run, _ = trained
    out = tmp_path / "out"
    predict(request(run, [data / "case0.nii.gz"], out))
    with pytest.raises(UsageError, match="--overwrite"):
        predict(request(run, [data / "case0.nii.gz"], out))
    before = (out / "case0.nii.gz").stat().st_mtime_ns
    kept = predict(request(run, [data / "case0.nii.gz"], out, skip_existing=True))
    assert kept[0].memory == "kept as it was"
    assert (out / "case0.nii.gz").stat().st_mtime_ns == before
    predict(request(run, [data / "case0.nii.gz"], out, overwrite=True))
    assert (out / "case0.nii.gz").stat().st_mtime_ns > before


def test_an_input_is_never_overwritten(trained):
    data, run, _ = trained
    with pytest.raises(UsageError, match="is an input"):
        predict(request(run, [data / "case0.nii.gz"], data, overwrite=True))


def test_output_that_is_a_file_is_refused(trained, tmp_path):
    data, run, _ = trained
    (tmp_path / "out").write_text("here")
    with pytest.raises(UsageError, match="is a file"):
        predict(request(run, [data / "case0.nii.gz"], tmp_path / "out"))


def test_missing_runs_and_inputs_are_data_errors(trained, tmp_path):
    data, run, _ = trained
    with pytest.raises(DataError, match="does not exist"):
        predict(request(tmp_path / "none", [data / "case0.nii.gz"], tmp_path / "out"))
    with pytest.raises(DataError, match="none"):
        predict(request(run, [tmp_path / "none"], tmp_path / "out"))


def test_uncertainty_lies_on_the_sources_grid_and_volumes_are_measured(trained, tmp_path):
    data, run, _ = trained
    out = tmp_path / "out"
    wanted = request(run, [data / "case1.nii.gz"], out, save_uncertainty=True, tta=True)
    (outcome,) = predict(wanted)
    source = nib.load(data / "case1.nii.gz")
    mask = np.asarray(nib.load(out / "case1.nii.gz").dataobj)
    maps = {}
    for name in ("entropy", "disagreement"):
        image = nib.load(out / f"case1_{name}.nii.gz")
        np.testing.assert_array_equal(image.affine, source.affine)
        maps[name] = np.asarray(image.dataobj)
        assert image.shape == source.shape
        assert 0 <= maps[name].min() <= maps[name].max() <= 1
    assert (maps["disagreement"] <= maps["entropy"] + 1e-5).all()
    # Borders are where a network is unsure.
    inner = mask == np.roll(mask, 1, 0)
    assert maps["entropy"][~inner].mean() > 3 * maps["entropy"][inner].mean()
    assert [v.label for v in outcome.volumes] == [2, 5]
    voxel = np.prod(source.header.get_zooms()) / 1000
    for volume in outcome.volumes:
        assert volume.ml == pytest.approx((mask == volume.label).sum() * voxel)
        assert volume.low_ml <= volume.high_ml
        assert volume.low_ml * 0.8 <= volume.ml <= volume.high_ml * 1.2


def test_one_member_has_no_disagreement(trained, tmp_path):
    data, run, _ = trained
    out = tmp_path / "out"
    (outcome,) = predict(request(run, [data / "case1.nii.gz"], out, save_uncertainty=True))
    assert (out / "case1_entropy.nii.gz").is_file()
    assert not (out / "case1_disagreement.nii.gz").exists()
    assert {(v.low_ml, v.high_ml) for v in outcome.volumes} == {(None, None)}


def test_parts_share_the_cases_and_the_folder(trained, tmp_path, make_subjects):
    _, run, _ = trained
    data, masks = make_subjects(tmp_path / "new", 3, seed=50), tmp_path / "masks"
    shares = []
    for number in range(4):
        outcomes = predict(request(run, [data], masks, part=Part(number, 4)))
        shares.append([outcome.case_id for outcome in outcomes])
    assert shares == [["case0"], ["case1"], ["case2"], []]
    assert sorted(path.name for path in masks.glob("*.nii.gz")) == [
        "case0.nii.gz", "case1.nii.gz", "case2.nii.gz",
    ]  # fmt: skip
    assert sorted(path.name for path in masks.glob("*.json")) == [
        f"predict-{number}-of-4.json" for number in range(4)
    ]
    predict(request(run, [data], tmp_path / "whole"))
    for path in masks.glob("*.nii.gz"):
        np.testing.assert_array_equal(
            nib.load(path).get_fdata(), nib.load(tmp_path / "whole" / path.name).get_fdata()
        )
    with pytest.raises(UsageError, match="--part-id must be 0 to --num-parts - 1, got 4 of 4"):
        Part(4, 4)
