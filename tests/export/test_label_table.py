"""Colour tables, read back as 3D Slicer's guide describes them."""

import csv
import re

import numpy as np
import pytest

from voxseg.export.label_table import write_label_table
from voxseg.export.labels import class_colours, plain_table

NAMES = {0: "background", 1: "CSF", 2: "grey matter", 250: "white matter"}


def read_ctbl(path):
    """Parse the text form: comments, then value, name, red, green, blue, alpha."""
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        value, name, *colour = line.split()
        assert len(colour) == 4
        table[int(value)] = (name.replace("_", " "), tuple(map(int, colour)))
    return table


def test_csv_has_slicers_columns_and_no_codes(tmp_path):
    path, _ = write_label_table(tmp_path, plain_table(NAMES))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows[0]) == 21
    assert list(rows[0])[:7] == [
        "LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A", "Category_CodingScheme",
    ]  # fmt: skip
    assert list(rows[0])[-1] == "RegionModifier_CodeMeaning"
    assert [(int(r["LabelValue"]), r["Name"]) for r in rows] == list(NAMES.items())[1:]
    codes = [value for row in rows for name, value in row.items() if "_Cod" in name]
    assert len(codes) == 15 * 3
    assert set(codes) == {""}


def test_both_files_agree(tmp_path):
    csv_path, ctbl_path = write_label_table(tmp_path, plain_table(NAMES))
    table = read_ctbl(ctbl_path)
    assert re.match(r"# Color table file", ctbl_path.read_text(encoding="utf-8"))
    assert table.pop(0) == ("background", (0, 0, 0, 0))
    with csv_path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            colour = tuple(int(row[f"Color_{c}"]) for c in "RGBA")
            assert table.pop(int(row["LabelValue"])) == (row["Name"], colour)
    assert table == {}


def test_awkward_names_survive(tmp_path):
    names = {1: 'left, "inner"\npart', 2: "", 3: "über"}
    csv_path, ctbl_path = write_label_table(tmp_path / "new", plain_table(names))
    with csv_path.open(encoding="utf-8", newline="") as file:
        read = {int(row["LabelValue"]): row["Name"] for row in csv.DictReader(file)}
    assert read == {1: "left, 'inner' part", 2: "class 2", 3: "über"}
    assert read_ctbl(ctbl_path)[1][0] == "left, 'inner' part"


def test_negative_classes_are_left_out(tmp_path):
    table = plain_table({-1: "ignored", 0: "none", 4: "x"})
    csv_path, ctbl_path = write_label_table(tmp_path, table, "none")
    assert "ignored" not in csv_path.read_text() + ctbl_path.read_text()
    assert list(read_ctbl(ctbl_path)) == [0, 4]


@pytest.mark.parametrize("count", [1, 7, 28])
def test_colours_differ(count):
    colours = class_colours(range(count + 1))
    assert len(set(colours.values())) == len(colours) == count
    assert all(0 <= part <= 255 for colour in colours.values() for part in colour)


def test_first_colours_differ_in_lightness_or_hue_for_everyone():
    """Even without red-green difference (protan, deutan) the first three stay apart."""
    colours = np.array(list(class_colours([1, 2, 3]).values()), float)
    merged = np.stack([colours[:, :2].mean(1), colours[:, 2]], axis=1)
    gaps = np.linalg.norm(merged[:, None] - merged[None], axis=-1)
    assert gaps[np.triu_indices(3, 1)].min() > 60
