"""Canny as a baseline: strengths by hand, and published figures on real photographs."""

import numpy as np
import pytest

from voxseg.bench.canny import canny_strength, score_canny, score_people
from voxseg.data.boundary_layouts import find_boundary_maps
from voxseg.data.cases import Case
from voxseg.errors import DataError


def test_strength_is_the_last_threshold_that_has_an_edge():
    photograph = np.zeros((3, 40, 60))
    photograph[:, :, 20:] += 40
    photograph[:, :, 40:] += 200
    strength = canny_strength(photograph, 1.0, thresholds=(0.05, 1.0, 20.0))
    assert np.unique(strength[5:-5]).tolist() == [0, 0.25, 0.5]
    faint, clear = (np.flatnonzero(strength[20] == k) for k in (0.25, 0.5))
    assert set(faint.tolist()) <= {19, 20}
    assert set(clear.tolist()) <= {39, 40}


def test_nothing_to_score_is_refused(tmp_path):
    with pytest.raises(DataError, match="no case"):
        score_canny([], 1.0)
    with pytest.raises(DataError, match=r"a\.jpg has no boundaries; "):
        score_people([Case("a", (tmp_path / "a.jpg",), None)])


@pytest.fixture(scope="module")
def test_cases(real_data):
    return [
        case
        for case in find_boundary_maps(real_data / "bsds500", need_labels=True).cases
        if case.label.parent.name == "test"
    ]


@pytest.mark.slow
def test_canny_reaches_its_published_score(test_cases):
    """On three images; on all 20, ODS is .600, OIS .646, AP .573 (published .600, .640, .580)."""
    found = score_canny(test_cases[::7], sigma=2.5)
    assert 0.5 < found.ods < 0.7
    assert found.ods < found.ois < found.ods + 0.1
    assert 0.45 < found.ap < 0.7


@pytest.mark.slow
def test_people_agree_as_published(test_cases):
    """F .81 at recall .73 and precision .91 on 20 images; published .80."""
    found = score_people(test_cases)
    assert found.ods == pytest.approx(0.80, abs=0.03)
    assert found.best.precision > 0.87
