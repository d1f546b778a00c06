"""What ``voxseg predict`` prints about volumes."""

import pytest

from voxseg.engine.outcomes import DISCLAIMER
from voxseg.files import write_text

TABLE = """
note = "Letters, not organs."
[[labels]]
value = 1
name = "head"
colour = "#010101"
[[labels]]
value = 2
name = "left letter"
colour = "#020202"
structure = "letter"
side = "left"
[[labels]]
value = 5
name = "right letter"
colour = "#050505"
structure = "letter"
side = "right"
[[labels]]
value = 9
name = "third letter"
colour = "#090909"
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory, phantom):
    """An image and a run that segments it."""
    root = tmp_path_factory.mktemp("head")
    path, _ = phantom.write_images(root / "images")["RAS"]
    return path, phantom.write_network(root / "run")


def test_figures_stand_in_tables_with_what_they_are(voxseg, head, tmp_path):
    image, run = head
    write_text(tmp_path / "table.toml", TABLE)
    words = ("predict", run, image, "--device", "cpu", "--label-table", tmp_path / "table.toml")
    told = voxseg(*words, "-o", tmp_path / "out").out
    for text in (
        "Volumes, ml", "│ 20.9 │", "Structures, sides and shares", "letter, asymmetry, %", "-48.3",
        "No interval: predict with", "Letters, not organs.", DISCLAIMER,
    ):  # fmt: skip
        assert text in told, text
    told = voxseg(*words, "-o", tmp_path / "other", "--json")
    assert told.json["disclaimer"] == DISCLAIMER
    assert {one["name"]: one["unit"] for one in told.json["cases"][0]["measures"]} == {
        "letter": "ml", "letter, left minus right": "ml", "letter, asymmetry": "%",
    }  # fmt: skip
    assert DISCLAIMER in told.err


def test_tissue_maps_without_tissues_are_wrong_usage(voxseg, head, tmp_path):
    image, run = head
    told = voxseg("predict", run, image, "-o", tmp_path / "out", "--save-tissues")
    assert told.code == 2
    assert told.err.startswith("--save-tissues writes a map of each tissue")
