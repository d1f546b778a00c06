"""The confusion matrix: by hand, against a slow count, and against scikit-learn."""

import math

import numpy as np
import pytest

from voxseg.metrics.confusion import Confusion, count_confusion

IGNORED, UNKNOWN = 255, 99
LABELS = (0, 7, 300)
CATEGORIES = {0: "flat", 7: "thing", 300: "thing"}


def maps(seed, shape=(9, 13)):
    """Class values of three classes; some truth is ignored, some predictions are no class."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([*LABELS, IGNORED], shape, p=[0.5, 0.3, 0.1, 0.1])
    prediction = generator.choice([*LABELS, IGNORED, UNKNOWN], shape, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    return prediction.astype(np.int32), truth.astype(np.int32)


def slow(pairs, members):
    """True positives, false positives and false negatives of some classes, pixel by pixel."""
    tp = fp = fn = 0
    for prediction, truth in pairs:
        for guess, value in zip(prediction.ravel(), truth.ravel(), strict=True):
            if value == IGNORED:
                continue
            tp += guess in members and value in members
            fp += guess in members and value not in members
            fn += guess not in members and value in members
    return tp, fp, fn


def counted(pairs):
    parts = [count_confusion(*pair, LABELS, [IGNORED]) for pair in pairs]
    return sum(parts[1:], parts[0])


def test_by_hand():
    # One 1 missed as 2, one 2 missed as an unknown value, one wrong pixel where nothing counts.
    truth = np.array([[1, 1, 1, 2], [2, 2, 255, 1]])
    prediction = np.array([[1, 1, 2, 2], [2, 9, 2, 1]])
    found = count_confusion(prediction, truth, [1, 2, 3], [255])
    assert found.counts.tolist() == [[3, 1, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    assert (found.pixels, found.unknown) == (7, 1)
    iou = found.class_iou()
    assert iou[1] == 3 / 4  # one missed
    assert iou[2] == 2 / 4  # one false alarm, one missed
    assert math.isnan(iou[3])
    assert found.mean_iou() == (3 / 4 + 2 / 4) / 2
    assert found.mean_iou([1, 3]) == 3 / 4
    assert found.pixel_accuracy == 5 / 7
    assert found.class_accuracy()[2] == 2 / 3
    assert found.mean_accuracy() == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert found.frequency_weighted_iou == pytest.approx((4 * 3 / 4 + 3 * 2 / 4) / 7)
    # 1 for 2 is right within their category; the unknown value is a miss of it.
    assert found.category_iou({1: "a", 2: "a", 3: "b"})["a"] == 6 / 7
    assert math.isnan(found.category_iou({1: "a", 2: "a", 3: "b"})["b"])


def test_a_class_predicted_where_none_is_scores_zero_and_counts_in_the_mean():
    found = count_confusion(np.array([1, 1, 2]), np.array([1, 1, 1]), [1, 2])
    assert found.class_iou() == {1: 2 / 3, 2: 0.0}
    assert found.mean_iou() == 1 / 3
    assert math.isnan(found.class_accuracy()[2])
    assert found.mean_accuracy() == 2 / 3


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matches_reference(seed):
    pairs = [maps(seed), maps(seed + 10, (4, 1))]
    found = counted(pairs)
    for label, iou in found.class_iou().items():
        tp, fp, fn = slow(pairs, {label})
        assert iou == pytest.approx(tp / (tp + fp + fn))
        assert found.class_accuracy()[label] == pytest.approx(tp / (tp + fn))
    for name, iou in found.category_iou(CATEGORIES).items():
        tp, fp, fn = slow(pairs, {label for label, one in CATEGORIES.items() if one == name})
        assert iou == pytest.approx(tp / (tp + fp + fn))


@pytest.mark.parametrize("seed", range(3))
def test_confusion_golden_scikit_learn(seed):
    """scikit-learn's matrix and Jaccard index, on the pixels that count."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    prediction, truth = maps(seed)
    found = count_confusion(prediction, truth, LABELS, [IGNORED])
    kept = truth != IGNORED
    true, guess = truth[kept], prediction[kept]
    guess = np.where(np.isin(guess, LABELS), guess, UNKNOWN)
    wanted = metrics.confusion_matrix(true, guess, labels=[*LABELS, UNKNOWN])
    np.testing.assert_array_equal(found.counts, wanted[:-1])
    scores = metrics.jaccard_score(true, guess, labels=list(LABELS), average=None)
    np.testing.assert_allclose(list(found.class_iou().values()), scores)
    weighted = metrics.jaccard_score(true, guess, labels=list(LABELS), average="weighted")
    assert found.frequency_weighted_iou == pytest.approx(weighted)
    assert found.pixel_accuracy == pytest.approx(metrics.accuracy_score(true, guess))
    recalls = metrics.recall_score(true, guess, labels=list(LABELS), average="macro")
    assert found.mean_accuracy() == pytest.approx(recalls)


def test_cases_add_up_whatever_classes_each_has():
    first = count_confusion(np.array([1, 5]), np.array([1, 1]), [1, 5])
    second = count_confusion(np.array([9, 3]), np.array([3, 3]), [3])
    total = first + second
    assert total.labels == (1, 3, 5)
    assert total.counts.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal((second + first).counts, total.counts)


def test_it_is_kept_as_plain_values():
    found = counted([maps(1)])
    again = Confusion.from_json(found.to_json())
    assert again.labels == found.labels
    np.testing.assert_array_equal(again.counts, found.counts)
    empty = count_confusion(np.array([255]), np.array([255]), [], [255])
    assert Confusion.from_json(empty.to_json()).pixels == 0
    assert math.isnan(empty.mean_iou())


def test_renaming_classes_changes_no_score():
    prediction, truth = maps(4)
    names = {0: 8, 7: 1, 300: 5, IGNORED: 255, UNKNOWN: 77}
    other = [np.vectorize(names.get)(one) for one in (prediction, truth)]
    found = count_confusion(prediction, truth, LABELS, [IGNORED]).class_iou()
    again = count_confusion(*other, [8, 1, 5], [255]).class_iou()
    assert {names[label]: iou for label, iou in found.items()} == again


def test_confusion_rejects_what_is_no_class():
    label = np.zeros((3, 2), int)
    with pytest.raises(ValueError, match=r"truth holds \[4\], which are neither classes"):
        count_confusion(label, label + 4, [0, 1])
    with pytest.raises(ValueError, match=r"\[1\] are both classes and ignored"):
        count_confusion(label, label, [0, 1], [1])
    with pytest.raises(ValueError, match="same shape"):
        count_confusion(label, label[:2], [0])
    with pytest.raises(TypeError, match="integer"):
        count_confusion(label / 2, label, [0])
    with pytest.raises(ValueError, match="int64"):
        Confusion((1, 2), np.zeros((2, 2), np.int64))
