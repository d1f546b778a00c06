"""Post-processing: taken where it helps, not by luck, never on cases that it is scored on."""

import json
import math

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.cleaning import clean_label
from voxseg.data.splits import kfold, write_split
from voxseg.engine import postprocess as engine
from voxseg.engine.config import LabelConfig
from voxseg.engine.operations import find_postprocessing, read_postprocessing, wanted_postprocessing
from voxseg.engine.postprocess import OutOfFold, choose, judge, postprocess
from voxseg.engine.postprocess_files import (
    drop_stale,
    postprocess_crossval,
    report_section,
    sentences,
    to_json,
)
from voxseg.errors import DataError, UsageError

LABELS = LabelConfig(values=(0, 2, 5), names=("background", "shell", "core"))
AFFINE = np.diag([-1.0, 1.5, 2.0, 1.0])


def truth_of(number):
    """A shell (2), and a core (5) of two pieces."""
    label = np.zeros((14, 10, 9), np.int16)
    label[2:9, 1:8, 1:8] = 2
    label[3:5, 3:5, 2:6] = 5
    label[6:8, 3 : 5 + number % 2, 3:6] = 5
    return label


def spoiled(label, number):
    """Add a stray piece of shell everywhere, and a hole in the shell in most cases."""
    label = label.copy()
    label[11:13, 4 : 6 + number % 3, 4:7] = 2
    if number % 4:
        label[2 + 3 * (number % 2) : 6, 2, 2 : 3 + number % 3][1:] = 0
        label[5, 2, 2] = 0
    return label


def save(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, AFFINE), path)
    return path


@pytest.fixture
def run(tmp_path):
    """Build a cross-validation's folder; returns folds and truths."""

    def build(count=8, folds=4, spoil=spoiled):
        names = [f"case{n}" for n in range(count)]
        truths = {}
        for number, name in enumerate(names):
            truth = truth_of(number)
            truths[name] = save(tmp_path / "data" / f"{name}_seg.nii.gz", truth)
            save(tmp_path / "cv" / "predictions" / f"{name}.nii.gz", spoil(truth, number))
        parts = kfold(names, folds, seed=0)
        write_split(tmp_path / "cv" / "split.json", parts)
        return parts, truths

    return build


def cases_of(folder, truths):
    predictions = {case: folder / "cv" / "predictions" / f"{case}.nii.gz" for case in truths}
    return OutOfFold(predictions, truths, LABELS)


def test_what_helps_is_taken_and_what_hurts_is_not(run, tmp_path):
    _, truths = run()
    choice = choose(cases_of(tmp_path, truths), sorted(truths))
    assert choice.operations == {2: ("largest_component", "fill_holes")}
    pieces, holes = choice.trials[2]
    assert (pieces.num_higher, pieces.num_lower, pieces.num_cases) == (8, 0, 8)
    assert pieces.p == 1 / 2**8
    assert holes.dice_before == pytest.approx(pieces.dice_after)  # greedy: holes come after
    assert holes.dice_after == pytest.approx(1.0)
    assert choice.trials[5][0].gain < -0.1
    assert "does not rise" in choice.trials[5][0].reason
    assert choice.trials[5][1].reason == "no case changes"


def test_nested_scores_never_use_a_fold_for_its_own_choice(run, tmp_path, monkeypatch):
    parts, truths = run(count=12)
    asked = []
    real = engine.choose

    def watched(cases, case_ids):
        asked.append(set(case_ids))
        return real(cases, case_ids)

    monkeypatch.setattr(engine, "choose", watched)
    result = postprocess(cases_of(tmp_path, truths), parts, LABELS, 1.0)
    assert asked[0] == set(truths)
    assert asked[1:] == [set(truths) - set(part.val) for part in parts]
    plain, nested = result.nested_means
    assert nested == pytest.approx(1.0)
    assert plain < 0.99
    case = parts[0].val[0]
    assert result.scores[case][2].dice == pytest.approx(1.0)
    assert result.scores[case][2].hd95_mm == 0


def test_few_cases_choose_nothing_and_say_so(run, tmp_path):
    parts, truths = run(count=5, folds=5)
    result = postprocess(cases_of(tmp_path, truths), parts, LABELS, 1.0)
    assert result.choice.operations == {}
    assert result.nested_means[0] == result.nested_means[1]
    said = sentences(to_json(result))
    assert "nothing is chosen; 5 cases are too few to choose by, 6 are needed" in said[0]


def test_a_choice_that_does_not_carry_over_is_withdrawn(run, tmp_path, monkeypatch):
    """Every choice says that the core needs its largest component alone, which hurts it."""
    parts, truths = run()
    taken = judge("largest_component", [(0.1, 0.2)] * 8)
    monkeypatch.setattr(engine, "choose", lambda *_: engine.Choice({2: (), 5: (taken,)}))
    result = postprocess(cases_of(tmp_path, truths), parts, LABELS, 1.0)
    assert result.choice.withdrawn == (5,)
    assert result.choice.operations == {}
    assert any("core was withdrawn" in line for line in sentences(to_json(result)))


@pytest.mark.parametrize(
    ("changes", "chosen", "words"),
    [
        ([(0.5, 0.6)] * 6, True, "rises by 0.1000 (p = 0.0156"),
        ([(0.5, 0.6)] * 5, False, "5 cases are too few"),
        ([(0.5, 0.5)] * 9, False, "no case changes"),
        ([(0.5, 0.6)] * 4 + [(0.5, 0.5)] * 6, False, "may be chance (p = 0.062"),
        ([(0.5, 0.6)] * 6 + [(0.9, 0.1)], False, "does not rise (-0.0286"),
        ([(0.5, 0.9)] + [(0.5, 0.49)] * 7, False, "may be chance"),
        ([(0.5, 0.6)] * 6 + [(math.nan, math.nan)] * 3, True, "rises by 0.1000"),
        ([(math.nan, math.nan)] * 9, False, "0 cases are too few"),
    ],
)
def test_the_rule(changes, chosen, words):
    trial = judge("fill_holes", changes)
    assert trial.chosen is chosen
    assert words in trial.reason


def test_files_say_what_was_chosen_and_predict_reads_it(run, tmp_path):
    parts, truths = run()
    folder, said = tmp_path / "cv", []
    postprocess_crossval(folder, parts, truths, LABELS, 1.0, said.append)
    assert said[0] == "post-processing: shell: keep the largest component, fill holes"
    assert "4 of 4 folds were given any" in said[1]
    document = json.loads((folder / "postprocessing.json").read_text())
    assert document["schema"] == "voxseg.postprocessing/1"
    assert document["nested"]["dice"] > document["nested"]["dice_networks_alone"]
    rows = (folder / "metrics-postprocessed.csv").read_text().splitlines()
    assert rows[0].startswith("case,class,label,dice")
    assert len(rows) == 1 + 8 * 3
    found = find_postprocessing(folder, True, LABELS)
    label = spoiled(truth_of(3), 3)
    np.testing.assert_array_equal(
        found.apply(label), clean_label(label, {2: ["largest_component", "fill_holes"]})
    )
    section = report_section(folder / "postprocessing.json")
    assert section.paragraphs == tuple(said)
    assert [row[6] for row in section.tables[0].rows] == ["yes", "yes", "no", "no"]
    drop_stale(folder)
    assert find_postprocessing(folder, True, LABELS) is None
    assert not (folder / "metrics-postprocessed.csv").exists()


def test_a_choice_is_not_used_where_it_does_not_belong(run, tmp_path):
    parts, truths = run()
    folder = tmp_path / "cv"
    postprocess_crossval(folder, parts, truths, LABELS, 1.0, lambda _: None)
    path = folder / "postprocessing.json"
    assert find_postprocessing(folder, False, LABELS) is None
    assert find_postprocessing(tmp_path / "other", path, LABELS)
    with pytest.raises(UsageError, match=r"chosen for the classes \[0, 2, 5\]"):
        find_postprocessing(folder, path, LabelConfig(values=(0, 1), names=("a", "b")))
    write_split(folder / "split.json", kfold(list(truths), 4, seed=5))
    with pytest.raises(DataError, match="another split"):
        find_postprocessing(folder, True, LABELS)


def test_several_seeds_do_what_all_of_them_chose(run, tmp_path):
    parts, truths = run()
    postprocess_crossval(tmp_path / "cv", parts, truths, LABELS, 1.0, lambda _: None)
    document = json.loads((tmp_path / "cv" / "postprocessing.json").read_text())
    folder = tmp_path / "seeds"
    for seed, operations in enumerate((["largest_component", "fill_holes"], ["fill_holes"])):
        write_split(folder / f"seed-{seed}" / "split.json", parts)
        assert find_postprocessing(folder, True, LABELS) is None
        document["classes"][1]["operations"] = operations
        (folder / f"seed-{seed}" / "postprocessing.json").write_text(json.dumps(document))
    assert find_postprocessing(folder, True, LABELS).operations == {2: ("fill_holes",)}
    document["classes"][1]["operations"] = []
    (folder / "seed-1" / "postprocessing.json").write_text(json.dumps(document))
    assert find_postprocessing(folder, True, LABELS) is None


def test_two_options_are_one_answer(tmp_path):
    assert wanted_postprocessing(None, False) is True
    assert wanted_postprocessing(None, True) is False
    assert wanted_postprocessing(tmp_path, False) == tmp_path
    with pytest.raises(UsageError, match="exclude each other"):
        wanted_postprocessing(tmp_path, True)


DAMAGES = (
    lambda d: d.update(schema="voxseg.postprocessing/0"),
    lambda d: d.pop("classes"),
    lambda d: d["classes"][1].update(operations=["shrink"]),
    lambda d: d["classes"][0].update(operations=["fill_holes"]),
    lambda d: d["classes"][1].update(operations=3),
    lambda d: d["classes"][1].update(label="x"),
    lambda d: d["classes"].clear(),
    lambda d: d.pop("split_hash"),
)


def test_damaged_files_are_data_errors(run, tmp_path):
    parts, truths = run()
    path = tmp_path / "cv" / "postprocessing.json"
    postprocess_crossval(path.parent, parts, truths, LABELS, 1.0, lambda _: None)
    whole = path.read_text()
    for change in DAMAGES:
        document = json.loads(whole)
        change(document)
        path.write_text(json.dumps(document))
        with pytest.raises(DataError, match="is no list of operations"):
            read_postprocessing(path)
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match="is no list of operations"):
        read_postprocessing(path)
    path.write_text("{")
    with pytest.raises(DataError, match=str(path)):
        read_postprocessing(path)


def test_missing_files_are_data_errors(run, tmp_path):
    parts, truths = run()
    with pytest.raises(DataError, match="--postprocess writes one"):
        read_postprocessing(tmp_path / "none.json")
    path = tmp_path / "cv" / "postprocessing.json"
    postprocess_crossval(path.parent, parts, truths, LABELS, 1.0, lambda _: None)
    document = json.loads(path.read_text())
    del document["classes"][1]["trials"][0]["reason"]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="what was tried"):
        report_section(path)
    (path.parent / "predictions" / "case3.nii.gz").unlink()
    with pytest.raises(DataError, match=r"no prediction .*case3\.nii\.gz; delete the scores"):
        postprocess(cases_of(tmp_path, truths), parts, LABELS, 1.0)


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "postprocessing.json"
    path.write_text(json.dumps({"schema": "voxseg.postprocessing/2", "classes": []}))
    with pytest.raises(DataError, match=r"postprocessing\.json was written by a newer voxseg"):
        read_postprocessing(path)
