"""The rows against the recipes, and the paper's numbers against its text."""

import pytest

from voxseg.engine.config import read_recipe
from voxseg.engine.paper_rows import NETWORKS, PAPER, PARTITIONS, Row, all_rows, blocks

SIZES = {name: one.size_mm for name, one in PARTITIONS.items()}
# arXiv:1806.02705, Table 1 as printed: BLOCK and SLIC for the full network, /4, /8.
TABLE_1 = """
V1 83.4 84.7 71.8 78.3 67.9 73.1
V2 83.8 86.2 66.0 72.2 62.6 68.4
V3 90.2 88.9 82.7 82.3 75.2 76.9
oracle 89.0 91.1 79.6 87.8 72.7 87.8
"""
# Table 2: the baseline, and V3 with BLOCK, SLIC and larger SLIC.
TABLE_2 = """
full 88.0 89.6 88.97 89.9
reduced4 78.9 82.7 82.3 83.3
reduced8 72.2 75.2 76.9 78.9
"""
COLUMNS = (
    ("full", "block-fine"), ("full", "slic-fine"), ("reduced4", "block-middle"),
    ("reduced4", "slic-large"), ("reduced8", "block-large"), ("reduced8", "slic-large"),
)  # fmt: skip


def printed(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return {row[0]: [float(cell) for cell in row[1:]] for row in rows}


def test_table_1_is_the_papers():
    table = printed(TABLE_1)
    for design in ("V1", "V2", "V3"):
        for (network, partition), dice in zip(COLUMNS, table[design], strict=True):
            assert PAPER[Row(network, design, partition).name]["1"] == dice
    for (_, partition), oracle in zip(COLUMNS, table["oracle"], strict=True):
        assert PARTITIONS[partition].oracle == oracle


def test_table_2_is_the_papers():
    for network, (base, *found) in printed(TABLE_2).items():
        assert PAPER[f"{network}-v0"]["1"] == base
        for partition, dice in zip(
            ("block-middle", "slic-large", "slic-largest"), found, strict=True
        ):
            assert PAPER[Row(network, "V3", partition).name]["2"] == dice


def test_the_paper_has_no_other_numbers():
    assert sum(len(tables) for tables in PAPER.values()) == 3 + 18 + 9
    assert set(PAPER) == {row.name for row in all_rows() if row.design not in ("control", "V4")}


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_a_row_is_its_recipe_with_max_pooling(row):
    settings = row.settings(SIZES)
    assert settings["model"]["design"] == ("V0" if row.design == "control" else row.design)
    assert settings["model"]["reduce"] == "max"
    if row.partition:
        assert settings["supervoxels"]["method"] == PARTITIONS[row.partition].method


@pytest.mark.parametrize("row", [row for block in blocks()[:12] for row in block if row.partition])
def test_partitions_of_table_1_have_the_sizes_of_the_recipes(row):
    assert row.settings(SIZES) == read_recipe(row.recipe)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_control_is_trained_on_as_the_fine_tuned_networks_are(network):
    control = Row(network, "control").settings(SIZES)
    for design in ("V3", "V4"):
        tuned = Row(network, design, "slic-large").settings(SIZES)
        assert control["train"] == tuned["train"]
    assert "supervoxels" not in control
    assert control["model"] == Row(network, "V0").settings(SIZES)["model"]
