"""The paper's tables beside ours: scores, paired differences, and sentences made from both.

Differences are those of ``voxseg compare``: of each design of each network against the baseline V0,
and against the control, which was trained as long; of V4 also against V3 on the same supervoxels.
Holm's correction is over all classes and partitions of one design against one of the two: each is
one claim. (Over all designs at once, ten cases could not show anything: the smallest p of a
sign-flip test with ten is 2 / 2**10.)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from voxseg.documents import document
from voxseg.engine.compare import CompareSettings, compare
from voxseg.engine.paper_rows import NETWORKS, PAPER, PARTITIONS, Design, Row, all_rows
from voxseg.engine.paper_runs import FinishedRow
from voxseg.metrics.summary import FOREGROUND
from voxseg.schemas import IBSR_TABLES

Reference = Literal["V0", "control", "V3"]
REFERENCES: tuple[Reference, ...] = ("V0", "control", "V3")
_OF_NETWORK: tuple[Literal["V0", "control"], ...] = ("V0", "control")
"""What all rows of a network are compared with."""
_WORDS = {
    "V0": "the baseline",
    "control": "the control (the baseline trained on)",
    "V3": "V3 on the same supervoxels",
}
_SHORT = {"V0": "the baseline", "control": "the control", "V3": "V3"}
_CLAIMS: dict[Design, str] = {
    "V3": "the claim that V3 lifts Dice",
    "V4": "that V4, voxseg's own, lifts Dice",
}


@dataclass(frozen=True)
class Difference:
    """One class, or the foreground mean, of a row against a row of its network."""

    row: str
    against: str
    reference: Reference
    class_name: str
    label: int | None
    """None for the mean."""
    difference: float
    """In Dice, positive where the row is better; NaN where there is none."""
    low: float
    high: float
    p_holm: float
    cases: int
    verdict: str
    """Of ``voxseg compare``: better, worse, inconclusive, too few cases."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Everything that the page says."""

    facts: Mapping[str, Any]
    """What all rows share: folds, seed, split_hash, device, versions."""
    finished: Mapping[str, FinishedRow]
    differences: tuple[Difference, ...]
    seconds: Mapping[str, float]
    """Row -> seconds of a prediction, from file to file, on the device of ``facts``."""
    notes: tuple[str, ...]

    def mean_difference(self, row: str, reference: Reference) -> Difference | None:
        """The foreground mean's difference, where both rows are there."""
        return next(
            (
                one
                for one in self.differences
                if one.row == row and one.reference == reference and one.label is None
            ),
            None,
        )

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Sentences that follow from the numbers, whatever they are."""
        return conclude(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; an undefined number is NaN, which becomes null in JSON."""
        differences = [asdict(one) for one in self.differences]
        for one in differences:
            one["class"] = one.pop("class_name")
        content = {
            **self.facts,
            "rows": [self._row(row) for row in all_rows()],
            "differences": differences,
            "conclusions": list(self.conclusions),
            "notes": list(self.notes),
        }
        return document(IBSR_TABLES, content)

    def _row(self, row: Row) -> dict[str, Any]:
        found = self.finished.get(row.name)
        plain: dict[str, Any] = {
            "row": row.name,
            "network": row.network,
            "design": row.design,
            "partition": row.partition,
            "finished": found is not None,
            "paper_dice_percent": PAPER.get(row.name, {}),
            "paper_oracle_percent": PARTITIONS[row.partition].oracle if row.partition else None,
        }
        if found is None:
            return plain
        return plain | {
            "size_mm": found.size_mm,
            "updates": found.updates,
            "cases": found.cases,
            "device": found.device,
            "git_commit": found.git_commit,
            "seconds_per_volume": self.seconds.get(row.name),
            "dice": [
                {"class": s.name, "label": s.label, "mean": s.mean, "sd": s.deviation}
                for s in found.scores
            ],
            "notes": list(found.notes),
        }


def make_tables(
    finished: Mapping[str, FinishedRow], facts: Mapping[str, Any], seconds: Mapping[str, float]
) -> Tables:
    """Compare the finished rows.

    Args:
        finished: rows by their names, under the same conditions.
        facts: what all rows share.
        seconds: row -> seconds of a prediction, as far as it was measured.
    """
    marked = {name: mark_length(one, finished) for name, one in finished.items()}
    differences: list[Difference] = []
    for network in NETWORKS:
        for reference in _OF_NETWORK:
            base = marked.get(Row(network, reference).name)
            if base is not None:
                differences += _against(base, reference, marked)
    for one in marked.values():
        v3 = marked.get(Row(one.row.network, "V3", one.row.partition).name)
        if one.row.design == "V4" and v3 is not None:
            differences += _family(v3, "V3", [one])
    notes = [f"{row}: {note}" for row, one in marked.items() for note in one.notes]
    commits = sorted({one.git_commit or "unknown" for one in marked.values()})
    if len(commits) > 1:
        notes.append(f"rows were made at different commits: {', '.join(commits)}")
    notes += _disagreements()
    return Tables(
        facts=facts,
        finished=marked,
        differences=tuple(differences),
        seconds=seconds,
        notes=tuple(notes),
    )


def conclude(tables: Tables) -> tuple[str, ...]:
    """Say what the numbers say: of the paper's claim about V3, of V4, and of each row."""
    if not tables.finished:
        return ("No row is finished.",)
    claims = []
    for design in _CLAIMS:
        for reference in REFERENCES:
            verdicts = [
                found.verdict
                for row in all_rows()
                if row.design == design and (found := tables.mean_difference(row.name, reference))
            ]
            if verdicts:
                claims.append(_of_claim(verdicts, design, reference))
    if not any(one.row.design == "V3" for one in tables.finished.values()):
        claims.append("No V3 row is finished, so nothing is said of the paper's claim.")
    rows = [
        _of_row(tables, row)
        for row in all_rows()
        if row.name in tables.finished and row.design != "V0"
    ]
    return (*claims, *rows)


def _of_claim(verdicts: Sequence[str], design: Design, reference: Reference) -> str:
    counts = {word: verdicts.count(word) for word in dict.fromkeys(verdicts)}
    counted = ", ".join(f"{word} in {count}" for word, count in counts.items())
    better, worse = counts.get("better", 0), counts.get("worse", 0)
    if better == len(verdicts):
        meaning = "is shown in every row here"
    elif better and worse:
        meaning = "is shown in some rows here, and the opposite in others"
    elif better:
        meaning = "is shown in some rows here, and not in others"
    elif worse:
        where = "every row" if worse == len(verdicts) else "some rows"
        meaning = f"does not hold here: the opposite is shown in {where}"
    else:
        meaning = "is neither shown nor refuted here"
    rows = "1 row" if len(verdicts) == 1 else f"{len(verdicts)} rows"
    against = f"{design} against {_WORDS[reference]}"
    return f"{against}: {counted} of {rows}; {_CLAIMS[design]} {meaning}."


def _of_row(tables: Tables, row: Row) -> str:
    parts = []
    for reference in REFERENCES:
        found = tables.mean_difference(row.name, reference)
        if found is not None:
            parts.append(
                f"{100 * found.difference:+.1f} points against {_SHORT[reference]} "
                f"({found.verdict}{_p_text(found.p_holm)})"
            )
    dice = 100 * tables.finished[row.name].foreground
    paper = _paper_gain(row)
    told = f"; the paper has {paper}" if paper else ""
    against = f": {', '.join(parts)}" if parts else ", with no finished row to compare with"
    return f"{row.title}: mean foreground Dice {dice:.1f}%{against}{told}."


def _paper_gain(row: Row) -> str:
    base = PAPER[f"{row.network}-v0"]["1"]
    found = PAPER.get(row.name, {})
    # A row of both tables has one number.
    gains = dict.fromkeys(f"{value - base:+.1f}" for value in found.values())
    tables = " and ".join(found)
    where = f"Table{'s' if len(found) > 1 else ''} {tables}"
    return f"{' and '.join(gains)} points over its baseline ({where})" if found else ""


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return ", Holm p < 0.001" if p < 0.001 else f", Holm p {p:.3f}"


def mark_length(one: FinishedRow, finished: Mapping[str, FinishedRow]) -> FinishedRow:
    """Say of a row that it was trained longer or shorter than the control."""
    control = finished.get(Row(one.row.network, "control").name)
    if control is None or not one.row.starts_from or one.updates == control.updates:
        return one
    note = f"{one.updates} further updates, and the control {control.updates}"
    return FinishedRow(**{**vars(one), "notes": (*one.notes, note)})


def _against(
    base: FinishedRow, reference: Reference, finished: Mapping[str, FinishedRow]
) -> list[Difference]:
    """Compare the rows of a network with one of it, a design at a time."""
    others = [
        one
        for one in finished.values()
        if one.row.network == base.row.network and one.row.design not in ("V0", reference)
    ]
    found: list[Difference] = []
    for design in dict.fromkeys(one.row.design for one in others):
        members = [one for one in others if one.row.design == design]
        found += _family(base, reference, members)
    return found


def _family(
    base: FinishedRow, reference: Reference, members: Sequence[FinishedRow]
) -> list[Difference]:
    settings = CompareSettings(metric="dice")
    folders: list[Path] = [base.folder, *(one.folder for one in members)]
    comparison = compare(folders, settings)
    names = dict(zip((run.name for run in comparison.runs), (base, *members), strict=True))
    return [
        Difference(
            row=names[row.other].row.name,
            against=base.row.name,
            reference=reference,
            class_name=row.name,
            label=row.label,
            difference=row.test.difference,
            low=row.test.low,
            high=row.test.high,
            p_holm=row.p_holm,
            cases=row.test.num_cases,
            verdict=row.verdict,
        )
        for row in comparison.rows
    ]


def _disagreements() -> list[str]:
    """What about the paper has to be known to read the tables."""
    return [
        "The paper does not say whether its mean Dice has the background in it, nor how far "
        "cases lie apart; ours is given with and without.",
        "The paper trained on 12 of 18 subjects in each of 3 folds, and had no control that was "
        "trained on for as long as its supervoxel networks.",
        "Its Table 2 gives Reduced (/8) with BLOCK the same 75.2 as Table 1, under another oracle "
        "(79.6 and 72.7), and the full network other numbers than Table 1 under other oracles.",
        f'"{FOREGROUND}" is the mean over CSF, grey and white matter of a case, then over cases.',
    ]
