"""The paper's tables beside ours, as Markdown, as a page and as Figure 8.

All say the same: rows that are not finished are there and empty.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from voxseg.documents import write_document
from voxseg.engine.paper_rows import NETWORKS, PAPER, PAPER_SECONDS, PARTITIONS, Row, all_rows
from voxseg.engine.paper_tables import Tables
from voxseg.export.report import (
    Report,
    ReportFigure,
    ReportSection,
    ReportTable,
    write_report,
)
from voxseg.files import replacing, write_text
from voxseg.metrics.summary import FOREGROUND, WITH_BACKGROUND
from voxseg.schemas import IBSR_TABLES

OUTPUTS = ("tables.json", "tables.md", "tables.html", "figure8.png")
_TITLE = "Supervoxel pooling on IBSR: the paper's tables and ours"
_SOURCE = "Schuurmans, Berman, Blaschko, arXiv:1806.02705, Tables 1 and 2, Figure 8"
_MARKERS = {"V0": "o", "control": "s", "V1": "v", "V2": "^", "V3": "D", "V4": "*"}
_INK = "#222222"
_MOST_LINEAR = 5  # times the fastest; beyond, times are drawn on a logarithmic axis
_COLOURS = {"reduced8": "#0072B2", "reduced4": "#009E73", "full": "#D55E00"}


def write_tables(tables: Tables, folder: Path) -> tuple[Path, ...]:
    """Write ``tables.json``, ``tables.md``, ``tables.html`` and ``figure8.png``; anew each time.

    Returns:
        The files; no figure where no prediction was timed.
    """
    content = tables.to_json()
    for key in ("schema", "voxseg"):
        del content[key]
    write_document(folder / "tables.json", IBSR_TABLES, content)
    write_text(folder / "tables.md", markdown(tables))
    written = ["tables.json", "tables.md", "tables.html"]
    png = draw_figure_8(tables)
    if png:
        with replacing(folder / "figure8.png") as temporary:
            temporary.write_bytes(png)
        written.append("figure8.png")
    _write_page(tables, folder / "tables.html", png)
    return tuple(folder / name for name in written)


def markdown(tables: Tables) -> str:
    """Write the tables as Markdown."""
    lines = [f"# {_TITLE}", "", f"Source of the paper's numbers: {_SOURCE}.", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(tables).items()]
    lines += ["", "## What the numbers say", ""]
    lines += [f"- {sentence}" for sentence in tables.conclusions]
    for table in _tables(tables):
        lines += ["", f"## {table.title}", "", *_markdown_rows(table), ""]
        lines += [table.note] if table.note else []
    lines += ["", "## Notes", "", *(f"- {note}" for note in tables.notes)]
    return "\n".join(lines) + "\n"


def draw_figure_8(tables: Tables) -> bytes:
    """Draw mean foreground Dice against seconds of a prediction as a PNG; empty without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator

    timed = [
        (row, tables.seconds[row.name], 100 * tables.finished[row.name].foreground)
        for row in all_rows()
        if row.name in tables.finished and row.name in tables.seconds
    ]
    if not timed:
        return b""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, seconds, dice in timed:
        colour = _COLOURS[row.network]
        face = "none" if row.partition.startswith("block") else colour
        axes.plot(seconds, dice, _MARKERS[row.design], color=colour, markerfacecolor=face)
    networks = dict.fromkeys(row.network for row, *_ in timed)
    designs = dict.fromkeys(row.design for row, *_ in timed)
    legend = [
        *(
            Line2D([], [], color=_COLOURS[one], linewidth=6, label=NETWORKS[one])
            for one in networks
        ),
        *(
            Line2D([], [], color=_INK, marker=_MARKERS[one], linestyle="none", label=one)
            for one in designs
        ),
    ]
    times = [seconds for _, seconds, _ in timed]
    if max(times) > _MOST_LINEAR * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_xlim(0, 1.08 * max(times))
    axes.margins(y=0.15)
    axes.set(xlabel="seconds per volume, from file to file", ylabel="mean foreground Dice (%)")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(handles=legend, fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _facts(tables: Tables) -> dict[str, str]:
    facts = tables.facts
    cases = max((one.cases for one in tables.finished.values()), default=0)
    devices = dict.fromkeys(one.device for one in tables.finished.values())
    return {
        "cases": f"{cases}, {facts['folds']} folds, split {str(facts['split_hash'])[:12]}",
        "seed": str(facts["seed"]),
        "trained on": ", ".join(devices) or "-",
        "predictions timed on": str(facts["device"].get("name", "-")),
        "voxseg": f"{facts['voxseg_version']}, commit {facts['git_commit'][:12] or 'unknown'}",
        "rows": f"{len(tables.finished)} of {len(all_rows())} finished",
    }


def _tables(tables: Tables) -> list[ReportTable]:
    shown = [_scores_table(tables), _class_table(tables)]
    if tables.differences:
        shown += [_difference_table(tables)]
    if tables.seconds:
        shown.append(_seconds_table(tables))
    return shown


def _scores_table(tables: Tables) -> ReportTable:
    rows = []
    for row in all_rows():
        found = tables.finished.get(row.name)
        cells = [row.title, *_paper_cells(row)]
        if found is None:
            rows.append([*cells, "", "", "", ""])
            continue
        size = "" if found.size_mm is None else f"{found.size_mm:.1f}"
        rows.append(
            [
                *cells,
                _percent(found.foreground),
                _percent(found.with_background),
                size,
                str(found.updates) + ("*" if found.notes else ""),
            ]
        )
    columns = (
        "row", "paper Table 1", "paper Table 2", "paper oracle",
        "foreground Dice", "with background", "supervoxel mm", "updates a fold",
    )  # fmt: skip
    note = (
        "In percent, means over cases that the networks did not see; empty: not run, or not in the "
        "paper, as control and V4 are not. Updates of rows other than V0 come after V0's. * see "
        "the notes."
    )
    return ReportTable("Tables 1 and 2: the paper's and ours", columns, rows, note)


def _class_table(tables: Tables) -> ReportTable:
    names: dict[str, None] = {}
    for one in tables.finished.values():
        names |= dict.fromkeys(score.name for score in one.scores)
    ends = [name for name in (FOREGROUND, WITH_BACKGROUND) if name in names]
    shown = [name for name in names if name not in ends] + ends
    rows = []
    for row in all_rows():
        found = tables.finished.get(row.name)
        if found is None:
            continue
        scores = [found.score(name) for name in shown]
        cells = [
            f"{_percent(s.mean)} \N{PLUS-MINUS SIGN} {_percent(s.deviation)}" if s else ""
            for s in scores
        ]
        rows.append([row.title, *cells])
    note = "Dice in percent: mean and standard deviation (n - 1) over cases. The paper has neither."
    return ReportTable("Classes", ("row", *shown), rows, note)


def _difference_table(tables: Tables) -> ReportTable:
    rows = [
        [
            one.row,
            one.against,
            one.class_name,
            _points(one.difference),
            "" if math.isnan(one.low) else f"[{_points(one.low)}, {_points(one.high)}]",
            "" if math.isnan(one.p_holm) else f"{one.p_holm:.4f}",
            one.verdict,
        ]
        for one in tables.differences
    ]
    columns = ("row", "against", "class", "points", "95% interval", "Holm p", "verdict")
    note = (
        "Paired by case, as voxseg compare does: percentage points of Dice, positive where the row "
        "is better; against V0, the control, and of V4 against V3 on the same supervoxels. Holm's "
        "correction is over all classes and partitions of one design against one of them."
    )
    return ReportTable("Differences", columns, rows, note, num_texts=3)


def _seconds_table(tables: Tables) -> ReportTable:
    rows = [
        [row.title, f"{tables.seconds[row.name]:.2f}", _percent(found.foreground)]
        for row in all_rows()
        if row.name in tables.seconds and (found := tables.finished.get(row.name))
    ]
    note = (
        "The second prediction of one volume, from file to file, supervoxels from the cache. "
        f"The paper has {PAPER_SECONDS}."
    )
    columns = ("row", "seconds per volume", "foreground Dice")
    return ReportTable("Figure 8: Dice against time", columns, rows, note)


def _paper_cells(row: Row) -> list[str]:
    known = PAPER.get(row.name, {})
    cells = [_printed(known[table]) if table in known else "" for table in ("1", "2")]
    return [*cells, _printed(PARTITIONS[row.partition].oracle) if row.partition else ""]


def _printed(percent: float) -> str:
    """Write a number of the paper with the digits that it has there."""
    return f"{percent:.2f}".removesuffix("0")


def _write_page(tables: Tables, path: Path, png: bytes) -> None:
    figures: tuple[ReportFigure, ...] = ()
    if png:
        alt = "Mean foreground Dice against seconds per volume, a mark for each finished row."
        figures = (ReportFigure(png, alt, "Figure 8, made anew: hollow marks are BLOCK."),)
    shown = _tables(tables)
    report = Report(
        title=_TITLE,
        class_names={},
        subtitle=f"Paper: {_SOURCE}.",
        facts=_facts(tables),
        sections=(
            ReportSection("What the numbers say", tables.conclusions),
            ReportSection("Tables", figures=figures, tables=shown),
            ReportSection("Notes", tables.notes),
        ),
    )
    write_report(path, report)


def _markdown_rows(table: ReportTable) -> list[str]:
    rule = ["---"] * table.num_texts + ["---:"] * (len(table.columns) - table.num_texts)
    rows: list[Sequence[object]] = [table.columns, rule, *table.rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _points(difference: float) -> str:
    return "" if math.isnan(difference) else f"{100 * difference:+.2f}"
