"""Counts of folds: kept, read back, pooled; and scores of volumes with ignored voxels."""

import json
import math

import numpy as np
import pytest

from voxseg.data.reading import read_label
from voxseg.data.volume import Volume
from voxseg.engine.pooled import (
    CONFUSION,
    Pooled,
    merge_counts,
    pool,
    read_counts,
    score_label,
    write_counts,
)
from voxseg.engine.scheme import Scheme, customary_ignore, scheme_of
from voxseg.errors import DataError
from voxseg.export.images import write_label_png
from voxseg.metrics import score_case


@pytest.fixture
def counted(tmp_path, photographs):
    """Counts of three photographs, and what they were counted with."""
    dataset = photographs.write_streets(tmp_path, {"a": 1, "b": 2, "c": 4})
    scheme = scheme_of(dataset)
    found = []
    for case in dataset.cases:
        prediction = read_label(tmp_path / "pred" / f"{case.case_id}.png")
        truth = read_label(case.label)
        _, counts = score_label(prediction.array, truth, scheme, instances=case.instances)
        found.append(counts)
    return found, scheme


def test_folds_pool_to_what_all_cases_give(counted, tmp_path, validate):
    (a, b, c), scheme = counted
    write_counts(tmp_path / "fold-0" / CONFUSION, a + b, scheme)
    write_counts(tmp_path / "fold-1" / CONFUSION, c, scheme)
    validate((tmp_path / "fold-0" / CONFUSION).read_text())
    assert str(merge_counts(tmp_path, 2)) == str(pool(a + b + c, scheme))
    assert merge_counts(tmp_path, 3) is None
    assert read_counts(tmp_path / "fold-1" / CONFUSION)[1] == scheme


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / CONFUSION
    path.write_text('{"confusion": {}}')
    with pytest.raises(DataError, match=r"confusion\.json is damaged .* score the fold again"):
        read_counts(path)


def test_scores_are_kept_as_plain_values(counted):
    (a, *_), scheme = counted
    pooled = pool(a, scheme)
    text = json.dumps(pooled.to_json()).replace("NaN", "null")
    again = Pooled.from_json(json.loads(text))
    assert str(again) == str(pooled)  # NaN is not equal to itself


def test_without_objects_of_every_case_there_is_no_iiou(counted, tmp_path):
    (a, *_), scheme = counted
    truth = read_label(tmp_path / "truth" / "b.png")
    _, bare = score_label(truth.array, truth, scheme)
    assert bare.instances is None
    pooled = pool(a + bare, scheme)
    assert math.isnan(pooled.mean_iiou)
    assert not math.isnan(pooled.mean_category_iou)


def test_objects_of_another_size_are_refused(counted, tmp_path):
    _, scheme = counted
    truth = read_label(tmp_path / "truth" / "b.png")
    write_label_png(tmp_path / "small.png", np.full((3, 4), 24000))
    with pytest.raises(DataError, match="differ in size"):
        score_label(truth.array, truth, scheme, instances=tmp_path / "small.png")


def test_a_network_brings_its_own_classes(tmp_path, photographs):
    dataset = photographs.write_streets(tmp_path, {"a": 0})
    scheme = scheme_of(dataset, values=(7, 26), names={26: "auto"}, ignore=(3, 4, 11, 24))
    assert scheme.labels == (7, 26)
    assert scheme.names[26] == "auto"
    assert scheme.categories == {7: "flat", 26: "vehicle"}
    assert scheme.with_objects == (26,)
    assert scheme.is_images
    assert scheme_of(None) == Scheme()
    assert scheme_of(dataset).labels == photographs.STREETS.values


def test_ignored_voxels_of_a_volume_are_in_neither_mask():
    truth = np.zeros((5, 6, 7), np.int32)
    truth[1:4, 1:4, 1:5] = 1
    prediction = np.roll(truth, 1, axis=0)
    holed = truth.copy()
    holed[:, 4:] = 9
    holed[3, 1, 1] = 9
    volume = Volume(holed, np.diag([1, 2, 3, 1]), None, None)
    found, counts = score_label(prediction, volume, Scheme(ignore=(9,)), labels=[0, 1])
    assert counts is None
    cut = [np.where(holed == 9, 2, one) for one in (prediction, truth)]
    assert str(found) == str(score_case(*cut, [0, 1], volume.spacing))
    assert found[1].truth_ml < score_case(prediction, truth, [1], volume.spacing)[1].truth_ml


def test_255_is_left_out_beside_two_other_values(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, values in zip(paths, ([0, 255], [0, 0], [0, 7]), strict=True):
        write_label_png(path, np.array([values]))
    assert customary_ignore(paths[:2]) == ()
    assert customary_ignore(paths[1:]) == ()
    assert customary_ignore(paths) == (255,)
    assert customary_ignore([*paths, tmp_path / "missing.png"]) == (255,)
