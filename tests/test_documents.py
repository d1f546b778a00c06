import json
import math
from pathlib import Path

import numpy as np
import pytest

from voxseg import __version__
from voxseg.documents import document, json_text, refuse_newer, write_document
from voxseg.errors import DataError
from voxseg.schemas import SPLIT


def test_a_document_begins_with_its_form_and_the_version():
    made = document(SPLIT, {"folds": []})
    assert list(made.items()) == [
        ("schema", "voxseg.split/1"),
        ("voxseg", __version__),
        ("folds", []),
    ]


def test_text_is_json_whatever_the_numbers_are():
    content = {"a": math.nan, 2: (1.5, -math.inf), "b": [{"c": np.float64("nan")}], "d": None}
    plain = {"a": None, "2": [1.5, None], "b": [{"c": None}], "d": None}
    assert json.loads(json_text(content)) == plain
    assert "\n" not in json_text(content, indent=None)


def test_a_document_is_written_whole(tmp_path):
    path = tmp_path / "new" / "split.json"
    write_document(path, SPLIT, {"folds": [], "mean": math.nan})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text)["mean"] is None


@pytest.mark.parametrize("schema", ["voxseg.split/2", "voxseg.split/10"])
def test_a_newer_version_is_refused_in_one_sentence(schema):
    with pytest.raises(DataError) as caught:
        refuse_newer({"schema": schema}, SPLIT, Path("a/split.json"))
    sentence = f"a/split.json was written by a newer voxseg ({schema}); update voxseg to read it"
    assert str(caught.value) == sentence


def test_versions_are_numbers():
    refuse_newer({"schema": "voxseg.split/9"}, "voxseg.split/10", Path("split.json"))
    with pytest.raises(DataError, match="newer"):
        refuse_newer({"schema": "voxseg.split/10"}, "voxseg.split/9", Path("split.json"))


@pytest.mark.parametrize(
    "content",
    [
        [{"train": ["a"], "val": []}],  # nnU-Net
        {"folds": []},
        {"schema": 2},
        {"schema": "voxseg.split/1"},
        {"schema": "voxseg.split/0"},
        {"schema": "voxseg.split/new"},
        {"schema": "other.split/2"},
        {"schema": "voxseg.folds/2"},
        None,
    ],
    ids=str,
)
def test_everything_else_passes(content):
    refuse_newer(content, SPLIT, Path("split.json"))
