import json

import nibabel as nib
import pytest

from voxseg.data.splits import kfold, write_split
from voxseg.engine.config import merge
from voxseg.engine.crossval import crossval
from voxseg.engine.dealing import Dealing
from voxseg.engine.train import TrainRequest
from voxseg.errors import UsageError

CASES = tuple(f"case{n}" for n in range(4))


def request(subjects, run, settings, **changes):
    return TrainRequest(data=subjects, run=run, settings=settings, device="cpu", **changes)


def silent(_):
    pass


@pytest.fixture
def tiny(quick):
    return merge(quick, {"train": {"epochs": 2}, "model": {"design": "V0"}})


def test_every_case_is_scored_once_out_of_fold(subjects, tiny, tmp_path):
    run = tmp_path / "cv"
    evaluation = crossval(request(subjects, run, tiny), Dealing(folds=2), silent, silent).evaluation
    assert sorted(evaluation.scores) == list(CASES)
    split = json.loads((run / "split.json").read_text())
    for number, fold in enumerate(split["folds"]):
        scored = json.loads((run / f"fold-{number}" / "scores.json").read_text())["cases"]
        assert sorted(scored) == sorted(fold["val"])
        assert not set(fold["train"]) & set(fold["val"])
        inner = json.loads((run / f"fold-{number}" / "split.json").read_text())["folds"][0]
        assert sorted(inner["train"]) == sorted(fold["train"])
        assert inner["val"] == []
    for case in CASES:
        assert nib.load(run / "predictions" / f"{case}.nii.gz").shape == (22, 19, 17)
    assert json.loads((run / "manifest.json").read_text())["finished"] is True
    assert {"metrics.csv", "metrics.json", "summary.csv"} <= {p.name for p in run.iterdir()}


def test_finished_folds_are_never_repeated(subjects, tiny, tmp_path):
    run = tmp_path / "cv"
    steps = []

    def stop_in_the_second_fold(progress):
        steps.append(progress.step)
        if len(steps) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossval(request(subjects, run, tiny), Dealing(folds=2), stop_in_the_second_fold, silent)
    first = (run / "fold-0" / "checkpoints" / "best.pt").stat().st_mtime_ns
    again = []
    evaluation = crossval(
        request(subjects, run, tiny, resume=True),
        Dealing(folds=2),
        lambda p: again.append(p.step),
        silent,
    ).evaluation
    assert (run / "fold-0" / "checkpoints" / "best.pt").stat().st_mtime_ns == first
    assert again == [1, 2, 3, 4, 5, 6]  # killed before its first checkpoint, the fold starts anew
    assert sorted(evaluation.scores) == list(CASES)


def test_overwrite_trains_every_fold_anew(subjects, tiny, tmp_path):
    run = tmp_path / "cv"
    crossval(request(subjects, run, tiny), Dealing(folds=2), silent, silent)
    (run / "fold-0" / "scores.json").write_text("not scores of this run")
    steps = []
    crossval(
        request(subjects, run, tiny, overwrite=True),
        Dealing(folds=2),
        lambda p: steps.append(p.step),
        silent,
    )
    assert steps == [1, 2, 3, 4, 5, 6] * 2


def test_folds_start_from_the_same_folds_of_a_baseline(subjects, tiny, tmp_path):
    crossval(request(subjects, tmp_path / "base", tiny), Dealing(folds=2), silent, silent)
    fine = merge(tiny, {"model": {"design": "V3"}})
    said = []
    crossval(
        request(
            subjects,
            tmp_path / "fine",
            fine,
            split=tmp_path / "base" / "split.json",
            init_from=tmp_path / "base",
        ),
        Dealing(folds=2),
        silent,
        said.append,
    )
    starts = [line for line in said if line.startswith("started from")]
    assert ["fold-0" in starts[0], "fold-1" in starts[1]] == [True, True]


def test_a_baseline_with_another_split_is_refused(subjects, tiny, tmp_path):
    crossval(request(subjects, tmp_path / "base", tiny), Dealing(folds=2), silent, silent)
    write_split(tmp_path / "other.json", kfold(CASES, 2, seed=7))
    asked = request(
        subjects, tmp_path / "fine", tiny, split=tmp_path / "other.json",
        init_from=tmp_path / "base",
    )  # fmt: skip
    with pytest.raises(UsageError, match="split differently"):
        crossval(asked, Dealing(folds=2), silent, silent)


def test_more_folds_than_cases_is_refused(subjects, tiny, tmp_path):
    with pytest.raises(UsageError, match="5 folds of 4 cases"):
        crossval(request(subjects, tmp_path / "cv", tiny), Dealing(folds=5), silent, silent)
