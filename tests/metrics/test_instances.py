"""Instance-level IoU: by hand, and against the definition written out pixel by pixel."""

import math

import numpy as np
import pytest

from voxseg.metrics.confusion import count_confusion
from voxseg.metrics.instances import (
    CITYSCAPES_SIZES,
    Instances,
    ObjectCounts,
    count_instances,
)

CATEGORIES = {7: "flat", 24: "human", 25: "human", 26: "vehicle"}
WITH_OBJECTS = (24, 25, 26)
SIZES = {24: 40.0, 25: 25.0, 26: 120.0}


def street(seed, shape=(20, 30)):
    """Road, people, riders, cars; a group of cars; a bit that is ignored; a noisy prediction."""
    generator = np.random.default_rng(seed)
    instances = np.full(shape, 7)
    for number, (value, top, left, high, wide) in enumerate(
        [
            (24, 2, 2, 4, 2),
            (24, 2, 6, 9, 4),
            (25, 12, 3, 3, 5),
            (26, 9, 14, 8, 9),
            (26, 1, 20, 3, 4),
        ]
    ):
        instances[top : top + high, left : left + wide] = 1000 * value + number
    instances[17:20, 24:30] = 26  # a group of cars
    instances[0] = 3  # ignored
    truth = np.where(instances >= 1000, instances // 1000, instances)
    noise = generator.choice([7, 24, 25, 26, 3, 29], shape)
    return np.where(generator.random(shape) < 0.4, noise, truth), truth, instances


def slow(cases, members, sizes):
    """iTP, FP and iFN of some classes taken as one."""
    hit = missed = false = 0.0
    for prediction, truth, instances in cases:
        for place in np.ndindex(truth.shape):
            value, guess, one = truth[place], prediction[place], instances[place]
            if value != 3 and guess in members and value not in members:
                false += 1
            if one >= 1000 and one // 1000 in members:
                weight = sizes[one // 1000] / (instances == one).sum()
                hit += weight * (guess in members)
                missed += weight * (guess not in members)
    return hit / (hit + false + missed)


def counted(cases):
    confusion = [count_confusion(p, t, CATEGORIES, [3]) for p, t, _ in cases]
    instances = [count_instances(p, i, WITH_OBJECTS, CATEGORIES) for p, _, i in cases]
    return sum(confusion[1:], confusion[0]), sum(instances, Instances())


def test_by_hand():
    # Two people: of 2 pixels, both found; of 6 pixels, 3 found. One false alarm on the road.
    instances = np.array(
        [[24000, 24000, 7, 7], [24001, 24001, 24001, 7], [24001, 24001, 24001, 24]]
    )
    prediction = np.array([[24, 24, 24, 7], [24, 24, 24, 7], [7, 7, 7, 7]])
    found = count_instances(prediction, instances, [24], {24: "human"})
    assert found.classes == {24: ObjectCounts(2, 8, 1.5, 1.5)}
    truth = np.where(instances >= 1000, 24, instances)
    confusion = count_confusion(prediction, truth, [7, 24])
    # The average person has 4 pixels: iTP 4 * 1 + 4 / 6 * 3 = 6, iFN 4 / 6 * 3 = 2, FP 1.
    assert found.class_iiou(confusion) == {24: pytest.approx(6 / 9)}
    # With 40 pixels: iTP 60, iFN 20.
    assert found.class_iiou(confusion, {24: 40.0}) == {24: pytest.approx(60 / 81)}
    # The plain IoU sees 5 of 9 true pixels (the group among them) and the false alarm.
    assert confusion.class_iou()[24] == 5 / 10


@pytest.mark.parametrize("seed", range(3))
def test_instances_matches_reference(seed):
    cases = [street(seed), street(seed + 10)]
    confusion, instances = counted(cases)
    for label, score in instances.class_iiou(confusion, SIZES).items():
        assert score == pytest.approx(slow(cases, {label}, SIZES))
    found = instances.category_iiou(confusion, CATEGORIES, SIZES)
    assert list(found) == ["human", "vehicle"]  # not all that is flat has objects
    assert found["human"] == pytest.approx(slow(cases, {24, 25}, SIZES))
    assert found["vehicle"] == pytest.approx(slow(cases, {26}, SIZES))
    sizes = {24: (8 + 36) / 2, 25: 15, 26: (72 + 12) / 2}
    assert instances.class_iiou(confusion) == pytest.approx(instances.class_iiou(confusion, sizes))


def test_with_objects_of_one_size_it_is_the_plain_iou():
    instances = np.full((6, 8), 7)
    instances[1:3, 1:3], instances[4:6, 4:6] = 24000, 24007
    truth = np.where(instances >= 1000, 24, instances)
    prediction = np.roll(truth, 1, axis=1)
    confusion = count_confusion(prediction, truth, [7, 24])
    found = count_instances(prediction, instances, [24]).class_iiou(confusion)
    assert found[24] == pytest.approx(confusion.class_iou()[24])


def test_nothing_to_find_is_undefined_and_a_false_alarm_zero():
    road = np.full((3, 4), 7)
    found = count_instances(road, road, [24, 26], {24: "human", 26: "vehicle"})
    confusion = count_confusion(road, road, [7, 24, 26])
    assert all(math.isnan(score) for score in found.class_iiou(confusion).values())
    car = road.copy()
    car[0, 0] = 26
    confusion = count_confusion(car, road, [7, 24, 26])
    assert found.class_iiou(confusion, SIZES)[26] == 0
    assert found.category_iiou(confusion, {24: "human", 26: "vehicle"})["vehicle"] == 0


def test_ids_of_classes_without_objects_are_passed_over():
    instances = np.array([[29000, 29001, 24000]])
    assert set(count_instances(instances // 1000, instances, [24]).classes) == {24}


def test_it_is_kept_as_plain_values():
    _, instances = counted([street(5)])
    assert Instances.from_json(instances.to_json()) == instances


def test_count_instances_rejects_another_shape():
    with pytest.raises(ValueError, match="same shape"):
        count_instances(np.zeros((2, 3), int), np.zeros((3, 2), int), [24])


def test_sizes_golden_cityscapes():
    """The benchmark's evaluation lists ten classes; eight of them are scored."""
    assert len(CITYSCAPES_SIZES) == 10
    assert min(CITYSCAPES_SIZES, key=CITYSCAPES_SIZES.__getitem__) == "person"
