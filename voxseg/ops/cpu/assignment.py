"""Assignment of least cost between two sets of pixels, of which only near ones may be paired.

Source: shortest augmenting paths with prices, Jonker and Volgenant, *A shortest augmenting path
algorithm for dense and sparse linear assignment problems*, Computing 38, 1987,
doi:10.1007/BF02278710. A row takes one column or none; none costs ``unmatched_cost``, as if every
row had a column of its own at that price.

Costs are whole numbers: sums are exact, and which of several best solutions is found depends on the
order of rows and columns alone. A search ends at the first free column, so it stays near its row;
where a region has no free column left, prices rise to ``unmatched_cost`` and later searches there
end at once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxseg.ops.jit import kernel

Indices = NDArray[np.int32]
Costs = NDArray[np.int64]

_HEAP, _REACHED, _DONE = 0, 1, 2  # places in ``_Search.counts``


class Pairs(NamedTuple):
    """Which columns each row may take, and at what cost.

    Attributes:
        first: (R + 1,) where the candidates of each row begin in the next two.
        columns: (E,) by rising cost in each row.
        costs: (E,) not negative.
    """

    first: Indices
    columns: Indices
    costs: Costs


class _Matching(NamedTuple):
    """Who has whom, and prices under which no pair is cheaper than free and taken ones are free."""

    column_of: Indices  # (R,) -1 for none
    row_of: Indices  # (C,) -1 for none
    row_price: Costs
    column_price: Costs


class _Search(NamedTuple):
    """Memory of a search for the cheapest way to serve one more row."""

    distance: Costs  # (C,) to each column, -1 where it was not reached
    via: Indices  # (C,) the row that it was reached from
    reached: Indices  # columns
    done: Indices  # columns that were passed through, in that order
    heap_distance: Costs
    heap_column: Indices
    counts: Indices  # (3,) used places of the heap, of ``reached`` and of ``done``


@kernel()
def near_pairs(places: Indices, index: Indices, steps: Indices, costs: Costs) -> Pairs:
    """List the columns near each row.

    Args:
        places: (R, 2) y and x of every row.
        index: (H, W) the column at each pixel, -1 for none.
        steps: (N, 2) in y and x, how far a pair may be apart, by rising cost.
        costs: (N,) of each step.
    """
    height, width = index.shape
    first = np.zeros(places.shape[0] + 1, np.int32)
    for row in range(places.shape[0]):
        count = 0
        for step in range(steps.shape[0]):
            y, x = places[row, 0] + steps[step, 0], places[row, 1] + steps[step, 1]
            if 0 <= y < height and 0 <= x < width and index[y, x] >= 0:
                count += 1
        first[row + 1] = first[row] + count
    columns, prices = np.empty(first[-1], np.int32), np.empty(first[-1], np.int64)
    at = 0
    for row in range(places.shape[0]):
        for step in range(steps.shape[0]):
            y, x = places[row, 0] + steps[step, 0], places[row, 1] + steps[step, 1]
            if 0 <= y < height and 0 <= x < width and index[y, x] >= 0:
                columns[at] = index[y, x]
                prices[at] = costs[step]
                at += 1
    return Pairs(first, columns, prices)


@kernel()
def assign(pairs: Pairs, num_columns: int, unmatched_cost: int) -> Indices:
    """Pair rows with columns so that the sum of costs is least.

    Args:
        pairs: Candidates.
        num_columns: C.
        unmatched_cost: Of a row without column; positive.

    Returns:
        (R,) the column of each row, -1 for none.
    """
    num_rows, num_pairs = pairs.first.size - 1, pairs.columns.size
    matching = _Matching(
        np.full(num_rows, -1, np.int32),
        np.full(num_columns, -1, np.int32),
        np.zeros(num_rows, np.int64),
        np.zeros(num_columns, np.int64),
    )
    search = _Search(
        np.full(num_columns, -1, np.int64),
        np.empty(num_columns, np.int32),
        np.empty(num_columns, np.int32),
        np.empty(num_columns, np.int32),
        np.empty(num_pairs, np.int64),
        np.empty(num_pairs, np.int32),
        np.zeros(3, np.int32),
    )
    for row in _take_free(pairs, matching, unmatched_cost):
        distance, column, loser = _find_end(pairs, matching, search, row, unmatched_cost)
        _raise_prices(matching, search, row, distance)
        if column < 0 and loser != row:  # another row goes without, and its column serves this one
            column = matching.column_of[loser]
            matching.column_of[loser] = -1
        _pass_on(matching, search, column)
        for at in range(search.counts[_REACHED]):
            search.distance[search.reached[at]] = -1
        search.counts[:] = 0
    return matching.column_of


@kernel()
def _take_free(pairs: Pairs, matching: _Matching, unmatched_cost: int) -> Indices:
    """Let each row take its cheapest column where nobody has; return the rows that got none."""
    open_rows = np.empty(pairs.first.size - 1, np.int32)
    count = 0
    for row in range(open_rows.size):
        at = pairs.first[row]
        if at == pairs.first[row + 1]:
            continue
        column, cost = pairs.columns[at], pairs.costs[at]
        matching.row_price[row] = min(cost, unmatched_cost)
        if cost < unmatched_cost and matching.row_of[column] < 0:
            matching.row_of[column] = row
            matching.column_of[row] = column
        else:
            open_rows[count] = row
            count += 1
    return open_rows[:count]


@kernel()
def _find_end(
    pairs: Pairs, matching: _Matching, search: _Search, source: int, unmatched_cost: int
) -> tuple[int, int, int]:
    """Find the cheapest end of a path from a row: a free column, or a row that goes without.

    Returns:
        The length of the path beyond the prices; the free column, or -1; the row that goes without.
    """
    best, end, loser = unmatched_cost - matching.row_price[source], -1, source
    row, passed = source, np.int64(0)
    while True:
        for at in range(pairs.first[row], pairs.first[row + 1]):
            column = pairs.columns[at]
            price = matching.row_price[row] + matching.column_price[column]
            distance, known = passed + pairs.costs[at] - price, search.distance[column]
            if distance >= best or (0 <= known <= distance):
                continue
            if known < 0:
                search.reached[search.counts[_REACHED]] = column
                search.counts[_REACHED] += 1
            search.distance[column] = distance
            search.via[column] = row
            if matching.row_of[column] < 0:
                best, end = distance, column
            else:
                _push(search, distance, column)
        column = _pop(search, best)
        if column < 0:
            return best, end, loser
        search.done[search.counts[_DONE]] = column
        search.counts[_DONE] += 1
        row, passed = matching.row_of[column], search.distance[column]
        given_up = passed + unmatched_cost - matching.row_price[row]
        if given_up < best:
            best, end, loser = given_up, -1, row


@kernel()
def _raise_prices(matching: _Matching, search: _Search, source: int, distance: int) -> None:
    """Make the path that was found free, and nothing cheaper than that."""
    matching.row_price[source] += distance
    for at in range(search.counts[_DONE]):
        column = search.done[at]
        slack = distance - search.distance[column]
        matching.row_price[matching.row_of[column]] += slack
        matching.column_price[column] -= slack


@kernel()
def _pass_on(matching: _Matching, search: _Search, column: int) -> None:
    """Give a column to the row that it was reached from, that row's to the one before it, ..."""
    while column >= 0:
        row = search.via[column]
        before = matching.column_of[row]
        matching.column_of[row] = column
        matching.row_of[column] = row
        column = before


@kernel()
def _push(search: _Search, distance: int, column: int) -> None:
    """Put a column on the heap."""
    at = search.counts[_HEAP]
    search.counts[_HEAP] += 1
    while at > 0 and search.heap_distance[(at - 1) >> 1] > distance:
        parent = (at - 1) >> 1
        search.heap_distance[at] = search.heap_distance[parent]
        search.heap_column[at] = search.heap_column[parent]
        at = parent
    search.heap_distance[at] = distance
    search.heap_column[at] = column


@kernel()
def _pop(search: _Search, limit: int) -> int:
    """Take the nearest column from the heap; -1 if none is nearer than ``limit``."""
    while search.counts[_HEAP] > 0 and search.heap_distance[0] < limit:
        distance, column = search.heap_distance[0], search.heap_column[0]
        search.counts[_HEAP] -= 1
        size = search.counts[_HEAP]
        last, at = search.heap_distance[size], 0
        while 2 * at + 1 < size:
            child = 2 * at + 1
            if child + 1 < size and search.heap_distance[child + 1] < search.heap_distance[child]:
                child += 1
            if search.heap_distance[child] >= last:
                break
            search.heap_distance[at] = search.heap_distance[child]
            search.heap_column[at] = search.heap_column[child]
            at = child
        search.heap_distance[at] = last
        search.heap_column[at] = search.heap_column[size]
        if distance == search.distance[column]:  # else it was reached on a shorter way since
            return int(column)
    return -1
