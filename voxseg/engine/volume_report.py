"""What pages say about volumes: of all cases, of one, and how far those of new cases may be off."""

from collections.abc import Iterable, Mapping, Sequence

from voxseg.engine.evaluate import BACKGROUND, Evaluation
from voxseg.engine.outcomes import DISCLAIMER, Uncertainty, Unit
from voxseg.engine.report_facts import Outcome
from voxseg.engine.volume_words import (
    bias_sentence,
    interval_sentences,
    interval_words,
    percent,
    shown,
    with_interval,
)
from voxseg.export.report_parts import ReportLink, ReportTable
from voxseg.metrics.summary import in_cases
from voxseg.metrics.volumes import bias_percent, conformal_interval

_MOST_COLUMNS = 12  # classes with a column of their own
_ODD = (
    "Odd: far from the other cases, by the rule of voxseg check (5 robust standard deviations of "
    "the logarithm)."
)


def paragraphs(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Say what belongs before volumes: what the label table says, and what they are not for."""
    notes = dict.fromkeys(one.note for one in outcomes if one.note)
    return (*notes, DISCLAIMER)


def outside_warnings(outcomes: Iterable[Outcome]) -> list[str]:
    """Say which classes have volumes where no true one is expected, which tells of a bias."""
    found: dict[str, list[tuple[str, Uncertainty]]] = {}
    for one in outcomes:
        for volume in one.volumes:
            if _is_outside(volume.ml, volume.uncertainty):
                found.setdefault(volume.name, []).append((one.case_id, volume.uncertainty))
    return [
        f"{name} has a volume outside its own interval in {in_cases(len(cases))} "
        f"({', '.join(case for case, _ in cases[:5])}), for the networks are biased: "
        + bias_sentence([(name, known) for _, known in cases])
        for name, cases in found.items()
    ]


def volume_table(
    outcomes: Sequence[Outcome], anchors: Mapping[str, str], odd: Mapping[str, str]
) -> ReportTable:
    """Volumes of every case, with their intervals, odd ones first."""
    every = list(dict.fromkeys(v.name for one in outcomes for v in one.volumes))
    names = every[:_MOST_COLUMNS]
    rows = []
    for one in _ordered(outcomes, odd):
        by_name = {volume.name: volume for volume in one.volumes}
        cells: list[str | ReportLink] = [ReportLink(one.case_id, anchors.get(one.case_id, ""))]
        found = [by_name.get(name) for name in names]
        cells += ["-" if v is None else with_interval(v.ml, v.uncertainty) for v in found]
        state = "failed" if one.error else "odd volume" if one.case_id in odd else ""
        cells += [state, f"{one.seconds:.1f}", one.memory]
        rows.append(cells)
    columns = ("case", *(f"{name}\nml" for name in names), "", "seconds", "how it was run")
    known = [(v.name, v.uncertainty) for one in outcomes for v in one.volumes]
    return ReportTable("", columns, rows, _note(known, _ODD, len(every)))


def measure_table(
    outcomes: Sequence[Outcome], anchors: Mapping[str, str], odd: Mapping[str, str]
) -> ReportTable | None:
    """Sums, sides and shares of every case; None where the label table makes none."""
    figures = [m for one in outcomes for m in one.measures]
    every = list(dict.fromkeys((m.name, m.unit) for m in figures))
    if not every:
        return None
    heads = every[:_MOST_COLUMNS]
    rows = []
    for one in _ordered(outcomes, odd):
        found = {(m.name, m.unit): m for m in one.measures}
        cells: list[str | ReportLink] = [ReportLink(one.case_id, anchors.get(one.case_id, ""))]
        for head in heads:
            m = found.get(head)
            cells.append("-" if m is None else with_interval(m.value, m.uncertainty, m.unit))
        rows.append(cells)
    columns = ("case", *(f"{name}\n{unit}" for name, unit in heads))
    known = [(m.name, m.uncertainty) for m in figures]
    has_sides = any(m.kind == "asymmetry" for m in figures)
    more = "Asymmetry: left minus right over the mean of both." if has_sides else ""
    note = _note(known, more, len(every))
    return ReportTable("Structures, sides and shares", columns, rows, note)


def case_table(one: Outcome) -> ReportTable:
    """Every figure of one case, a row for each."""
    rows = [
        [v.name, "ml", shown(v.ml), *_interval(v.uncertainty, v.ml), shown(v.soft_ml)]
        for v in one.volumes
    ]
    rows += [
        [m.name, m.unit, shown(m.value, m.unit), *_interval(m.uncertainty, m.value, m.unit), "-"]
        for m in one.measures
    ]
    columns = ["structure", "unit", "value", "from", "to", "interval", "soft volume\nml"]
    if all(v.soft_ml is None for v in one.volumes):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return ReportTable("", tuple(columns), rows, DISCLAIMER, num_texts=2)


def error_table(evaluation: Evaluation) -> ReportTable | None:
    """Bias of each class, and what a true volume is in multiples of a predicted one.

    None where no class has enough cases with a volume.
    """
    rows = []
    labels = [k for k in next(iter(evaluation.scores.values()), {}) if k != BACKGROUND]
    for label in labels:
        before = [scores[label].prediction_ml for scores in evaluation.scores.values()]
        after = [scores[label].truth_ml for scores in evaluation.scores.values()]
        if min([*before, *after]) <= 0:
            continue
        found = conformal_interval(1.0, before, after)
        if found is not None:
            rows.append((
                evaluation.class_names[label],
                str(found.num_cases),
                f"{bias_percent(before, after):+.1f}",
                percent(found.level),
                f"{found.low:.3f}",
                f"{found.high:.3f}",
            ))  # fmt: skip
    if not rows:
        return None
    columns = ("class", "cases", "bias %\n(median)", "level", "from", "to")
    note = (
        "From and to: multiples of the predicted volume between which the true one of another "
        "such case is expected, with the confidence that so many cases allow, up to 90 % (split "
        f"conformal interval). Classes that a case lacks are left out. {DISCLAIMER}"
    )
    return ReportTable("How far a volume may be off", columns, rows, note)


def _ordered(outcomes: Sequence[Outcome], odd: Mapping[str, str]) -> list[Outcome]:
    """Failed cases first, then odd ones."""
    return sorted(outcomes, key=lambda one: (not one.error, one.case_id not in odd))


def _is_outside(value: float, found: Uncertainty) -> bool:
    if found.interval != "conformal" or found.low is None or found.high is None:
        return False
    return not found.low <= value <= found.high


def _interval(found: Uncertainty, value: float | None, unit: Unit = "ml") -> tuple[str, str, str]:
    """Write both ends of an interval and what it is."""
    low, high = (shown(end, unit, value) for end in (found.low, found.high))
    return low, high, interval_words(found)


def _note(known: Sequence[tuple[str, Uncertainty]], more: str, columns: int) -> str:
    """What explains the brackets, the bias of the held-out cases, and what has no column."""
    left_out = f"The first {_MOST_COLUMNS} of {columns}; volumes.csv has all."
    texts = [*interval_sentences(one for _, one in known), bias_sentence(known), more]
    texts.append(left_out if columns > _MOST_COLUMNS else "")
    return " ".join(text for text in texts if text)
