"""Label tables in a configuration: what a run keeps of them."""

import re
from dataclasses import replace

import pytest

from voxseg.data.cases import Dataset
from voxseg.engine.config import LabelConfig, build, merge
from voxseg.engine.labels import check_facts, label_table, table_settings
from voxseg.errors import DataError, UsageError
from voxseg.export.label_files import read_label_table, write_label_toml
from voxseg.export.labels import LabelTable

VALUES = {"values": [0, 1, 2, 3]}


def dataset(names=None):
    return Dataset("folder", (), dict(names or {}))


def settled(labels, data=None):
    """The section after its table was looked up, and what was said."""
    said = []
    config = build({"labels": labels}).labels
    found = table_settings(config, data or dataset(), said.append)
    return build({"labels": merge(labels, found)}).labels, said


def test_a_run_keeps_its_table():
    config, said = settled({**VALUES, "table": "ibsr-tissues"})
    check_facts(config)
    assert said == []
    kept, shipped = label_table(config), read_label_table("ibsr-tissues")
    assert kept.labels == shipped.labels
    assert kept.note == shipped.note
    assert config.names[0] == "background"


def test_names_and_colours_that_were_given_stay():
    names, colours = ["none", "a", "b", "c"], ["#000000", "#010203", "#040506", "#070809"]
    given = {**VALUES, "table": "ibsr-tissues", "names": names, "colours": colours}
    config, _ = settled(given)
    table = label_table(config)
    assert table.names == {1: "a", 2: "b", 3: "c"}
    assert table.colours[2] == (4, 5, 6)
    assert table[3].tissue == "white_matter"


@pytest.mark.parametrize(
    ("values", "names", "reason"),
    [
        ([0, 1, 2], {}, r"is for labels \[1, 2, 3\], and the data have \[1, 2\]"),
        ([0, 1, 2, 3], {1: "left ventricle"}, "call label 1 'left ventricle'"),
    ],
)
def test_a_shipped_table_of_other_classes_is_left_out_and_said(values, names, reason):
    config, (said,) = settled({"values": values, "table": "ibsr-tissues"}, dataset(names))
    assert re.search(reason, said)
    assert config.codes == ()
    named = build({"labels": {"values": values, "names": [f"n{v}" for v in values]}}).labels
    table = label_table(replace(config, names=named.names))
    assert table.name == ""
    assert table[1].name == "n1"


def test_other_words_for_the_same_class_are_no_misfit():
    names = {1: "CSF", 2: "Gray matter", 3: "white matter"}
    config, said = settled({**VALUES, "table": "ibsr-tissues"}, dataset(names))
    assert said == []
    assert config.codes


def test_a_table_of_ones_own_must_have_every_class(tmp_path):
    table = LabelTable(labels=read_label_table("ibsr-tissues").labels[:2], name="two")
    path = write_label_toml(tmp_path / "two.toml", table)
    with pytest.raises(DataError, match="the data set holds the label 3, and the label table two"):
        settled({**VALUES, "table": str(path)})
    with pytest.raises(UsageError, match="no label table or file nowhere"):
        settled({**VALUES, "table": "nowhere.toml"})


def test_another_table_can_be_chosen_later(tmp_path):
    config, _ = settled({**VALUES, "names": ["background", "a", "b", "c"]})
    assert label_table(config)[2].name == "b"
    assert label_table(config, "brain-tissues")[2].name == "grey matter"
    path = write_label_toml(
        tmp_path / "two.toml", LabelTable(labels=read_label_table("ibsr-tissues").labels[:2])
    )
    with pytest.raises(DataError, match="holds the label 3"):
        label_table(config, path)


@pytest.mark.parametrize(
    "broken",
    [{"codes": ("",)}, {"codes": ("x",) * 4}, {"sides": ("left",) * 4}],
)
def test_facts_that_do_not_fit_are_refused(broken):
    facts = {"names": ("b", "x", "y", "z"), "values": (0, 1, 2, 3)}
    full = {"sides": ("",) * 4, "structures": ("",) * 4, "tissues": ("",) * 4}
    full |= {"intracranial": (False,) * 4}
    more = full if len(broken.get("codes", ())) == 4 else {}
    with pytest.raises(DataError, match=r"labels\.(codes|sides)"):
        check_facts(LabelConfig(**facts, **more, **broken))
