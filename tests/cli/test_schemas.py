"""``voxseg schemas``: the list, the fields of one, and names that do not exist."""

import pytest

from voxseg.schemas import read_schema, schema_names


def test_the_list_names_every_form_and_what_writes_it(voxseg, validate):
    shown = voxseg("schemas").out
    rows = validate(voxseg("schemas", "--json").out)["schemas"]
    assert [row["name"] for row in rows] == schema_names()
    for row in rows:
        assert row["id"] in shown
        assert row["id"] == read_schema(row["name"])["$id"]
    assert "split.json" in next(row["written_by"] for row in rows if row["name"] == "split")


@pytest.mark.parametrize("name", ["split", "voxseg.split", "voxseg.split/1"])
def test_one_form_is_printed_as_json_schema(voxseg, name):
    assert voxseg("schemas", name, "--json").json == read_schema("split")


def test_the_fields_of_a_form_are_a_table(voxseg):
    lines = voxseg("schemas", "check").out.splitlines()

    def line(field):
        return next(one for one in lines if one.startswith(f"│ {field} "))

    assert "yes" in line("pairs[].images[].spacing_mm")
    assert "Voxel size in mm" in line("pairs[].images[].spacing_mm")
    assert "array or null" in line("pairs[].label.scaling")
    assert line("fix.cases[].outcome")
    seeds = voxseg("schemas", "seeds").out
    assert "rows[].seed_[0-9]+" in seeds
    assert "cases.*.*.dice" in voxseg("schemas", "scores").out
    optional = next(
        one for one in voxseg("schemas", "log").out.splitlines() if one.startswith("│ dice ")
    )
    assert "yes" not in optional


@pytest.mark.parametrize("name", schema_names())
def test_every_form_can_be_shown(voxseg, name):
    outcome = voxseg("schemas", name)
    assert outcome.code == 0
    assert read_schema(name)["description"] in outcome.out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("spilt", "there is no schema 'spilt'; did you mean split?"),
        ("voxseg.metric/1", "there is no schema 'voxseg.metric/1'; did you mean metrics?"),
        ("zzz", "there is no schema 'zzz'; 'voxseg schemas' lists them"),
        (
            "split/2",
            "there is no schema 'split/2'; this version has voxseg.split/1; leave the version away",
        ),
    ],
)
def test_an_unknown_name_is_2(voxseg, name, sentence):
    outcome = voxseg("schemas", name)
    assert (outcome.code, outcome.err) == (2, sentence)
