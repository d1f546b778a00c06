"""``voxseg compare``: what a user sees, and one sentence for everything that can be wrong."""

import json

import pytest

HEADER = "case,class,label,dice,hd95_mm"


def write(folder, gain=0.0, cases=8, name="metrics.csv"):
    """Write a table of two classes by hand."""
    lines = [HEADER]
    for number in range(cases):
        for label, tissue in ((0, "background"), (1, "grey"), (2, "[white]")):
            dice = 0.6 + 0.02 * number + gain * (1 + 0.1 * number)
            lines.append(f"case{number},{tissue},{label},{dice},{4 - dice}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    return write(tmp_path / "base"), write(tmp_path / "pooled", 0.03)


def test_tables_notes_and_files(voxseg, runs, tmp_path):
    outcome = voxseg("compare", *runs, "-o", tmp_path / "out")
    assert outcome.code == 0
    for word in (
        "Dice from base to pooled; higher is better", "foreground mean", "[white]", "95% interval",
        "better", "0.0078", "0.0234", "8 / 0 / 0", "Inconclusive does not mean equal", "exact",
        "compare.png",
    ):  # fmt: skip
        assert word in outcome.out
    assert (tmp_path / "out/compare.csv").is_file()
    assert (tmp_path / "out/compare.png").stat().st_size > 1000


def test_json_is_all_of_stdout(voxseg, runs):
    few = [write(run, 0.03 * number, cases=3) for number, run in enumerate(runs)]
    outcome = voxseg("compare", *few, "--json", "--metric", "hd95_mm", "--alpha", "0.1")
    assert outcome.json["better"] == "lower"
    assert outcome.json["rows"][0]["verdict"] == "too few cases"
    assert outcome.json["warnings"][0] in outcome.err
    assert json.loads(json.dumps(outcome.json, allow_nan=False)) == outcome.json


def test_all_pairs(voxseg, runs, tmp_path):
    third = write(tmp_path / "third", 0.01)
    pairs = {(row["a"], row["b"]) for row in voxseg("compare", *runs, third, "--json").json["rows"]}
    assert pairs == {("base", "pooled"), ("base", "third")}
    every = voxseg("compare", *runs, third, "--json", "--all-pairs").json["rows"]
    assert {(row["a"], row["b"]) for row in every} == pairs | {("pooled", "third")}


def test_existing_files_are_kept(voxseg, runs, tmp_path):
    out = tmp_path / "out"
    assert voxseg("compare", *runs, "-o", out).code == 0
    before = (out / "compare.json").read_bytes()
    outcome = voxseg("compare", *runs, "-o", out, "--seed", "1")
    assert (outcome.code, (out / "compare.json").read_bytes()) == (2, before)
    assert "--overwrite" in outcome.err
    assert voxseg("compare", *runs, "-o", out, "--seed", "1", "--overwrite").code == 0
    assert (out / "compare.json").read_bytes() != before


def test_missing_cases(voxseg, runs, tmp_path):
    part = write(tmp_path / "part", 0.03, cases=7)
    outcome = voxseg("compare", *runs, part)
    assert outcome.code == 3
    assert "part/metrics.csv has no scores of 1 case (case7)" in outcome.err
    outcome = voxseg("compare", *runs, part, "--allow-missing")
    assert outcome.code == 0
    assert "7 compared" in outcome.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Missing argument"),
        (("base",), "two runs or more"),
        (("base", "base"), "named twice"),
        (("base", "base/../base"), "named twice"),
        (("base", "pooled", "--metric", "dise"), "--metric can be dice, hd95_mm"),
        (("base", "pooled", "--alpha", "0"), "--alpha must be above 0"),
        (("base", "pooled", "--alpha", "nan"), "--alpha must be above 0"),
        (("base", "pooled", "--resamples", "3"), "resamples"),
        (("base", "pooled", "-o", "base/metrics.csv"), "is a file"),
    ],
)
def test_wrong_usage_is_2(voxseg, runs, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    outcome = voxseg("compare", *words)
    assert outcome.code == 2
    assert sentence in outcome.err


ROW = "case0,grey,1,0.5,1"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("metrics.csv", "epoch,step,loss\n1,50,1.4\n", "holds no scores of cases"),
        ("metrics.csv", "", "holds no scores of cases"),
        ("metrics.csv", f"{HEADER}\n{ROW}\n{ROW}\n", "scores the case case0 twice"),
        ("metrics.csv", f"{HEADER}\n{ROW}\ncase1,grey,1,0.5\n", "line 3 of"),
        ("metrics.csv", f"{HEADER}\n{ROW},7\n", "as many fields as the header"),
        ("metrics.csv", f"{HEADER}\ncase0,grey,1,good,1\n", "the dice 'good'"),
        ("metrics.csv", f"{HEADER}\ncase0,grey,1,0.5,inf\n", "the hd95_mm 'inf'"),
        ("metrics.csv", f"{HEADER}\ncase0,grey,one,0.5,1\n", "no whole number"),
        ("metrics.csv", f"{HEADER}\n{ROW}\ncase1,white,2,0.5,1\n", "no row of class 2"),
        ("metrics.csv", f"{HEADER}\ncase0,background,0,0.5,1\n", "no foreground class"),
        ("metrics.csv", b"\xff\xfe\x00", "cannot be read"),
        ("metrics.json", "{", "not valid JSON"),
        ("metrics.json", '{"steps": 931}', 'no list "cases"'),
        ("metrics.json", '{"cases": [{"case": "a", "label": 1}, {"label": 1}]}', 'no "case"'),
        ("fold-0/scores.json", "{}", "has not finished"),
        ("notes.txt", "", "holds no metrics.csv"),
    ],
)
def test_damaged_runs_are_3(voxseg, runs, tmp_path, name, content, sentence):
    path = tmp_path / "damaged" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = voxseg("compare", runs[0], tmp_path / "damaged")
    assert outcome.code == 3
    assert sentence in outcome.err
    assert "damaged" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_no_such_run_and_no_table_are_3(voxseg, runs, tmp_path):
    outcome = voxseg("compare", runs[0], tmp_path / "nothing")
    assert (outcome.code, "there is no file or folder" in outcome.err) == (3, True)
    (tmp_path / "picture.png").write_bytes(b"")
    outcome = voxseg("compare", runs[0], tmp_path / "picture.png")
    assert (outcome.code, "is no table of scores" in outcome.err) == (3, True)


def test_a_damaged_split_is_3(voxseg, runs):
    (runs[1] / "split.json").write_text('{"folds": []}')
    outcome = voxseg("compare", *runs)
    assert (outcome.code, "split.json" in outcome.err) == (3, True)


def test_metrics_json_of_earlier_versions_is_compared_and_of_newer_ones_refused(voxseg, runs):
    rows = [
        {"case": f"case{number}", "class": "grey", "label": 1, "dice": 0.5 + 0.01 * number}
        for number in range(8)
    ]
    alone = [run.parent / f"{run.name}.json" for run in runs]
    for path in alone:
        path.write_text(json.dumps({"cases": rows}))
    assert voxseg("compare", *alone).code == 0
    alone[1].write_text(json.dumps({"schema": "voxseg.metrics/2", "cases": rows}))
    refused = voxseg("compare", *alone)
    assert (refused.code, "was written by a newer voxseg" in refused.err) == (3, True)
    # Beside a metrics.csv it is read for the tolerance alone, but means the same.
    (runs[1] / "metrics.json").write_text(json.dumps({"schema": "voxseg.metrics/2"}))
    refused = voxseg("compare", *runs)
    assert (refused.code, "was written by a newer voxseg" in refused.err) == (3, True)
