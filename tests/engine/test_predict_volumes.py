"""Volumes that ``predict`` measures and writes, and tissue maps, by a network set by hand."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxseg.data.layouts import Case
from voxseg.data.splits import read_split, split_hash
from voxseg.documents import json_text
from voxseg.engine.case_memory import Output
from voxseg.engine.evaluate import evaluate
from voxseg.engine.outcomes import DISCLAIMER
from voxseg.engine.predict import Part, PredictRequest, predict
from voxseg.engine.predictor import Predictor
from voxseg.errors import DataError, UsageError
from voxseg.files import write_text

TABLE = """
name = "two sides"
note = "Letters, not organs."
[[labels]]
value = 1
name = "head"
colour = "#010101"
tissue = "white_matter"
intracranial = true
[[labels]]
value = 2
name = "left letter"
colour = "#020202"
structure = "letter"
side = "left"
tissue = "csf"
[[labels]]
value = 5
name = "right letter"
colour = "#050505"
structure = "letter"
side = "right"
tissue = "csf"
[[labels]]
value = 9
name = "third letter"
colour = "#090909"
intracranial = true
"""
CV_MANIFEST = {"kind": "crossval", "finished": True}


@pytest.fixture(scope="module")
def head(tmp_path_factory, phantom):
    """An image in two orientations, the run, and the true volumes in ml by class."""
    root = tmp_path_factory.mktemp("head")
    written = phantom.write_images(root / "all")
    (root / "images").mkdir()
    for name in ("RAS", "PIL"):
        written[name][0].rename(root / "images" / f"{name}.nii.gz")
    run = phantom.write_network(root / "run")
    ml = {value: place.mm3 / 1000 for value, place in written["RAS"][1].items()}
    return root / "images", run, ml


@pytest.fixture
def table(tmp_path):
    """A label table with sides, tissues and what lies in the skull."""
    write_text(tmp_path / "table.toml", TABLE)
    return tmp_path / "table.toml"


def request(checkpoint, inputs, output, **changes):
    return PredictRequest(
        checkpoint=checkpoint, inputs=(inputs,), output=output, device="cpu", **changes
    )


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["case"], row["name"]): row for row in csv.DictReader(file)}


def write_crossval(network, folder, factors, manifest=CV_MANIFEST, name="metrics.csv"):
    """A cross-validation of one network, whose true volumes were so many times the predicted."""
    shutil.copytree(network, folder / "fold-0", dirs_exist_ok=True)
    lines = ["case,class,label,dice,prediction_ml,truth_ml"]
    lines += [
        f"case{n},x,{value},0.9,{ml},{factor * ml}"
        for n, factor in enumerate(factors)
        for value, ml in ((0, 50.0), (1, 10.0 + n), (2, 1.0), (5, 1.0), (9, 0.5))
    ]
    write_text(folder / name, "\n".join([*lines, ""]))
    write_text(folder / "manifest.json", json_text(manifest))
    return folder


def test_every_figure_has_a_row(head, table, tmp_path):
    images, run, ml = head
    outcomes = predict(request(run, images, tmp_path / "out", label_table=table))
    rows = rows_of(tmp_path / "out/volumes.csv")
    inside = ml[1] + ml[9]
    expected = {
        "head": (ml[1], "ml", "class", "", "1"),
        "left letter": (ml[2], "ml", "class", "left", "2"),
        "right letter": (ml[5], "ml", "class", "right", "5"),
        "third letter": (ml[9], "ml", "class", "", "9"),
        "letter": (ml[2] + ml[5], "ml", "structure", "", "2 5"),
        "letter, left minus right": (ml[2] - ml[5], "ml", "difference", "", "2"),
        "letter, asymmetry": (200 * (ml[2] - ml[5]) / (ml[2] + ml[5]), "%", "asymmetry", "", "2"),
        "intracranial estimate (labelled tissue)": (
            inside, "ml", "intracranial", "", "1 9",
        ),
        "head, share of intracranial": (100 * ml[1] / inside, "%", "fraction", "", "1"),
        "third letter, share of intracranial": (100 * ml[9] / inside, "%", "fraction", "", "9"),
    }  # fmt: skip
    assert list(rows) == [(case, name) for case in ("PIL", "RAS") for name in expected]
    for (_, name), row in rows.items():
        value, *texts = expected[name]
        assert float(row["value"]) == pytest.approx(value)
        assert [row[key] for key in ("unit", "kind", "side", "labels")] == texts
        assert row["note"] == f"{DISCLAIMER} Letters, not organs."
        assert {row[key] for key in ("interval", "low", "level", "members", "soft_ml")} == {""}
    content = json.loads((tmp_path / "out/predict.json").read_text())
    assert content["disclaimer"] == DISCLAIMER
    assert content["cases"][0]["volume_note"] == "Letters, not organs."
    assert [m.value for m in outcomes[0].measures] == [
        pytest.approx(expected[m.name][0]) for m in outcomes[0].measures
    ]


def test_held_out_cases_bound_a_new_one(head, tmp_path, validate):
    images, run, ml = head
    factors = [0.8, 1.0, 1.25, 1.0, 1.0, 1.0, 1.1, 1.1, 1.1]
    cv = write_crossval(run, tmp_path / "cv", factors)
    predict(request(cv, images / "RAS.nii.gz", tmp_path / "out"))
    row = rows_of(tmp_path / "out/volumes.csv")["RAS", "head"]
    assert (row["interval"], row["held_out_cases"]) == ("conformal", "9")
    assert float(row["level"]) == pytest.approx(0.8)
    assert float(row["low"]) == pytest.approx(0.8 * ml[1])
    assert float(row["high"]) == pytest.approx(1.25 * ml[1])
    assert float(row["bias_percent"]) == pytest.approx(0)
    validate((tmp_path / "out/predict.json").read_text())


def test_masks_that_are_tidied_are_judged_by_masks_that_were(head, tmp_path):
    images, run, ml = head
    cv = write_crossval(run, tmp_path / "cv", [1.0] * 9)
    write_crossval(run, cv, [2.0] * 9, name="metrics-postprocessed.csv")
    split = {"folds": [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]}
    write_text(cv / "split.json", json.dumps(split))
    classes = [{"label": k, "name": "x", "operations": ["largest_component"] if k == 1 else []}
               for k in (0, 1, 2, 5, 9)]  # fmt: skip
    content = {"schema": "voxseg.postprocessing/1", "classes": classes,
               "split_hash": split_hash(read_split(cv / "split.json"))}  # fmt: skip
    write_text(cv / "postprocessing.json", json.dumps(content))

    def found(name, **changes):
        case = images / "RAS.nii.gz"
        predict(request(cv, case, tmp_path / name, **changes))
        return rows_of(tmp_path / name / "volumes.csv")["RAS", "letter L"]

    assert float(found("own")["low"]) == pytest.approx(2 * ml[2])
    assert float(found("none", postprocess=False)["low"]) == pytest.approx(ml[2])
    # Nobody has measured what another file does to held-out cases.
    assert found("other", postprocess=cv / "postprocessing.json")["interval"] == ""


@pytest.mark.parametrize(
    "manifest", [{"kind": "crossval"}, {"kind": "train", "finished": True}], ids=["begun", "other"]
)
def test_only_a_finished_cross_validation_is_asked(head, tmp_path, manifest):
    images, run, _ = head
    cv = write_crossval(run, tmp_path / "cv", [1.0] * 9, manifest)
    (outcome,) = predict(request(cv, images / "RAS.nii.gz", tmp_path / "out"))
    assert {v.uncertainty.interval for v in outcome.volumes} == {""}


def test_damaged_scores_are_an_error(head, tmp_path):
    images, run, _ = head
    cv = write_crossval(run, tmp_path / "cv", [1.0])
    write_text(cv / "metrics.csv", (cv / "metrics.csv").read_text().replace("50.0\n", "x\n"))
    with pytest.raises(DataError, match=r"line 2 of .*truth_ml"):
        predict(request(cv, images, tmp_path / "out"))


def test_tissues_go_out_under_the_names_of_fast(head, table, tmp_path):
    images, run, _ = head
    out = tmp_path / "out"
    outcomes = predict(request(run, images, out, label_table=table, save_tissues=True))
    names = sorted(path.name for path in out.glob("*_pve_*"))
    assert names == [f"{case}_pve_{n}.nii.gz" for case in ("PIL", "RAS") for n in (0, 2)]
    for outcome in outcomes:
        maps = {
            n: SimpleITK.ReadImage(str(out / f"{outcome.case_id}_pve_{n}.nii.gz")) for n in (0, 2)
        }
        mask = SimpleITK.ReadImage(outcome.output)
        soft = {v.label: v.soft_ml for v in outcome.volumes}
        assert soft[9] is None
        for n, classes in ((0, (2, 5)), (2, (1,))):
            values = SimpleITK.GetArrayFromImage(maps[n])
            assert values.dtype == np.float32
            assert maps[n].GetDirection() == mask.GetDirection()
            # The network is sure of every voxel: bands of intensity lie 40 apart.
            truth = np.isin(SimpleITK.GetArrayFromImage(mask), classes)
            np.testing.assert_allclose(values, truth, atol=1e-6)
            ml = values.sum(dtype=float) * np.prod(maps[n].GetSpacing()) / 1000
            assert sum(soft[k] for k in classes) == pytest.approx(ml)
    row = rows_of(out / "volumes.csv")["RAS", "left letter"]
    assert float(row["soft_ml"]) == pytest.approx(float(row["value"]))
    scored = evaluate(out, out)  # maps beside masks are no masks
    assert (sorted(scored.scores), scored.without_truth) == (["PIL", "RAS"], ())


def test_tissue_maps_are_estimated_like_probabilities(head, tmp_path):
    images, run, _ = head
    case = Case("RAS", (images / "RAS.nii.gz",), None)
    predictor = Predictor(run, "cpu")
    plain, tissues, shares = (
        predictor.estimate(case, Output(folder=tmp_path, **wish))
        for wish in ({}, {"save_tissues": True}, {"save_probabilities": True})
    )
    assert not plain.wanted.probabilities
    assert tissues.wanted == shares.wanted


def test_tissues_need_a_table_that_names_some(head, tmp_path, save_pictures):
    images, run, _ = head
    with pytest.raises(UsageError, match=r"--save-tissues .*brain-tissues, ibsr-tissues"):
        predict(request(run, images, tmp_path / "out", save_tissues=True))
    assert not (tmp_path / "out").exists()
    save_pictures(tmp_path / "photos", "one.png")
    with pytest.raises(UsageError, match=r"for volumes, and .*one\.png is a photograph"):
        predict(request(run, tmp_path / "photos", tmp_path / "out", save_tissues=True))


def test_masks_that_are_kept_are_measured_too(head, tmp_path):
    images, run, ml = head
    out = tmp_path / "out"
    predict(request(run, images, out))
    (out / "PIL.nii.gz").write_bytes(b"nothing")
    outcomes = predict(request(run, images, out, skip_existing=True))
    assert [(o.memory, bool(o.volumes)) for o in outcomes] == [
        ("kept as it was", False), ("kept as it was", True),
    ]  # fmt: skip
    rows = rows_of(out / "volumes.csv")
    assert {case for case, _ in rows} == {"RAS"}
    assert float(rows["RAS", "letter S"]["value"]) == pytest.approx(ml[9])
    (out / "RAS.nii.gz").write_bytes(b"nothing")
    predict(request(run, images, out, skip_existing=True))
    assert not (out / "volumes.csv").exists()  # what it said is no longer there


def test_parts_have_tables_of_their_own_and_one_file_has_none(head, tmp_path):
    images, run, _ = head
    predict(request(run, images, tmp_path / "out", part=Part(1, 2)))
    assert {case for case, _ in rows_of(tmp_path / "out/volumes-1-of-2.csv")} == {"RAS"}
    predict(request(run, images / "RAS.nii.gz", tmp_path / "one" / "mask.nii.gz"))
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["mask.nii.gz"]


def test_an_empty_mask_has_figures_of_nothing(head, table, tmp_path):
    _, run, _ = head
    blank = nib.Nifti1Image(np.full((9, 8, 7), 20, np.int16), np.diag([1, 1, 2, 1.0]))
    nib.save(blank, tmp_path / "blank.nii.gz")
    asked = request(
        run, tmp_path / "blank.nii.gz", tmp_path / "out", label_table=table, save_tissues=True
    )
    (outcome,) = predict(asked)
    assert outcome.error == ""
    rows = rows_of(tmp_path / "out/volumes.csv")
    values = {name: row["value"] for (_, name), row in rows.items()}
    assert values["letter"] == "0.0"
    assert values["letter, asymmetry"] == values["head, share of intracranial"] == ""
    assert float(rows["blank", "head"]["soft_ml"]) == pytest.approx(0)
