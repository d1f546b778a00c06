"""Dealing cases into folds: which way, and what a table of groups or strata may not say."""

import json
from types import SimpleNamespace

import pytest

from voxseg.data.splits import read_split
from voxseg.engine.dealing import Dealing, deal, write_dealt
from voxseg.errors import DataError, UsageError

CASES = tuple(f"c{n}" for n in range(6))
# 1, 2, ... 6 ml by case, in voxels of 2 mm^3.
REPORT = SimpleNamespace(
    cases=[
        SimpleNamespace(
            case_id=case, spacing=(1.0, 1.0, 2.0), label_voxels={0: 10_000, 1: 500 * (n + 1)}
        )
        for n, case in enumerate(CASES)
    ]
)


@pytest.fixture
def table(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        return path

    return write


def test_groups_stay_whole(table):
    path = table("case;patient\nc0;a\nc1;b\nc2;a\nc3;c\nc4;b\nc5;d\nother;z\n")
    parts = deal(Dealing(folds=2, groups=path), CASES, REPORT, seed=0)
    for part in parts:
        assert len({"c0", "c2"} & set(part.val)) in (0, 2)
        assert len({"c1", "c4"} & set(part.val)) in (0, 2)
        assert len(part.val) == 3
    assert sorted(parts[0].val + parts[1].val) == list(CASES)


def test_strata_are_shared_out(table):
    path = table("ID,Site\nc0,x\nc1,x\nc2,x\nc3,y\nc4,y\nc5,y\n")
    for part in deal(Dealing(folds=3, strata=str(path)), CASES, REPORT, seed=1):
        assert len({"c0", "c1", "c2"} & set(part.val)) == 1
        assert len({"c3", "c4", "c5"} & set(part.val)) == 1


def test_volumes_are_shared_out():
    for seed in range(5):
        parts = deal(Dealing(folds=2, strata="volume"), CASES, REPORT, seed)
        for small, large in (("c0", "c1"), ("c2", "c3"), ("c4", "c5")):
            assert all(len({small, large} & set(part.val)) == 1 for part in parts)


def test_leave_one_out_and_a_plain_shuffle():
    parts = deal(Dealing(leave_one_out=True), CASES, REPORT, seed=0)
    assert sorted(part.val for part in parts) == [(case,) for case in CASES]
    assert [len(part.val) for part in deal(Dealing(folds=4), CASES, REPORT, 0)] == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,age\nc0,3\n", "columns case,group"),
        ("", "columns case,group"),
        ("case,group\nc0,a\n", "says nothing of 5 of 6 cases, the first c1"),
        ("case,group\nc0,a\nc0,b\n", "says two things of the case c0"),
    ],
)
def test_a_table_that_does_not_say_enough(table, text, message):
    with pytest.raises(DataError, match=message):
        deal(Dealing(groups=table(text)), CASES, REPORT, seed=0)


def test_a_table_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.csv: No such file"):
        deal(Dealing(groups=tmp_path / "none.csv"), CASES, REPORT, seed=0)
    (tmp_path / "image.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="is not a text file in UTF-8"):
        deal(Dealing(groups=tmp_path / "image.csv"), CASES, REPORT, seed=0)


def test_what_cannot_be_dealt(table):
    one = table("case,group\n" + "".join(f"{case},a\n" for case in CASES))
    with pytest.raises(UsageError, match="all cases belong to one group"):
        deal(Dealing(folds=2, groups=one), CASES, REPORT, seed=0)
    two = table("case,group\n" + "".join(f"{case},{case > 'c2'}\n" for case in CASES))
    with pytest.raises(UsageError, match="3 folds of 2 groups are not possible"):
        deal(Dealing(folds=3, groups=two), CASES, REPORT, seed=0)
    with pytest.raises(UsageError, match="7 folds of 6 cases"):
        deal(Dealing(folds=7, strata="volume"), CASES, REPORT, seed=0)
    with pytest.raises(UsageError, match="--leave-one-out and --strata exclude each other"):
        Dealing(leave_one_out=True, strata="volume")


def test_a_fold_of_a_file_that_holds_out_nothing(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["c0"], "val": []}]))
    with pytest.raises(DataError, match=r"fold 0 of .* holds out no case"):
        deal(Dealing(split=path), CASES, REPORT, seed=0)
    path.write_text(json.dumps([{"train": ["c0"], "val": ["c9"]}]))
    with pytest.raises(DataError, match="c9, which is not among the 6 cases"):
        deal(Dealing(split=path), CASES, REPORT, seed=0)


def test_the_split_is_written_and_not_overwritten(subjects, tmp_path):
    path = tmp_path / "split.json"
    parts = write_dealt(subjects, None, path, Dealing(folds=2), 3, overwrite=False)
    assert read_split(path) == parts
    with pytest.raises(UsageError, match="--overwrite"):
        write_dealt(subjects, None, path, Dealing(folds=2), 3, overwrite=False)
    assert write_dealt(subjects, None, path, Dealing(leave_one_out=True), 3, overwrite=True)
    assert len(read_split(path)) == 4
