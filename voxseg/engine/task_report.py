"""What a page says of boundaries, surface normals and classes of photographs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from voxseg.data.cases import TaskKind
from voxseg.engine import report_facts as facts
from voxseg.engine.photo_report import files_table
from voxseg.engine.report_choice import MOST_PREDICTED, choose, file_warnings
from voxseg.engine.report_sources import CaseFiles, ReportSource
from voxseg.engine.report_warnings import not_scored
from voxseg.engine.task_pictures import (
    angle_figure,
    boundary_figure,
    boundary_picture,
    normals_picture,
    small_photograph,
)
from voxseg.engine.task_scores import CASE_SCORES, TOTALS, TaskEvaluation
from voxseg.errors import VoxsegError
from voxseg.export.boundary_picture import BOUNDARY_ERRORS
from voxseg.export.report import Report
from voxseg.export.report_parts import (
    ReportCase,
    ReportFigure,
    ReportLink,
    ReportSection,
    ReportTable,
)

WORDS: dict[TaskKind, str] = {
    "boundaries": "Boundaries",
    "normals": "Surface normals",
    "classification": "Classes of photographs",
}
_ABOUT: dict[TaskKind, str] = {
    "boundaries": "Precision: share of the predicted pixels that lie within 0.75% of the diagonal "
    "of one that an annotator drew, each paired with one other; recall: share of the annotators' "
    "pixels that were found so; F: their harmonic mean (BSDS500).",
    "normals": "Angles between predicted and true normals, over all pixels that have a true one.",
    "classification": "Share of the photographs whose class is the first that was named, or among "
    "the first five.",
}


_PICTURES: dict[TaskKind, str] = {
    "boundaries": "Boundaries are dark where they are strong; the truth is darker the more "
    "annotators drew it. Large photographs are shrunk, their lines widened.",
    "normals": "Normals as colours of a ball that is lit from red, green and blue: x, y, z from -1 "
    "to 1 are 0 to 255. Large photographs are shrunk.",
    "classification": "",
}
_WRONG = ", whose class was not the first that was named"
_MOST_TAKEN = 3  # other classes that are named for one


def rank_cases(answers: TaskEvaluation) -> list[str]:
    """Cases by the score that runs are compared by, the worst first; without one last."""
    name, score = next(iter(CASE_SCORES[answers.task].items()))
    sign = 1 if score.better == "higher" else -1

    def key(case: str) -> tuple[bool, float, str]:
        value = answers.cases[case][name]
        return math.isnan(value), sign * value, case

    return sorted(answers.cases, key=key)


def totals_section(answers: TaskEvaluation) -> ReportSection:
    """Scores of the whole set, and the figure that belongs to them."""
    rows = [
        [score.title, _number(answers.totals[name], score.digits)]
        for name, score in TOTALS[answers.task].items()
    ]
    table = ReportTable("", ("score", "value"), rows, _ABOUT[answers.task])
    figures = []
    if answers.detail and answers.task == "boundaries":
        figures.append(
            ReportFigure(
                boundary_figure(answers.detail, answers.totals),
                "precision over recall, with lines of equal F",
                "Precision and recall at each threshold, over all photographs together.",
            )
        )
    if answers.detail and answers.task == "normals":
        figures.append(
            ReportFigure(
                angle_figure(answers.detail),
                "share of pixels below each angle",
                "Share of all pixels whose normal is off by less than an angle.",
            )
        )
    return ReportSection("The whole set", figures=figures, tables=[table])


def cases_section(
    answers: TaskEvaluation, ranked: Sequence[str], anchors: Mapping[str, str]
) -> ReportSection:
    """Scores of every case, worst first."""
    scores = CASE_SCORES[answers.task]
    rows: list[list[str | ReportLink]] = [
        [
            ReportLink(case, anchors[case]) if case in anchors else case,
            *(_number(answers.cases[case][name], score.digits) for name, score in scores.items()),
        ]
        for case in ranked
    ]
    columns = ("photograph", *(score.title for score in scores.values()))
    return ReportSection("Each photograph", tables=[ReportTable("", columns, rows)])


def confusion_section(answers: TaskEvaluation) -> ReportSection:
    """Each class: how many were told, and what the others were taken for."""
    rows = []
    for name, named in answers.detail.get("confusion", {}).items():
        total = sum(named.values())
        others = sorted(named.items(), key=lambda item: (-item[1], item[0]))
        taken = [f"{other} ({count})" for other, count in others if other != name]
        share = _number(named.get(name, 0) / total, 3)
        rows.append([name, str(total), share, "\n".join(taken[:_MOST_TAKEN]) or "-"])
    rows.sort(key=lambda row: row[2])
    columns = ("class", "photographs", "told", "taken for")
    note = f"Classes with the smallest share first; at most {_MOST_TAKEN} others are named."
    return ReportSection("Each class", tables=[ReportTable("", columns, rows, note)])


def answered_cases(
    task: TaskKind,
    files: Mapping[str, CaseFiles],
    drawn: Sequence[str],
    anchors: Mapping[str, str],
    answers: TaskEvaluation | None = None,
    ranked: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> Iterator[ReportCase]:
    """Draw cases, one at a time; ``named`` are the classes of photographs without a truth."""
    if task == "classification":
        headlines = {
            case: _headline(answers, case, ()) if answers else (named or {}).get(case, "")
            for case in drawn
        }
        return map(partial(_named_case, files=files, anchors=anchors, headlines=headlines), drawn)
    draw = boundary_picture if task == "boundaries" else normals_picture

    def one(case: str) -> ReportCase:
        headline = ""
        if answers is not None:
            headline = _headline(answers, case, ranked)
        try:
            png, caption = draw(files[case], answers.totals if answers else None)
        except VoxsegError as error:
            png, caption = b"", f"Not drawn: {error}."
        return ReportCase(
            case,
            picture=png,
            errors=task == "boundaries" and answers is not None,
            caption=caption,
            headline=headline,
            anchor=anchors[case],
        )

    return map(one, drawn)


def _named_case(
    case: str,
    files: Mapping[str, CaseFiles],
    anchors: Mapping[str, str],
    headlines: Mapping[str, str],
) -> ReportCase:
    """Show a whole photograph, small, with what it was taken for."""
    figures: tuple[ReportFigure, ...] = ()
    caption = ""
    try:
        figures = (ReportFigure(small_photograph(files[case]), f"the photograph {case}"),)
    except VoxsegError as error:
        caption = f"{error}."
    return ReportCase(
        case, caption=caption, headline=headlines[case], figures=figures, anchor=anchors[case]
    )


def _headline(answers: TaskEvaluation, case: str, ranked: Sequence[str]) -> str:
    if answers.task == "classification":
        truth, *named = answers.detail["wrong"][case]
        # Names have commas of their own.
        return f"{truth}; taken for {named[0]}; then {'; '.join(named[1:]) or 'nothing'}"
    name, score = next(iter(CASE_SCORES[answers.task].items()))
    value = _number(answers.cases[case][name], score.digits)
    return (
        f"{score.title}: {value}, number {ranked.index(case) + 1} of {len(ranked)} from the worst"
    )


def title_of(source: ReportSource, task: TaskKind) -> str:
    """What the page is called."""
    return f"{WORDS[task]}, {facts.TITLES[source.kind].lower()}: {source.place}"


def task_page(source: ReportSource, pictures: int | None) -> tuple[Report, tuple[str, ...]]:
    """Build the page about another task, scored or not."""
    task, answers = source.task, source.answers
    if answers is not None:
        ranked = rank_cases(answers)
        drawn = choose(ranked, pictures)
        if task == "classification":  # worst means no more than wrong
            wrong = list(answers.detail.get("wrong", {}))
            drawn = tuple(wrong[: MOST_PREDICTED if pictures is None else pictures])
    else:
        failed = {str(row["case_id"]) for row in source.outcomes if row.get("error")}
        ranked = [case for case in source.files if case not in failed]
        drawn = tuple(ranked[: MOST_PREDICTED if pictures is None else pictures])
    files = {case: source.files.get(case, CaseFiles()) for case in ranked}
    anchors = {case: f"case-{number}" for number, case in enumerate(drawn, 1)}
    named = {str(row["case_id"]): str(row.get("category", "")) for row in source.outcomes}
    warnings = [
        *((*not_scored(answers), *answers.notes) if answers else ()),
        *(f"{r['case_id']} failed: {r['error']}" for r in source.outcomes if r.get("error")),
        *source.notes,
        *(
            file_warnings(files, drawn, with_truth=answers is not None)
            if task != "classification"
            else ()
        ),
    ]
    sections = []
    if answers is not None:
        sections.append(totals_section(answers))
        if task == "classification":
            sections.append(confusion_section(answers))
        else:
            sections.append(cases_section(answers, ranked, anchors))
    return Report(
        title=title_of(source, task),
        subtitle=facts.subtitle(source),
        class_names={},
        is_images=True,
        facts=facts.run_facts(source),
        warnings=warnings,
        sections=sections,
        cases=answered_cases(task, files, drawn, anchors, answers, ranked, named),
        cases_note=_drawn_note(len(drawn), len(ranked), is_scored=answers is not None)
        if task != "classification"
        else f"{len(drawn)} of {len(ranked)} photographs{_WRONG if answers else ''}.",
        pictures_note=_PICTURES[task],
        error_colours=BOUNDARY_ERRORS,
        closing=(*source.sections, ReportSection("Files", tables=(files_table(files),))),
        folded=facts.folded(source),
    ), drawn


def _drawn_note(drawn: int, total: int, *, is_scored: bool) -> str:
    """Say which photographs are drawn."""
    order = ", worst first" if is_scored else ""
    if drawn == total:
        return f"All {total} photographs{order}."
    ends = ", then the median one and the best" if is_scored else ""
    return f"{drawn} of {total} photographs{order}{ends}."


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
