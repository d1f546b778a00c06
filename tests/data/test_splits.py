"""Splits: every case out of fold once, the same for the same seed, safe on disk."""

import json
from pathlib import Path

import pytest

from voxseg.data.splits import (
    Fold,
    check_split,
    grouped_kfold,
    holdout,
    kfold,
    read_split,
    split_hash,
    strata_by_volume,
    stratified_kfold,
    write_split,
)
from voxseg.errors import DataError, UsageError, VoxsegError

CASES = [f"case_{number:02d}" for number in range(11)]


@pytest.mark.parametrize("folds", [2, 3, 11])
def test_kfold_validates_every_case_once(folds):
    parts = kfold(CASES, folds, seed=4)
    assert len(parts) == folds
    assert sorted(case for part in parts for case in part.val) == CASES
    sizes = [len(part.val) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        assert sorted((*part.train, *part.val)) == CASES


def test_kfold_depends_on_seed_and_not_on_order():
    assert kfold(CASES, 3, seed=0) == kfold(CASES[::-1], 3, seed=0)
    assert kfold(CASES, 3, seed=0) != kfold(CASES, 3, seed=1)


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_stratified_folds_differ_by_one_at_most_in_size_and_in_every_stratum(folds, seed):
    strata = {case: "aab"[number % 3] for number, case in enumerate(CASES)}
    parts = stratified_kfold(strata, folds, seed)
    assert sorted(case for part in parts for case in part.val) == CASES
    for chosen in ("ab", "a", "b"):
        sizes = [sum(strata[case] in chosen for case in part.val) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert parts == stratified_kfold(dict(reversed(strata.items())), folds, seed)


@pytest.mark.parametrize("seed", range(4))
def test_grouped_folds_keep_groups_whole_and_about_even(seed):
    groups = {case: str(number // 3) for number, case in enumerate(CASES)}
    parts = grouped_kfold(groups, 3, seed)
    assert sorted(case for part in parts for case in part.val) == CASES
    where = {groups[case]: index for index, part in enumerate(parts) for case in part.val}
    assert all(where[groups[c]] == i for i, part in enumerate(parts) for c in part.val)
    assert sorted(len(part.val) for part in parts) == [3, 3, 5]


def test_strata_by_volume_are_ranks():
    volumes = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 9.0, "e": 5.0}
    strata = strata_by_volume(volumes, 2)
    assert strata == {"b": "0", "c": "0", "a": "1", "e": "1", "d": "2"}


def test_kfold_golden():
    # Fixed by this project: a changed shuffle would mix training and validation of old runs.
    assert [fold.val for fold in kfold(list("abcde"), 2, seed=0)] == [("b", "c", "d"), ("a", "e")]


def test_kfold_rejects_more_folds_than_cases():
    with pytest.raises(UsageError, match="12 folds of 11 cases are not possible; choose from 2 to"):
        kfold(CASES, 12, seed=0)
    with pytest.raises(UsageError, match="1 folds"):
        kfold(CASES, 1, seed=0)
    with pytest.raises(UsageError, match="give at least two"):
        kfold(CASES[:1], 2, seed=0)
    with pytest.raises(ValueError, match="unique"):
        kfold(["a", "a"], 2, seed=0)


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 2), (0.01, 1), (0.99, 10), (0.5, 6)])
def test_holdout_sets_a_fraction_apart(fraction, count):
    fold = holdout(CASES, fraction, seed=0)
    assert len(fold.val) == count
    assert sorted((*fold.train, *fold.val)) == CASES
    assert holdout(CASES[::-1], fraction, seed=0) == fold
    assert holdout(CASES, 0.5, seed=1) != holdout(CASES, 0.5, seed=2)


def test_holdout_rejects_impossible_fractions():
    for fraction in (0, 1, -0.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            holdout(CASES, fraction, seed=0)
    with pytest.raises(DataError, match="give at least two"):
        holdout(CASES[:1], 0.2, seed=0)


def test_write_and_read_return_the_folds(tmp_path):
    folds = kfold(CASES, 3, seed=0)
    path = tmp_path / "new" / "split.json"
    write_split(path, folds)
    assert read_split(path) == folds
    assert json.loads(path.read_text())["hash"] == split_hash(folds)
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]


def test_split_hash_ignores_order_within_a_fold_only():
    one, two = Fold(("a", "b"), ("c",)), Fold(("c",), ("a", "b"))
    assert split_hash([one]) == split_hash([Fold(("b", "a"), ("c",))])
    assert split_hash([one, two]) != split_hash([two, one])


def test_read_split_takes_nnunet_lists_and_notices_changes(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert read_split(path) == (Fold(("a",), ("b",)),)
    write_split(path, [Fold(("a", "b"), ("c",))])
    path.write_text(path.read_text().replace('"b"', '"d"'))
    with pytest.raises(DataError, match="were changed"):
        read_split(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("{}", "holds no folds"),
        ("[]", "holds no folds"),
        ('[{"train": ["a"]}]', 'needs the lists "train" and "val"'),
        ('[{"train": [], "val": ["a"]}]', 'empty "train"'),
        ('[{"train": ["a"], "val": [1]}]', "case ids"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "trains on b and validates it too"),
    ],
)
def test_read_split_rejects_what_is_no_split(content, words, tmp_path):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        read_split(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        read_split(tmp_path / "none.json")


def test_check_split_names_unknown_and_repeated_cases(tmp_path):
    path = tmp_path / "split.json"
    check_split(kfold(CASES, 3, seed=0), CASES, path)
    with pytest.raises(DataError, match=r"case_1, which is not among .* did you mean case_"):
        check_split([Fold(("case_02",), ("case_1",))], CASES, path)
    with pytest.raises(DataError, match="validates the case case_02 in 2 folds"):
        check_split(
            [Fold(("case_01",), ("case_02",)), Fold(("case_03",), ("case_02",))], CASES, path
        )


def test_write_split_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "split.json"
    write_split(path, kfold(CASES, 3, seed=0))
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(VoxsegError, match="No space left on device"):
        write_split(path, kfold(CASES, 4, seed=0))
    assert path.read_text() == before
    with pytest.raises(VoxsegError, match="cannot write"):
        write_split(path / "below" / "a.json", kfold(CASES, 4, seed=0))


def test_a_split_says_its_form_and_is_read_without(tmp_path, validate):
    path, folds = tmp_path / "split.json", kfold(CASES, 3, 0)
    write_split(path, folds)
    content = validate(path.read_text())
    assert content["schema"] == "voxseg.split/1"
    path.write_text(json.dumps({"folds": content["folds"], "hash": content["hash"]}))
    assert read_split(path) == folds


def test_a_split_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"schema": "voxseg.split/2", "parts": []}))
    with pytest.raises(DataError, match=r"split\.json was written by a newer voxseg .* update"):
        read_split(path)
