"""How many updates each row of the paper's tables gets so that a budget holds.

The plan is made once, from measured speeds, and kept in ``plan.json``; later starts follow it, and
refuse another one. Rows come in blocks that are worth little in part: as many blocks are taken as
fit with at least ``ENOUGH`` of their recipes' updates, and all get the same share, at most one. Of
the first block, rows are taken with less, down to ``SMALLEST_UPDATES`` a fold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxseg.data.case_lists import parse_json
from voxseg.documents import refuse_newer, write_document
from voxseg.engine.paper_rows import Row, all_rows
from voxseg.errors import DataError, UsageError
from voxseg.schemas import IBSR_PLAN

SMALLEST_UPDATES = 60
"""Of a fold; a network that was trained for less says nothing."""
ENOUGH = 0.75
"""Share of the recipes' updates below which no further block is begun."""
_MARGIN = 1.1  # of an estimate: other work on the machine, slower cases
_SHARES = tuple(n / 100 for n in range(100, -1, -1))


@dataclass(frozen=True)
class Speed:
    """What one design of one network takes on this device, from a short probe."""

    update_seconds: float
    fold_seconds: float
    """Before the first update of a fold."""
    case_seconds: float
    """To predict and score a held-out case."""


@dataclass(frozen=True)
class PlannedRow:
    """What a row gets."""

    row: str
    epochs: int
    updates: int
    """Of each fold."""
    seconds: float
    """Estimated, of all folds; 0 for a row that was finished when the plan was made."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What must not change between the starts of one reproduction."""

    budget_minutes: float
    folds: int
    seed: int
    wanted: list[str]
    """Patterns of row names; empty for all."""
    settings: dict[str, Any]
    """Nested tables that lie on every recipe."""
    calibrate: bool
    """Whether sizes were measured here."""
    split_hash: str
    data: dict[str, dict[str, str]]
    """Case -> file name -> content hash."""
    version: str
    """Of voxseg."""
    git_commit: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, and why so long."""

    facts: Facts
    device: Mapping[str, Any]
    sizes: Mapping[str, float]
    """Partition -> edge in mm."""
    speeds: Mapping[str, Mapping[str, Speed]]
    """Network -> design -> speed."""
    rows: tuple[PlannedRow, ...]
    """In the order of training."""

    def write(self, path: Path) -> None:
        """Write ``plan.json``."""
        content = asdict(self)
        facts = content.pop("facts")
        facts["voxseg_version"] = facts.pop("version")
        write_document(path, IBSR_PLAN, facts | content)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What rows take."""

    speeds: Mapping[str, Mapping[str, Speed]]
    recipes: Mapping[str, tuple[int, int]]
    """Row -> epochs of its recipe, and updates of an epoch."""
    folds: int
    cases: int
    done: Mapping[str, int]
    """Finished row -> its updates; they cost nothing more."""

    def epochs(self, row: Row, share: float) -> int:
        """Epochs of a row with ``share`` of its recipe's updates.

        Fine-tuned networks and control of one network are trained equally long, so a finished one
        decides for the others.
        """
        epochs, steps = self.recipes[row.name]
        if row.name in self.done:
            return round(self.done[row.name] / steps)
        if row.starts_from:
            known = [
                updates
                for name, updates in self.done.items()
                if _row(name).starts_from == row.starts_from
            ]
            if known:
                return math.ceil(known[0] / steps)
        return max(math.ceil(SMALLEST_UPDATES / steps), math.floor(share * epochs))

    def planned(self, row: Row, share: float) -> PlannedRow:
        """Estimate a row."""
        epochs = self.epochs(row, share)
        updates = epochs * self.recipes[row.name][1]
        if row.name in self.done:
            return PlannedRow(row.name, epochs, self.done[row.name], 0.0)
        known = self.speeds[row.network]
        kinds = (row.design, "V3") if row.partition else ()
        speed = known[next((kind for kind in kinds if kind in known), "V0")]
        fold = speed.fold_seconds + updates * speed.update_seconds
        seconds = _MARGIN * (self.folds * fold + self.cases * speed.case_seconds)
        return PlannedRow(row.name, epochs, updates, round(seconds, 1))


def choose_rows(
    blocks: Sequence[Sequence[Row]],
    costs: Costs,
    budget_seconds: float,
    spent_seconds: float = 0.0,
) -> tuple[PlannedRow, ...]:
    """Decide which rows are trained, and for how long.

    Args:
        blocks: wanted rows, the most telling first.
        costs: of the networks that were probed; rows of others are out of reach.
        budget_seconds: for everything that is not finished.
        spent_seconds: of it, on finding out what rows cost.

    Raises:
        UsageError: not even the first row fits.
    """
    reached = (
        [row for row in block if row.network in costs.speeds or row.name in costs.done]
        for block in blocks
    )
    known = [block for block in reached if block]
    if not known:
        raise UsageError("no row was wanted; --rows takes patterns of names such as reduced8-*")
    left = budget_seconds - spent_seconds
    for count in range(len(known), 0, -1):
        rows = [row for block in known[:count] for row in block]
        found = _fit(rows, costs, left, [s for s in _SHARES if s >= ENOUGH])
        if found:
            return found
    first = known[0]
    for count in range(len(first), 0, -1):
        found = _fit(first[:count], costs, left, _SHARES)
        if found:
            return found
    smallest = costs.planned(first[0], 0.0)
    needed = math.ceil((smallest.seconds + spent_seconds) / 6) / 10
    raise UsageError(
        f"{budget_seconds / 60:g} minutes are too few for one row: {first[0].name} with "
        f"{smallest.updates} updates a fold takes {needed:g} minutes "
        "here, measuring its speed included; give --budget-minutes at least that"
    )


def reaches_further(blocks: Sequence[Sequence[Row]], costs: Costs, budget_seconds: float) -> bool:
    """Whether the budget leaves anything after all blocks whose networks are known."""
    known = [row for block in blocks for row in block if row.network in costs.speeds]
    return _fit(known, costs, budget_seconds, [ENOUGH]) is not None


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        DataError: it is damaged, or a newer version wrote it.
    """
    content = parse_json(path)
    refuse_newer(content, IBSR_PLAN, path)
    try:
        speeds = {
            network: {design: Speed(**speed) for design, speed in designs.items()}
            for network, designs in content["speeds"].items()
        }
        names = [name for name in Facts.__dataclass_fields__ if name != "version"]
        facts = Facts(**{n: content[n] for n in names}, version=content["voxseg_version"])
        rows = tuple(PlannedRow(**row) for row in content["rows"])
        for planned in rows:
            _row(planned.row)
        return Plan(
            facts=facts, device=content["device"], sizes=content["sizes"], speeds=speeds, rows=rows
        )
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(
            f"{path} is damaged ({error!r}); delete it to plan anew, finished rows are kept"
        ) from None


def check_facts(path: Path, old: Facts, new: Facts) -> None:
    """Refuse to go on under other conditions than those of the plan.

    Raises:
        DataError: data or split are others.
        UsageError: the code, or what was asked for, is another.
    """
    cure = "choose another OUT, so that results are not mixed"
    if old.data != new.data:
        raise DataError(f"{path} was made for other data; {cure}")
    if old.split_hash != new.split_hash:
        raise DataError(f"{path} was made for another split than its split.json; {cure}")
    for name, what in (("version", "voxseg"), ("git_commit", "commit")):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise UsageError(
                f"{path} was made with {what} {before or 'unknown'}, and this is "
                f"{now or 'unknown'}; {cure}, or make the tables of what is there with "
                "--tables-only"
            )
    for name in ("budget_minutes", "folds", "seed", "wanted", "settings", "calibrate"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise UsageError(
                f"{path} was made with {name.replace('_', ' ')} {before}, asked for {now}; give "
                "the same, or delete it to plan anew (finished rows are kept)"
            )


def rows_of(plan: Plan) -> list[tuple[Row, PlannedRow]]:
    """Rows of a plan with what they get."""
    return [(_row(planned.row), planned) for planned in plan.rows]


def _fit(
    rows: Sequence[Row], costs: Costs, budget_seconds: float, shares: Sequence[float]
) -> tuple[PlannedRow, ...] | None:
    """The largest of falling ``shares`` with which all rows fit."""
    for share in shares:
        planned = tuple(costs.planned(row, share) for row in rows)
        if sum(one.seconds for one in planned) <= budget_seconds:
            return planned
    return None


def _row(name: str) -> Row:
    return next(row for row in all_rows() if row.name == name)
