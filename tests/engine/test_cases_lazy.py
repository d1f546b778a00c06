"""Photographs are prepared on access, within a budget, and training runs on them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from voxseg.data.cases import Case
from voxseg.data.layouts import find_cases
from voxseg.data.patches import PatchSampler, PatchSettings
from voxseg.data.transforms import Augment, AugmentSettings
from voxseg.engine import cases as module
from voxseg.engine import lazy_cases
from voxseg.engine.cases import prepare_cases
from voxseg.engine.config import build
from voxseg.engine.device import choose_compute
from voxseg.engine.lazy_cases import LazyCases, labels_of
from voxseg.engine.network import build_network
from voxseg.engine.supervision import training_weights
from voxseg.engine.validation import count_overlap
from voxseg.errors import DataError, UsageError

SETTINGS = {
    "labels": {"values": [0, 2, 5], "ignore": [255]},
    "data": {"normalise": "unit", "plane": "axial"},
    "model": {"network": "enet"},
    "supervoxels": {"count": 20},
    "train": {"class_weights": "enet"},
}
SIZE = 3 * 4 * 23 * 31 + 23 * 31 + 4 * 23 * 31  # bytes of a case: image, label, superpixels


@pytest.fixture
def pictures(tmp_path, rng):
    """Five photographs with masks."""
    found = []
    for number in range(5):
        paths = tmp_path / f"p{number}.png", tmp_path / f"p{number}_mask.png"
        Image.fromarray(rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)).save(paths[0])
        mask = rng.choice(np.array([0, 2, 5, 255], np.uint8), (23, 31), p=[0.5, 0.2, 0.1, 0.2])
        Image.fromarray(mask).save(paths[1])
        found.append(Case(f"p{number}", (paths[0],), paths[1]))
    return found


def look(pictures, tmp_path, settings=SETTINGS, **how):
    said = []
    config = build(settings)
    return prepare_cases(pictures, config, tmp_path / "prepared", said.append, **how), said


def count_reads(monkeypatch):
    reads = []

    def counted(case, *given):
        reads.append(case.case_id)
        return real(case, *given)

    real = lazy_cases.prepare_case
    monkeypatch.setattr(lazy_cases, "prepare_case", counted)
    return reads


def test_photographs_are_prepared_when_they_are_asked_for(pictures, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    cases, said = look(pictures, tmp_path)
    assert said == ["checking 5 photographs"]
    assert len(cases) == 5
    assert reads == []
    training, validation = cases[:3], cases[3:]
    assert [case.case_id for case in validation] == ["p3", "p4"]
    assert training[-1].case_id == cases[2].case_id == "p2"
    assert training[0].superpixels.max() > 5
    assert reads == ["p3", "p4", "p2", "p0"]  # a slice shares what is kept
    assert not (tmp_path / "prepared").exists()


def test_no_more_is_kept_than_fits(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_gb", lambda _: 2.5 * SIZE / 1e9 / 0.4)
    reads = count_reads(monkeypatch)
    cases, _ = look(pictures, tmp_path)
    for _ in range(2):
        for case in cases:
            assert case.is_image
    assert reads == ["p0", "p1", "p2", "p3", "p4", "p2", "p3", "p4"]
    reads.clear()
    fewer, _ = look(pictures, tmp_path, workers=1)  # half of it is for the worker
    for _ in range(2):
        for case in fewer:
            assert case.is_image
    assert len(reads) == 9


def test_lazy_cases_travel_without_what_is_kept(pictures, tmp_path):
    cases, _ = look(pictures, tmp_path)
    expected = [case.image for case in cases]
    content = pickle.dumps(cases)
    assert len(content) < 10_000
    for one, other in zip(expected, pickle.loads(content), strict=True):
        np.testing.assert_array_equal(one, other.image)


def test_labels_are_read_alone(pictures, tmp_path, monkeypatch):
    cases, _ = look(pictures, tmp_path)
    expected = [case.label for case in cases]
    cases, _ = look(pictures, tmp_path)
    reads = count_reads(monkeypatch)
    for one, other in zip(labels_of(cases), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    weights = training_weights(build(SETTINGS), cases)
    counts = torch.tensor([sum((label == k).sum() for label in expected) for k in range(3)])
    torch.testing.assert_close(weights, 1 / torch.log(1.02 + counts / counts.sum()).float())
    assert reads == []
    resized = {**SETTINGS, "data": {**SETTINGS["data"], "resize_pixels": [9, 12]}}
    small, _ = look(pictures, tmp_path, resized)
    np.testing.assert_array_equal(next(labels_of(small)), small[0].label)
    assert small[0].label.shape == (9, 12, 1)


def test_all_that_headers_tell_is_in_one_error(pictures, tmp_path):
    Image.new("L", (31, 22)).save(pictures[1].label)
    pictures[3].images[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"p1_mask\.png has(.|\n)*p3\.png"):
        look(pictures, tmp_path)


def test_settings_of_volumes_are_refused_at_once(pictures, tmp_path):
    wrong = {**SETTINGS, "data": {"spacing_mm": [1.0, 1.0, 1.0]}}
    with pytest.raises(UsageError, match="for volumes"):
        look(pictures, tmp_path, wrong)


def test_damage_in_the_middle_of_training_is_one_sentence(pictures, tmp_path):
    cases, _ = look(pictures, tmp_path)
    settings = PatchSettings(voxels=(16, 16), class_share=0.5)
    augment = Augment(AugmentSettings(intensity_probability=0.0), (16, 16), is_image=True)
    sampler = PatchSampler(cases, 3, settings, augment, seed=0)
    sampler.batch(0, 2)
    for case in pictures:
        content = case.images[0].read_bytes()
        case.images[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"p\d\.png is truncated or damaged") as error:
        [sampler.batch(step, 2) for step in range(20)]
    assert "\n" not in str(error.value)


def test_volumes_are_prepared_at_once_as_before(subjects, quick, tmp_path):
    config = build({**quick, "labels": {"values": [0, 2, 5]}})
    found = prepare_cases(find_cases(subjects).cases, config, tmp_path / "prepared", print)
    assert not isinstance(found, LazyCases)
    assert next(labels_of(found)) is found[0].label


def test_ignored_pixels_do_not_count_in_validation(pictures, tmp_path):
    config = build({**SETTINGS, "model": {"network": "fcn"}})
    cases, _ = look(pictures, tmp_path, {**SETTINGS, "model": {"network": "fcn"}})
    network = build_network(config.model, 3, 3, 2).eval()
    compute = choose_compute(torch.device("cpu"), "float32", "auto", 2)
    counts = count_overlap(network, cases, compute, config)
    expected = sum((case.label < 3).sum() for case in cases)
    assert counts.true.sum() == counts.predicted.sum() == expected < 5 * 23 * 31
