"""Entropy and disagreement: by hand, and within their bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxseg.metrics.uncertainty import Members, entropy


def test_entropy_by_hand():
    # Certain, undecided between all, undecided between two of four.
    given_shares = np.array([[1, 0.25, 0.5], [0, 0.25, 0.5], [0, 0.25, 0], [0, 0.25, 0]])
    np.testing.assert_allclose(entropy(given_shares.astype(np.float32)), [0, 1, 0.5], atol=1e-6)
    assert entropy(np.ones((1, 2, 3), np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_disagreement_by_hand():
    members = Members()
    sure_of_0, sure_of_1 = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
    unsure = np.array([[0.5], [0.5]])
    for one in (sure_of_0, sure_of_1):
        members.add(one)
    # Each is sure, of something else: all of the uncertainty is disagreement.
    np.testing.assert_allclose(members.disagreement(unsure), [1.0], atol=1e-6)
    same = Members()
    for _ in range(2):
        same.add(unsure)
    # Each is unsure in the same way: none of it is.
    np.testing.assert_allclose(same.disagreement(unsure), [0.0], atol=1e-6)


def test_voxels_are_counted_of_each_member():
    members = Members()
    members.add(np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]]))
    members.add(np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.9]]))
    assert members.count == 2
    assert members.voxels == ((2, 1), (1, 2))
    assert Members().disagreement(np.ones((2, 3))).tolist() == [0, 0, 0]


@given(
    classes=st.integers(2, 5),
    count=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([0.1, 3.0, 50.0]),
)
def test_bounds(classes, count, seed, scale):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, classes, 7)) * scale
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    members = Members()
    for one in shares:
        members.add(one)
    mean = shares.mean(0)
    total, between = entropy(mean), members.disagreement(mean)
    assert ((total >= 0) & (total <= 1)).all()
    assert ((between >= 0) & (between <= total + 1e-5)).all()
    if count == 1:
        np.testing.assert_allclose(between, 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)], ids=str)
def test_shapes(shape):
    shares = np.full((3, *shape), 1 / 3, np.float32)
    assert entropy(shares).shape == shape
    assert entropy(shares).dtype == np.float32
