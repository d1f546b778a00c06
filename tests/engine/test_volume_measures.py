"""What a label table makes of volumes, and how far they may be off."""

import math

import pytest

from voxseg.engine.outcomes import UNKNOWN, Uncertainty
from voxseg.engine.volume_intervals import HeldOut, uncertainty_of
from voxseg.engine.volume_measures import INTRACRANIAL, Measure, measures_of
from voxseg.export.label_files import read_label_table
from voxseg.export.labels import Label, LabelTable


def table(*rows):
    """A table of labels 1, 2, ...: name, structure, side, whether it is intracranial."""
    labels = tuple(
        Label(value=n, name=name, colour=(n, n, n), structure=structure, side=side,
              is_intracranial=inside)
        for n, (name, structure, side, inside) in enumerate(rows, 1)
    )  # fmt: skip
    return LabelTable(labels=labels)


def figures(made, ml):
    return {one.name: (one.kind, one.value(ml), one.unit) for one in measures_of(made)}


def test_sides_of_a_structure_in_parts():
    made = table(
        ("left head", "hippocampus", "left", False),
        ("left tail", "hippocampus", "left", False),
        ("right whole", "hippocampus", "right", False),
        ("tumour", "", "", False),
    )
    assert figures(made, {1: 2.0, 2: 1.0, 3: 2.0, 4: 9.0}) == {
        "left hippocampus": ("structure", 3.0, "ml"),
        "hippocampus": ("structure", 5.0, "ml"),
        "hippocampus, left minus right": ("difference", 1.0, "ml"),
        "hippocampus, asymmetry": ("asymmetry", 40.0, "%"),
    }


def test_one_side_alone_and_one_class_alone_are_not_set_against_anything():
    made = table(
        ("left head", "hippocampus", "left", False),
        ("left tail", "hippocampus", "left", False),
        ("lesion", "lesion", "", False),
    )
    assert figures(made, {1: 2.0, 2: 1.0}) == {"hippocampus": ("structure", 3.0, "ml")}


def test_what_ships_for_the_hippocampus_and_for_tissues():
    hippocampus = figures(read_label_table("msd-hippocampus"), {1: 1.5, 2: 1.25})
    assert hippocampus == {"hippocampus": ("structure", 2.75, "ml")}
    assert figures(read_label_table("ibsr-tissues"), {1: 50.0, 2: 600.0, 3: 350.0}) == {
        INTRACRANIAL: ("intracranial", 1000.0, "ml"),
        "cerebrospinal fluid, share of intracranial": ("fraction", 5.0, "%"),
        "grey matter, share of intracranial": ("fraction", 60.0, "%"),
        "white matter, share of intracranial": ("fraction", 35.0, "%"),
    }


def test_shares_of_nothing_are_undefined():
    found = [one.value({}) for one in measures_of(read_label_table("ibsr-tissues"))]
    assert found[0] == 0
    assert all(map(math.isnan, found[1:]))


HELD_OUT = HeldOut(
    predicted=({1: 1.0, 2: 2.0}, {1: 1.0, 2: 1.0}, {1: 2.0, 2: 1.0}),
    true=({1: 1.5, 2: 1.5}, {1: 2.0, 2: 2.0}, {1: 2.0, 2: 1.0}),
    labels=frozenset({1, 2}),
)
CLASS = Measure("class", "one", (1,))
SUM = Measure("structure", "both", (1, 2))
LEFT_RIGHT = Measure("difference", "left minus right", (1,), (2,))


def test_the_interval_is_of_the_figure_itself():
    one = uncertainty_of(CLASS, 4.0, HELD_OUT, ())  # ratios 1.5, 2, 1
    assert one == Uncertainty("conformal", 4.0, pytest.approx(8.0), 0.5, 3, 0, one.bias_percent)
    assert one.bias_percent == pytest.approx(100 * (1 / 1.5 - 1))
    both = uncertainty_of(SUM, 4.0, HELD_OUT, ())  # 1, 2, 1
    assert (both.low, both.high, both.bias_percent) == (4.0, pytest.approx(8.0), 0.0)
    sides = uncertainty_of(LEFT_RIGHT, 0.0, HELD_OUT, ())  # -1 to 0, 0 to 0, 1 to 1
    assert (sides.low, sides.high, sides.bias_percent) == (0.0, 1.0, None)


def test_members_give_a_range_where_there_is_no_interval():
    members = ({1: 1.0, 2: 3.0}, {1: 2.0, 2: 1.0})
    assert uncertainty_of(SUM, 3.5, None, members) == Uncertainty("members", 3.0, 4.0, members=2)
    few = HeldOut(HELD_OUT.predicted[:2], HELD_OUT.true[:2], HELD_OUT.labels)
    found = uncertainty_of(CLASS, 1.5, few, members)
    assert (found.interval, found.low, found.high, found.level) == ("members", 1.0, 2.0, None)
    assert (found.held_out_cases, found.members) == (2, 2)  # of the bias, of the range
    assert found.bias_percent == pytest.approx(100 * ((2 / 3 + 1 / 2) / 2 - 1))


def test_unknown_is_said_to_be_unknown():
    assert uncertainty_of(CLASS, 1.5, None, ({1: 1.5},)) == UNKNOWN
    assert uncertainty_of(Measure("class", "three", (3,)), 1.5, HELD_OUT, ()) == UNKNOWN
