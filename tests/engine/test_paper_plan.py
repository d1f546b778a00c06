"""How a budget is shared out, by speeds that are made up."""

from dataclasses import replace
from pathlib import Path

import pytest

from voxseg.engine.paper_plan import (
    SMALLEST_UPDATES,
    Costs,
    Facts,
    Plan,
    Speed,
    check_facts,
    choose_rows,
    reaches_further,
    read_plan,
)
from voxseg.engine.paper_rows import PARTITIONS, Row, all_rows, blocks
from voxseg.errors import DataError, UsageError

SIZES = {name: one.size_mm for name, one in PARTITIONS.items()}
FACTS = Facts(
    budget_minutes=10, folds=3, seed=0, wanted=[], settings={"train": {"epochs": 2}},
    calibrate=False, split_hash="ab", data={"a": {"a.nii": "12"}}, version="0.1.0", git_commit="c",
)  # fmt: skip


def speeds(*networks):
    """One second an update, and nothing else."""
    return {network: {"V0": Speed(1, 0, 0), "V3": Speed(2, 0, 0)} for network in networks}


def costs(*networks, done=None):
    recipes = {}
    for row in all_rows():
        train = row.settings(SIZES)["train"]
        recipes[row.name] = (train["epochs"], train["steps_per_epoch"])
    return Costs(
        speeds=speeds(*networks), recipes=recipes, folds=3, cases=10, done=done or {}
    )  # fmt: skip


def seconds(rows):
    return sum(one.seconds for one in rows)


FIRST = [row.name for row in blocks()[0]]
WHOLE = 1.1 * 3 * (3000 + 1500 + 2 * 2 * 1500)  # of the first block, with all the recipes' updates


def test_with_plenty_every_row_has_its_recipe_and_no_more():
    rows = choose_rows(blocks(), costs("reduced8", "reduced4", "full"), 1e9)
    assert [one.row for one in rows] == [row.name for row in all_rows()]
    assert (rows[0].updates, rows[1].updates, rows[2].updates) == (3000, 1500, 1500)
    assert next(one for one in rows if one.row == "full-v0").updates == 20_000


def test_a_block_that_would_be_trained_by_too_few_updates_is_not_begun():
    known = costs("reduced8", "reduced4")
    rows = choose_rows(blocks(), known, WHOLE)
    assert [one.row for one in rows] == FIRST
    assert [one.updates for one in rows] == [3000, 1500, 1500, 1500]
    assert not reaches_further(blocks(), costs("reduced8"), 0.4 * WHOLE)
    assert reaches_further(blocks(), costs("reduced8"), 10 * WHOLE)
    rows = choose_rows(blocks(), known, 1.3 * WHOLE)
    assert [one.row for one in rows] == [*FIRST, *(row.name for row in blocks()[1])]
    assert rows[0].updates < 3000


@pytest.mark.parametrize("share", [0.11, 0.3, 0.9, 1.7])
def test_the_plan_fits_the_budget_and_shares_are_even(share):
    rows = choose_rows(blocks(), costs("reduced8", "reduced4"), share * WHOLE)
    assert 0.8 * min(share, 1) * WHOLE <= seconds(rows) <= share * WHOLE
    by_name = {one.row: one.updates for one in rows}
    # Control and fine-tuned networks are trained equally long.
    assert by_name["reduced8-control"] == by_name["reduced8-v3-slic-large"]


def test_v4_costs_what_it_was_seen_to_take():
    known = costs("reduced8")
    row = Row("reduced8", "V4", "slic-large")
    like_v3 = known.planned(row, 1.0).seconds
    known.speeds["reduced8"]["V4"] = Speed(6, 0, 0)
    assert known.planned(row, 1.0).seconds == 3 * like_v3
    assert known.planned(Row("reduced8", "V2", "slic-large"), 1.0).seconds == like_v3


def test_a_small_budget_has_fewer_rows_with_the_fewest_updates():
    rows = choose_rows(blocks(), costs("reduced8"), 1.1 * 3 * (100 + 100) + 1)
    assert [(one.row, one.updates) for one in rows] == [
        ("reduced8-v0", 100),
        ("reduced8-control", 100),
    ]
    assert all(one.updates >= SMALLEST_UPDATES for one in rows)


def test_a_budget_below_one_row_says_the_smallest_that_is_not():
    with pytest.raises(UsageError, match=r"reduced8-v0 with 100 updates.* takes 5\.5 minutes"):
        choose_rows(blocks(), costs("reduced8"), 300)
    assert len(choose_rows(blocks(), costs("reduced8"), 5.5 * 60)) == 1
    with pytest.raises(UsageError, match=r"takes 6\.5 minutes here"):
        choose_rows(blocks(), costs("reduced8"), 5.5 * 60, 60)


def test_finished_rows_cost_nothing_and_decide_for_their_network():
    done = {"reduced8-v0": 700, "reduced8-control": 400}
    rows = choose_rows(blocks()[:1], costs("reduced8", done=done), 1e9)
    assert [(one.row, one.updates) for one in rows] == [
        ("reduced8-v0", 700),
        ("reduced8-control", 400),
        ("reduced8-v3-slic-large", 400),
        ("reduced8-v3-block-large", 400),
    ]
    assert seconds(rows) == pytest.approx(1.1 * 3 * 2 * 800)


def test_rows_of_a_network_that_was_not_probed_are_out_of_reach():
    asked = ((Row("reduced8", "V0"), Row("full", "V0")),)
    rows = choose_rows(asked, costs("reduced8"), 1e9)
    assert [one.row for one in rows] == ["reduced8-v0"]


def test_no_row_wanted_is_refused():
    with pytest.raises(UsageError, match="no row was wanted"):
        choose_rows((), costs("reduced8"), 1e9)


def test_a_plan_is_read_as_it_was_written(tmp_path, validate):
    path = tmp_path / "plan.json"
    rows = choose_rows(blocks(), costs("reduced8"), WHOLE)
    plan = Plan(
        facts=FACTS, device={"type": "cpu"}, sizes=SIZES, speeds=speeds("reduced8"), rows=rows
    )
    plan.write(path)
    validate(path.read_text())
    assert read_plan(path) == plan


def test_a_damaged_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text('{"schema": "voxseg.ibsr-plan/2"}')
    with pytest.raises(DataError, match="newer"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": {}}, DataError, "made for other data"),
        ({"split_hash": "cd"}, DataError, "made for another split"),
        ({"version": "0.2.0"}, UsageError, "with voxseg 0.1.0, and this is 0.2.0"),
        ({"git_commit": ""}, UsageError, "with commit c, and this is unknown"),
        ({"budget_minutes": 20}, UsageError, "budget minutes 10, asked for 20"),
        ({"settings": {}}, UsageError, "settings"),
        ({"seed": 1}, UsageError, "seed 0, asked for 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_conditions_than_the_plans_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        check_facts(Path("plan.json"), FACTS, replace(FACTS, **change))


def test_the_same_conditions_pass():
    check_facts(Path("plan.json"), FACTS, replace(FACTS))


def test_the_most_telling_rows_come_first():
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names) == 36
    assert FIRST == [
        "reduced8-v0",
        "reduced8-control",
        "reduced8-v3-slic-large",
        "reduced8-v3-block-large",
    ]
    assert [block[0].network for block in blocks()[:6:2]] == ["reduced8", "reduced4", "full"]
    designs = [block[0].design for block in blocks()]
    assert designs == ["V0", "V4"] * 3 + ["V1", "V2"] * 3 + ["V3"] * 3
    assert Row("full", "V3", "block-fine").recipe == "ibsr-full-v3-block"
