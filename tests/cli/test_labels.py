"""``voxseg labels``."""

import pytest

import voxseg as package
from voxseg.export.label_files import read_label_table, table_names


def test_tables_that_ship_are_listed(voxseg):
    outcome = voxseg("labels")
    assert outcome.code == 0
    for name in table_names():
        assert name in outcome.out
    assert "anterior hippocampus" in outcome.out
    assert set(package.labels()) == set(table_names())


def test_a_table_is_shown_with_its_codes_and_note(voxseg):
    outcome = voxseg("labels", "msd-hippocampus")
    assert outcome.code == 0
    for words in ("#56b4e9", "posterior hippocampus", "Hippocampus [SCT 5366008] Posterior"):
        assert words in outcome.out
    assert read_label_table("msd-hippocampus").note in outcome.out


@pytest.mark.parametrize("name", ["mine.toml", "labels.csv"])
def test_a_written_table_reads_back(voxseg, tmp_path, name):
    out = tmp_path / "new" / name
    outcome = voxseg("labels", "msd-hippocampus", "-o", out)
    assert outcome.code == 0
    assert f"wrote {out}" in outcome.out
    again, source = read_label_table(out), read_label_table("msd-hippocampus")
    assert [(o.value, o.name, o.colour, o.codes) for o in again] == [
        (o.value, o.name, o.colour, o.codes) for o in source
    ]
    assert (tmp_path / "new" / "labels.ctbl").is_file() == (name == "labels.csv")
    outcome = voxseg("labels", "ibsr-tissues", "-o", out)
    assert outcome.code == 2
    assert outcome.err == f"{out} exists; use --overwrite, or another -o"
    assert voxseg("labels", "ibsr-tissues", "-o", out, "--overwrite").code == 0
    assert voxseg("labels", out).code == 0
    assert "white matter" in read_label_table(out).names.values()


def test_names_are_no_markup(voxseg, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("LabelValue,Name,Color_R,Color_G,Color_B\n7,[red]a[/b],1,2,3\n")
    outcome = voxseg("labels", path)
    assert outcome.code == 0
    assert "[red]a[/b]" in outcome.out
    assert "no codes" in outcome.out


def test_a_broken_table_is_one_sentence(voxseg, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("LabelValue,Name,Color_R,Color_G,Color_B\n7,a,1,2,333\n")
    outcome = voxseg("labels", path)
    assert outcome.code == 3
    assert "mine.csv, line 2: " in outcome.err
    assert voxseg("labels", "hippocampus").code == 2


def test_outputs_that_cannot_be(voxseg, tmp_path):
    outcome = voxseg("labels", "-o", tmp_path / "a.toml")
    assert outcome.code == 2
    assert "name the table to write" in outcome.err
    outcome = voxseg("labels", "ibsr-tissues", "-o", tmp_path / "a.txt")
    assert outcome.code == 2
    assert "-o names a .toml file, or labels.csv" in outcome.err
