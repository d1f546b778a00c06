"""Classes with names, colours and codes, and the tables they stand in."""

import pytest

from voxseg.errors import DataError, UsageError
from voxseg.export.label_files import (
    colour_of,
    read_label_table,
    table_names,
    write_label_toml,
)
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import (
    Code,
    Codes,
    Label,
    LabelTable,
    codes_from_text,
    plain_table,
    with_values,
)

STRUCTURE = Code("SCT", "91723000", "Anatomical Structure")
HIPPOCAMPUS = Code("SCT", "5366008", "Hippocampus")
LEFT = Code("SCT", "7771000", "Left")
RIGHT = Code("SCT", "24028007", "Right")
GOOD = """
name = "halves"
[[labels]]
value = 5
name = "right hippocampus"
colour = "#102030"
category = ["SCT", "91723000", "Anatomical Structure"]
type = ["SCT", "5366008", "Hippocampus"]
type_modifier = ["SCT", "24028007", "Right"]
structure = "hippocampus"
[[labels]]
value = 2
name = "left hippocampus"
colour = [1, 2, 3]
side = "left"
structure = "hippocampus"
tissue = "grey_matter"
intracranial = true
"""
HEAD = "LabelValue,Name,Color_R,Color_G,Color_B"


def label(value=1, name="one", colour=(1, 2, 3), **more):
    return Label(value=value, name=name, colour=colour, **more)


@pytest.mark.parametrize("name", table_names())
def test_shipped_codes_are_those_of_dicom(name):
    """Value and meaning as pydicom, which is made from the standard, has them."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    known = {code: meaning for by in concepts.values() for code, (meaning, *_) in by.items()}
    found = 0
    for one in read_label_table(name):
        codes = (one.codes.category, one.codes.type, one.codes.type_modifier, one.codes.region)
        for code in filter(None, codes):
            meanings = {
                m for by in concepts.values() for c, (m, *_) in by.items() if c == code.value
            }
            assert code.value in known
            assert code.meaning in meanings
            found += 1
    assert found >= 4


def test_codes_read_back():
    codes = Codes(category=STRUCTURE, type=HIPPOCAMPUS, type_modifier=LEFT)
    text = "SCT^91723000^Anatomical Structure~SCT^5366008^Hippocampus~SCT^7771000^Left~~"
    assert str(codes) == text
    assert codes_from_text(text) == codes
    assert str(Codes()) == ""
    assert codes_from_text("") == Codes()
    for wrong in ("SCT", "a~b~c~d~e", "SCT^1~~~~"):
        with pytest.raises(ValueError, match=r"scheme|parts"):
            codes_from_text(wrong)


def test_codes_that_cannot_be():
    with pytest.raises(ValueError, match="go together"):
        Codes(category=STRUCTURE)
    with pytest.raises(ValueError, match=r"type_modifier says more about type"):
        Codes(type_modifier=LEFT)
    with pytest.raises(ValueError, match="scheme, value and meaning"):
        Code("SCT", "1", "a^b")
    with pytest.raises(ValueError, match="scheme, value and meaning"):
        Code("SCT", "", "b")


def test_side_comes_from_the_codes():
    codes = Codes(category=STRUCTURE, type=HIPPOCAMPUS, type_modifier=RIGHT)
    assert label(codes=codes).side == "right"
    with pytest.raises(ValueError, match="is left, but its codes say right"):
        label(codes=codes, side="left")


def test_table_is_ordered_and_asked_by_value():
    table = LabelTable(labels=(label(7, "b"), label(2, "a")))
    assert [one.value for one in table] == [2, 7]
    assert table[7].name == "b"
    assert 7 in table
    assert 3 not in table
    assert table.names == {2: "a", 7: "b"}
    assert len(with_values(table, [0, 7])) == 1


def test_table_refuses_what_stands_twice():
    with pytest.raises(ValueError, match="value 2 stands there twice"):
        LabelTable(labels=(label(2, "a"), label(2, "b")))
    with pytest.raises(ValueError, match="name a stands there twice"):
        LabelTable(labels=(label(2, "a"), label(3, "A")))


def test_table_must_cover_a_mask():
    table = LabelTable(labels=(label(2, "a"),), name="mine")
    assert table.covering([0, 2], "m.nii.gz") is table
    with pytest.raises(DataError, match=r"m\.nii\.gz holds the label 4, and the label table mine"):
        table.covering([0, 2, 4], "m.nii.gz")


def test_plain_table_mends_names():
    names = {-1: "x", 0: "background", 1: 'left, "inner"\npart', 2: "", 3: "über", 4: "ÜBER"}
    table = plain_table(names, {3: (9, 8, 7)})
    assert table.names == {1: "left, 'inner' part", 2: "class 2", 3: "über", 4: "ÜBER (4)"}
    assert table[3].colour == (9, 8, 7)
    assert table[1].codes == Codes()


def test_toml_reads(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(GOOD, encoding="utf-8")
    table = read_label_table(path)
    assert table.name == "halves"
    assert [(one.value, one.side, one.colour) for one in table] == [
        (2, "left", (1, 2, 3)),
        (5, "right", (16, 32, 48)),
    ]
    assert table[2].tissue == "grey_matter"
    assert table[2].is_intracranial
    assert table[5].codes.type == HIPPOCAMPUS


def test_written_tables_read_back(tmp_path):
    source = tmp_path / "t.toml"
    source.write_text(GOOD, encoding="utf-8")
    table = read_label_table(source)
    assert read_label_table(write_label_toml(tmp_path / "again.toml", table)) == table
    written, _ = write_label_table(tmp_path, table)
    again = read_label_table(written)
    assert again.names == table.names
    assert again.colours == table.colours
    assert [one.codes for one in again] == [one.codes for one in table]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"#102030"', '"#10203"', r"label number 1: the colour of label 5 .* got '#10203'"),
        ('"#102030"', "[1, 2, 300]", r"colour of label 5 \(right hippocampus\) must be three"),
        ("value = 5\n", "", "label number 1: value is missing"),
        ("value = 5", "value = 2", "the value 2 stands there twice"),
        ("value = 5", "value = 0", "0 is background"),
        ("value = 5", "value = 70000", "1 to 65535"),
        ('"right hippocampus"', '"left hippocampus"', "name left hippocampus stands there twice"),
        ('"right hippocampus"', '""', "label 5 needs a name"),
        ('colour = "#102030"\n', "", "label 5 .* has no colour"),
        ("colour =", "color =", "unknown key 'color'; did you mean colour"),
        ('side = "left"', 'side = "links"', "side of label 2 .* is one of left, right"),
        ('type = ["SCT", "5366008", "Hippocampus"]\n', "", "category and type go together"),
        ('"5366008", ', "", "type is a code like"),
        ("[[labels]]", "[[label]]", "unknown key 'label'; did you mean labels"),
        ('name = "halves"', "name = ", "is not valid TOML"),
    ],
)
def test_broken_toml_is_one_sentence(tmp_path, old, new, message):
    path = tmp_path / "t.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_label_table(path)
    assert "t.toml" in str(caught.value)


def test_csv_with_the_least_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{HEAD},Side\n0,bg,0,0,0,\n3,tumour,255,0,1,left\n", encoding="utf-8")
    table = read_label_table(path)
    assert [(one.value, one.name, one.colour, one.side) for one in table] == [
        (3, "tumour", (255, 0, 1), "left")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LabelValue,Name\n1,a\n", "has no column Color_R"),
        (f"{HEAD},Colour\n1,a,1,2,3,4\n", "unknown column 'Colour'"),
        (f"{HEAD}\n,a,1,2,3\n", r"line 2: LabelValue is missing"),
        (f"{HEAD}\n1,a,1,2,333\n", "must be three numbers"),
        (f"{HEAD}\n1,a,1,2,red\n", "must be #rrggbb or three numbers"),
        (f"{HEAD}\n1,a,1,2\n", "line 2 has fewer cells"),
        (f"{HEAD}\n1,a,1,2,3,4\n", "line 2 has more cells"),
        (f"{HEAD}\n1,a,1,2,3\n1,b,1,2,3\n", "the value 1 stands there twice"),
        (f"{HEAD}\n", "holds no label"),
    ],
)
def test_broken_csv_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_label_table(path)
    assert "t.csv" in str(caught.value)


def test_no_such_table(tmp_path):
    with pytest.raises(UsageError, match="did you mean ibsr-tissues"):
        read_label_table("ibsr-tissue")
    (tmp_path / "t.txt").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="ends in"):
        read_label_table(tmp_path / "t.txt")


def test_colours_are_hexadecimal():
    assert colour_of("#00fF7f") == (0, 255, 127)
    with pytest.raises(ValueError, match="#rrggbb"):
        colour_of("red")
