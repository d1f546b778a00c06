"""``voxseg evaluate`` on photographs: pixels that do not count, pooled scores, broken files."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from voxseg.cli.evaluate import evaluate
from voxseg.engine import pairs
from voxseg.engine.evaluate import Evaluation
from voxseg.engine.evaluate import evaluate as run
from voxseg.errors import DataError, UsageError
from voxseg.export.images import write_label_png
from voxseg.metrics.confusion import count_confusion
from voxseg.metrics.instances import CITYSCAPES_SIZES, count_instances

app = typer.Typer()
app.command()(evaluate)


@app.callback()
def root():
    """Keep ``evaluate`` a command of its own."""


def call(*words):
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)], env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def streets(tmp_path, monkeypatch, photographs):
    """Three photographs of a data set whose classes are known; ``tmp_path`` stands for it."""
    dataset = photographs.write_streets(tmp_path, {"a": 1, "b": 2, "c": 4})
    monkeypatch.setattr(pairs, "find_cases", lambda *_, **__: dataset)
    return dataset


@pytest.fixture
def masks(tmp_path):
    """Two folders of masks with the classes 0 and 1, and 255 where the truth says nothing."""
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 1, 0]])
    prediction = np.array([[0, 1, 1, 1], [0, 0, 1, 0], [1, 1, 1, 0]])
    for name in ("x", "y"):
        write_label_png(tmp_path / "true" / f"{name}.png", truth)
        write_label_png(tmp_path / "pred" / f"{name}.png", prediction)
    return tmp_path


def test_scores_by_hand(masks, validate):
    content = validate(call(masks / "pred", masks / "true", "--json").stdout)
    pooled = content["pooled"]
    # Of each: five 0 of which one is missed, five 1 of which one is missed, two do not count.
    assert pooled["mean_iou"] == pytest.approx(4 / 6)
    assert pooled["pixel_accuracy"] == pytest.approx(8 / 10)
    assert (pooled["cases"], pooled["pixels"], pooled["ignored_pixels"]) == (2, 20, 4)
    row = content["cases"][0]
    assert (row["case"], row["label"], row["dice"]) == ("x", 0, pytest.approx(8 / 10))
    assert (row["prediction_pixels"], row["truth_pixels"]) == (5, 5)
    assert row["hd95_mm"] is row["truth_ml"] is None
    assert any("255 beside other values" in note for note in content["notes"])
    assert any("16.67% of all" in note for note in content["notes"])


def test_nothing_of_a_photograph_is_in_mm_or_ml(masks, tmp_path):
    result = call(masks / "pred", masks / "true", "-o", tmp_path / "out")
    assert result.exit_code == 0
    for word in ("All pixels of 2 photographs", "mean IoU 66.67%", "pixel accuracy 80.00%"):
        assert word in result.stdout
    texts = [(tmp_path / "out" / f"{name}.csv").read_text() for name in ("metrics", "summary")]
    for text in (result.stdout, *texts):
        for word in (" mm", " ml", "_mm", "_ml", "HD95", "surface"):
            assert word not in text
    rows = list(csv.DictReader(texts[0].splitlines()))
    assert list(rows[0])[:5] == ["case", "class", "label", "dice", "iou"]


def test_zero_and_255_alone_are_classes(tmp_path):
    truth = np.array([[0, 255, 255], [0, 0, 255]])
    for part in ("pred", "true"):
        write_label_png(tmp_path / part / "x.png", truth)
    evaluation = run(tmp_path / "pred", tmp_path / "true")
    assert list(evaluation.scores["x"]) == [0, 255]
    assert evaluation.pooled.ignored_pixels == 0


def test_ignore_names_other_values_or_none(masks):
    folders = (masks / "pred", masks / "true")
    everything = json.loads(call(*folders, "--json", "--ignore", "none").stdout)["pooled"]
    assert [one["label"] for one in everything["classes"]] == [0, 1, 255]
    assert everything["classes"][2]["iou"] == 0
    ones = json.loads(call(*folders, "--json", "--ignore", "1,255").stdout)["pooled"]
    # The five 0: one is predicted as 1, which is no class any more.
    assert [one["label"] for one in ones["classes"]] == [0]
    assert (ones["mean_iou"], ones["unknown_pixels"]) == (4 / 5, 2)


def test_a_data_set_brings_classes_categories_and_objects(streets, photographs, tmp_path, validate):
    result = call(tmp_path / "pred", tmp_path, "--json")
    content = validate(result.stdout)
    confusion, instances = [], []
    for number, shift in enumerate((1, 2, 4)):
        truth, ids = photographs.street(number)
        prediction = np.roll(truth, shift, axis=1)
        confusion.append(
            count_confusion(prediction, truth, streets.label_set.values, streets.label_set.ignore)
        )
        groups = {one.value: one.category for one in streets.label_set.classes}
        instances.append(count_instances(prediction, ids, (24, 26), groups))
    matrix = sum(confusion[1:], confusion[0])
    objects = sum(instances[1:], instances[0])
    sizes = {24: CITYSCAPES_SIZES["person"], 26: CITYSCAPES_SIZES["car"]}
    wanted = objects.class_iiou(matrix, sizes)
    pooled = content["pooled"]
    for one in pooled["classes"]:
        assert one["iou"] == pytest.approx(matrix.class_iou()[one["label"]])
        found = math.nan if one["iiou"] is None else one["iiou"]
        assert found == pytest.approx(wanted.get(one["label"], math.nan), nan_ok=True)
    assert pooled["mean_iiou"] == pytest.approx(sum(wanted.values()) / 2)
    assert [one["name"] for one in pooled["categories"]] == [
        "flat", "construction", "human", "vehicle",
    ]  # fmt: skip
    assert pooled["classes"][0]["colour"] == [128, 64, 128]
    assert pooled["unknown_pixels"] > 0  # 3, shifted onto the road
    shown = call(tmp_path / "pred", tmp_path).stdout
    for word in ("iIoU", "Categories", "vehicle", "category iIoU", "value that is no class"):
        assert word in shown


def test_class_zero_is_no_background_where_it_has_another_name(masks):
    named = run(masks / "pred", masks / "true", names={0: "sky", 1: "road"})
    assert [row.name for row in named.summary.rows] == ["sky", "road", "all-class mean"]
    plain = run(masks / "pred", masks / "true")
    assert [row.name for row in plain.summary.rows] == [
        "class 1", "foreground mean", "background", "all-class mean",
    ]  # fmt: skip


def test_class_zero_of_volumes_is_background_whatever_its_name():
    volumes = Evaluation({}, {}, {0: "air"}, 1.0)
    assert volumes.background == volumes.means_without == 0
    assert replace(volumes, is_images=True).background is None
    assert replace(volumes, is_images=True, class_names={0: "Background"}).background == 0


def test_labels_choose_what_is_averaged_and_false_alarms_stay(masks):
    one = run(masks / "pred", masks / "true", labels=[1]).pooled
    both = run(masks / "pred", masks / "true").pooled
    assert [row.label for row in one.classes] == [1]
    assert one.mean_iou == both.classes[1].iou
    with pytest.raises(UsageError, match="1 is in --labels and in --ignore"):
        run(masks / "pred", masks / "true", labels=[1], ignore=[1])


def test_cases_of_another_part_are_not_missed(streets, tmp_path, monkeypatch):
    parts = {"train": ("b",), "val": ("a", "c")}
    dataset = replace(streets, parts=parts)
    monkeypatch.setattr(pairs, "find_cases", lambda *_, **__: dataset)
    for name in ("b", "c"):
        (tmp_path / "pred" / f"{name}.png").unlink()
    assert run(tmp_path / "pred", tmp_path).without_prediction == ("c",)


def test_broken_predictions_are_reported_and_others_finish(masks):
    write_label_png(masks / "pred/x.png", np.zeros((5, 7), int))
    result = call(masks / "pred", masks / "true")
    assert result.exit_code == 4
    assert "x.png has 7 x 5 pixels but" in result.stderr
    assert "1 of 2 cases failed" in result.stderr
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)).save(
        masks / "pred/x.png"
    )
    result = call(masks / "pred", masks / "true")
    assert result.exit_code == 4
    assert "x.png" in result.stderr


def test_a_true_value_that_no_class_has_is_an_error(streets, photographs, tmp_path):
    truth, _ = photographs.street(0)
    truth[0, 0] = 33
    write_label_png(tmp_path / "truth" / "a.png", truth)
    result = call(tmp_path / "pred", tmp_path)
    assert result.exit_code == 4
    assert "a.png holds 33, which the data set's classes do not have" in result.stderr
    assert "--ignore" in result.stderr
    assert run(tmp_path / "pred", tmp_path, ignore=[photographs.VOID, 4, 33]).failures == {}


def test_names_that_do_not_fit(streets, tmp_path):
    for name in "abc":
        (tmp_path / "pred" / f"{name}.png").rename(tmp_path / "pred" / f"other-{name}.png")
    with pytest.raises(DataError, match=r"named after their case, CASE\.png"):
        run(tmp_path / "pred", tmp_path)


def test_pictures_beside_the_masks_are_no_predictions(masks):
    for ending in ("overlay", "probability-1"):
        Image.new("RGB", (4, 3)).save(masks / "pred" / f"x_{ending}.png")
    assert run(masks / "pred", masks / "true").without_truth == ()
