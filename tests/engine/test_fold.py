"""The scores that a fold leaves, as they are read back."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from voxseg.documents import write_document
from voxseg.engine.fold import read_scores
from voxseg.errors import DataError
from voxseg.metrics.case import ABSENT, ClassScores
from voxseg.schemas import SCORES

FOUND = ClassScores(0.5, 0.25, 3.0, 1.0, 0.75, -1.5, 2.0, 3.5)


@pytest.fixture
def cases():
    """A class that was found, and one that neither mask has."""
    return {"schema": {1: asdict(FOUND), 2: asdict(ABSENT)}}  # a case may have any name


def test_scores_survive_writing_undefined_ones_too(tmp_path, cases, validate):
    path = tmp_path / "scores.json"
    write_document(path, SCORES, {"tolerance_mm": 1.0, "cases": cases})
    stored = validate(path.read_text())["cases"]["schema"]["2"]
    assert stored["dice"] is None
    found = read_scores(tmp_path)["schema"]
    np.testing.assert_equal(asdict(found[1]), asdict(FOUND))
    assert math.isnan(found[2].dice)
    assert (found[2].truth_ml, list(found)) == (0.0, [1, 2])


def test_scores_of_versions_without_a_form_are_read(tmp_path, cases):
    (tmp_path / "scores.json").write_text(json.dumps(cases))
    found = read_scores(tmp_path)["schema"]
    np.testing.assert_equal(asdict(found[1]), asdict(FOUND))
    assert math.isnan(found[2].hd95_mm)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"schema": "voxseg.scores/2", "cases": {}}, "newer voxseg .*; update"),
        ({"schema": SCORES}, "is damaged .*; delete it"),
        ({"schema": SCORES, "cases": {"a": {"1": {"dice": 1.0}}}}, "is damaged .*; delete it"),
        ({"schema": SCORES, "cases": {"a": {"x": asdict(FOUND)}}}, "is damaged .*; delete it"),
        ({"schema": SCORES, "cases": {"a": {"1": asdict(FOUND) | {"dice": "high"}}}}, "is damaged"),
        ([], "is damaged .*; delete it"),
    ],
    ids=str,
)
def test_other_scores_are_refused_in_one_sentence(tmp_path, content, sentence):
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=sentence):
        read_scores(tmp_path)
