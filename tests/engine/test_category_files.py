from pathlib import Path

import numpy as np
import pytest

from voxseg.data.cases import Case, Dataset
from voxseg.engine.category_files import (
    Categories,
    categories_of,
    category_tables,
    evaluate_categories,
    read_categories,
    write_categories,
)
from voxseg.errors import DataError

NAMES = ("bear", "bridge", "coffee", "dam", "dog", "desk", "fish")


def dataset(truths, parts=None):
    cases = [
        Case(name, (Path(f"{name}.jpg"),), None, task="classification", category=category)
        for name, category in truths.items()
    ]
    return Dataset("classes", tuple(cases), {}, parts=parts or {})


def test_the_five_most_probable_classes_are_named_in_order():
    shares = np.array([0.1, 0.3, 0.05, 0.3, 0.2, 0.04, 0.01])
    row = categories_of("p1", shares, NAMES)
    assert row.names == ("bridge", "dam", "dog", "bear", "coffee")
    assert row.shares == (0.3, 0.3, 0.2, 0.1, 0.05)


def test_a_table_comes_back(tmp_path):
    rows = [Categories("a", ("x, y", 'say "z"'), (0.75, 0.25)), Categories("b", ("w", "v"), (1, 0))]
    write_categories(tmp_path / "predictions.csv", rows)
    assert category_tables(tmp_path) == [tmp_path / "predictions.csv"]
    assert category_tables(tmp_path / "predictions.csv") == [tmp_path / "predictions.csv"]
    assert read_categories(category_tables(tmp_path)) == {"a": ("x, y", 'say "z"'), "b": ("w", "v")}
    assert category_tables(tmp_path / "nothing.png") == []


def test_scores_by_hand(tmp_path):
    truths = {"a": "bear", "b": "bear", "c": "bear", "d": "dog", "e": "dam"}
    rows = [
        Categories("a", ("bear", "dog"), (0.9, 0.1)),
        Categories("b", ("dog", "bear"), (0.6, 0.4)),
        Categories("c", ("dog", "dam"), (0.6, 0.4)),
        Categories("d", ("dog", "dam"), (0.6, 0.4)),
        Categories("z", ("dog", "dam"), (0.6, 0.4)),
    ]
    write_categories(tmp_path / "predictions.csv", rows)
    found = evaluate_categories(category_tables(tmp_path), dataset(truths))
    assert found.totals == {"top1": 2 / 4, "top5": 3 / 4, "class_mean": (1 / 3 + 1) / 2}
    assert found.cases["b"] == {"top1": 0.0, "top5": 1.0}
    assert found.detail["confusion"] == {"bear": {"bear": 1, "dog": 2}, "dog": {"dog": 1}}
    assert found.without_prediction == ("e",)
    assert found.without_truth == ("z",)


def test_photographs_may_have_fewer_names(tmp_path):
    rows = [
        Categories("a", ("bear",), (1.0,)),
        Categories("b", ("dog", "fish", "dam", "desk", "bear"), (0.4, 0.2, 0.2, 0.1, 0.1)),
    ]
    write_categories(tmp_path / "predictions.csv", rows)
    tables = category_tables(tmp_path)
    found = evaluate_categories(tables, dataset({"a": "bear", "b": "bear"}))
    assert found.totals == {"top1": 0.5, "top5": 1.0, "class_mean": 0.5}
    assert found.detail["accuracy"] == {"bear": 0.5}


def test_names_of_other_classes_are_refused(tmp_path):
    rows = [Categories("a", ("goldfish", "banana"), (0.7, 0.3))]
    write_categories(tmp_path / "predictions.csv", rows)
    with pytest.raises(DataError, match=r"\(banana, goldfish\) is one of the truth \(n0144\)"):
        evaluate_categories(category_tables(tmp_path), dataset({"a": "n0144"}))


def test_only_parts_with_predictions_are_missed(tmp_path):
    truths = {"a": "bear", "b": "dog", "c": "dog"}
    parts = {"train": ("c",), "val": ("a", "b")}
    write_categories(tmp_path / "predictions.csv", [Categories("a", ("bear",), (1.0,))])
    found = evaluate_categories(category_tables(tmp_path), dataset(truths, parts))
    assert found.without_prediction == ("b",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,class_1\na,bear\na,dog\n", "names a again"),
        ("photo,class_1\na,bear\n", 'without "case"'),
        ("case,class_1\nq,bear\n", "no photograph"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, sentence):
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        evaluate_categories(category_tables(tmp_path), dataset({"a": "bear"}))


def test_folds_lie_in_tables_of_their_own(tmp_path):
    folder = tmp_path / "predictions"
    for number in (0, 1):
        row = Categories(f"p{number}", ("bear",), (1.0,))
        write_categories(folder / f"predictions-fold-{number}.csv", [row])
    assert set(read_categories(category_tables(tmp_path))) == {"p0", "p1"}
