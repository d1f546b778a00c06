"""Assignment of least cost against every possible one, and against SciPy's dense solver."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from voxseg.ops.cpu.assignment import Pairs, assign, near_pairs

FORBIDDEN = 10**9


def sparse(costs):
    """Candidates of a dense table (R, C), where ``FORBIDDEN`` is no candidate."""
    first, columns, prices = [0], [], []
    for row in costs:
        order = [column for column in np.argsort(row, kind="stable") if row[column] < FORBIDDEN]
        columns += order
        prices += [row[column] for column in order]
        first.append(len(columns))
    return Pairs(*(np.array(one, np.int32) for one in (first, columns)), np.array(prices, np.int64))


def total(costs, column_of, unmatched_cost):
    """Cost of an assignment, which must be one-to-one."""
    taken = [column for column in column_of if column >= 0]
    assert len(taken) == len(set(taken))
    return sum(
        unmatched_cost if column < 0 else int(costs[row, column])
        for row, column in enumerate(column_of)
    )


def best_of_all(costs, unmatched_cost):
    """Try every assignment."""
    num_rows, num_columns = costs.shape
    options = [*range(num_columns), *[-1] * num_rows]
    return min(
        total(costs, choice, unmatched_cost)
        for choice in set(itertools.permutations(options, num_rows))
    )


def dense_total(costs, unmatched_cost):
    """Least cost by SciPy: every row gets a column of its own at ``unmatched_cost``."""
    own = np.full((len(costs), len(costs)), FORBIDDEN)
    np.fill_diagonal(own, unmatched_cost)
    whole = np.hstack([costs, own])
    rows, columns = linear_sum_assignment(whole)
    return int(whole[rows, columns].sum())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_assign_matches_every_possible_one(data):
    num_rows, num_columns = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    cost = st.one_of(st.integers(0, 9), st.just(FORBIDDEN))
    table = [[data.draw(cost) for _ in range(num_columns)] for _ in range(num_rows)]
    costs, unmatched = np.array(table), data.draw(st.integers(1, 12))
    found = assign(sparse(costs), num_columns, unmatched)
    assert total(costs, found.tolist(), unmatched) == best_of_all(costs, unmatched)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("num_rows", "num_columns"), [(40, 41), (63, 30), (17, 80)])
def test_assign_matches_scipy(num_rows, num_columns, seed):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 435, (num_rows, num_columns))
    costs[rng.random(costs.shape) < rng.uniform(0.5, 0.98)] = FORBIDDEN
    unmatched = int(rng.choice([50, 400, 43_400]))
    found = assign(sparse(costs), num_columns, unmatched)
    assert total(costs, found.tolist(), unmatched) == dense_total(costs, unmatched)


def test_a_long_chain_moves_up_for_one_more_row():
    """Row k may take column k at no cost, or k + 1 at cost 1; the last row only the first column.

    All rows but the last move up if that costs less than leaving one row out.
    """
    length = 300
    costs = np.full((length, length), FORBIDDEN)
    for row in range(length - 1):
        costs[row, row], costs[row, row + 1] = 0, 1
    costs[-1, 0] = 0
    moved = assign(sparse(costs), length, length)
    assert moved.tolist() == [*range(1, length), 0]
    stayed = assign(sparse(costs), length, length - 2)
    assert stayed.tolist() == [*range(length - 1), -1]


def test_same_assignment_on_every_run():
    costs = np.random.default_rng(0).integers(0, 3, (60, 50))  # many equal ones
    runs = {tuple(assign(sparse(costs), 50, 100).tolist()) for _ in range(3)}
    assert len(runs) == 1


def test_nothing_to_pair():
    empty = Pairs(np.zeros(4, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))
    assert assign(empty, 0, 5).tolist() == [-1, -1, -1]
    assert assign(Pairs(np.zeros(1, np.int32), *empty[1:]), 3, 5).tolist() == []


def test_near_pairs_by_hand():
    index = np.full((3, 4), -1, np.int32)
    index[0, 0], index[1, 1], index[2, 3] = 0, 1, 2
    steps = np.array([(0, 0), (0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1)], np.int32)
    costs = np.array([0, 10, 10, 10, 10, 14], np.int64)
    pairs = near_pairs(np.array([(1, 1), (0, 0), (0, 3), (2, 2)], np.int32), index, steps, costs)
    assert pairs.first.tolist() == [0, 2, 3, 3, 5]
    assert pairs.columns.tolist() == [1, 0, 0, 2, 1]
    assert pairs.costs.tolist() == [0, 14, 0, 10, 14]
