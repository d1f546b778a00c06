"""``voxseg check``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxseg.errors import ExitCode

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.data.cases import Dataset
    from voxseg.data.check import CheckReport

_FIRST_OF_KIND = 3
_MOST_PICTURES = 50  # in the table; of larger sets, those with something to say
_Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]


def check(
    data: Annotated[
        Path,
        typer.Argument(help="Folder of volumes or photographs with labels, or a CSV/JSON list."),
    ],
    labels: options.Labels = None,
    report_at: Annotated[
        Path | None, typer.Option("--report", help="Also write one HTML page.", metavar="PAGE")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            "--fix", help="Write corrected copies into this folder; DATA stays.", metavar="OUT"
        ),
    ] = None,
    fix_nan: Annotated[
        float | None,
        typer.Option("--fix-nan", help="With --fix: write this for NaN and infinite voxels."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace earlier copies in OUT.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check DATA before training: pairs, geometry, labels, intensities, leaks, broken files.

    Of photographs and their masks: sizes, class values, doubles, how each is read.

    Exit code 3 when something must be mended first; with --fix, when something could not be.
    """
    from voxseg.data.check import check_dataset, find_pairs
    from voxseg.data.check_document import check_document
    from voxseg.errors import UsageError

    if fix is None and (fix_nan is not None or overwrite):
        raise UsageError("--fix-nan and --overwrite belong to --fix OUT; add it")
    dataset, known = find_pairs(data, labels)
    if fix is not None:
        from voxseg.data.fix import open_folder

        sources = [data] if labels is None else [data, labels]
        open_folder(fix, sources, dataset, overwrite=overwrite)
    with _bar("checking", len(dataset.cases)) as advance:
        report = check_dataset(dataset, advance, known)
    document = check_document(data, dataset, report)
    failed = bool(report.errors)
    if fix is not None:
        document["fix"], failed = _fix(dataset, report, fix, fix_nan)
    if report_at is not None:
        from voxseg.export.check_report import write_check_page

        write_check_page(report_at, document)
    if as_json:
        terminal.print_json(document)
    else:
        _show(document)
        if report_at is not None:
            terminal.out.print(f"page: {report_at}", markup=False)
    if failed:
        raise typer.Exit(ExitCode.DATA)


def _fix(
    dataset: "Dataset", report: "CheckReport", out: Path, value: float | None
) -> tuple[dict[str, Any], bool]:
    """Write the copies and check them; the summary, and whether anything is still wrong."""
    from voxseg.data.check import check_dataset
    from voxseg.data.fix import fix_dataset, fix_summary
    from voxseg.data.layouts import find_cases

    with _bar("copying", len(dataset.cases)) as advance:
        fixes = fix_dataset(dataset, report, out, value_for_nan=value, on_case=advance)
    again = None
    if any(one.files for one in fixes):
        copies = find_cases(out)
        with _bar("checking the copies", len(copies.cases)) as advance:
            again = check_dataset(copies, advance)
    left_out = any(one.outcome == "left out" for one in fixes)
    return fix_summary(out, fixes, again), left_out or again is None or bool(again.errors)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show how many cases are done, on a terminal only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=terminal.err, disable=not terminal.err.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda case_id: progress.update(task, advance=1, description=f"{what} {case_id}")


def _show(document: dict[str, Any]) -> None:
    values = {one["case_id"]: " ".join(one["label_voxels"]) for one in document["cases"]}
    pairs = document["pairs"]
    if _is_of_pictures(document) and len(pairs) > _MOST_PICTURES:
        pairs = [pair for pair in pairs if pair["status"] != "ok"]
    rows = [
        (
            pair["case_id"],
            "\n".join([*(_name(file) for file in pair["images"]), _label_name(pair)]),
            *("\n".join(words) for words in zip(*_geometries(pair, document), strict=True)),
            values.get(pair["case_id"], ""),
            pair["status"],
        )
        for pair in pairs
    ]
    columns = (
        "case", "image and label", *_geometry_columns(document), "label values", "status",
    )  # fmt: skip
    count = len(document["pairs"])
    rest = f", {count - len(rows)} of them ok and not listed" if len(rows) < count else ""
    title = f"{count} cases, {document['layout']}{rest}"
    if rows:
        table = terminal.table(title, columns, rows)
        terminal.whole_width(table).print(table)
    else:
        terminal.out.print(title, markup=False)
    for note in document["notes"]:
        terminal.out.print(f"note: {note}", markup=False)
    _show_fingerprint(document)
    _show_findings(document["findings"])
    terminal.out.print(_verdict(document), markup=False)
    if document["fix"]:
        _show_fixes(document["fix"])
    elif any(one["fix"] and one["severity"] != "note" for one in document["findings"]):
        terminal.out.print(
            "some of it can be mended in copies: voxseg check DATA --fix OUT", markup=False
        )


def _files(pair: dict[str, Any]) -> list[dict[str, Any] | None]:
    return [*pair["images"], pair["label"]]


def _label_name(pair: dict[str, Any]) -> str:
    """What a case's label is called: its file, or the class of the whole photograph."""
    return str(pair.get("category") or _name(pair["label"]))


def _name(file: dict[str, Any] | None) -> str:
    return Path(file["path"]).name if file else "-"


def _is_of_pictures(document: dict[str, Any]) -> bool:
    return document.get("kind") == "photographs"


def _geometry_columns(document: dict[str, Any]) -> tuple[str, ...]:
    if _is_of_pictures(document):
        return ("rows x columns", "type")
    return ("voxels", "mm", "axes", "hand", "type")


def _geometries(pair: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each file; what is the same as of the line before is left blank."""
    lines = [_geometry(file) for file in _files(pair)]
    if _is_of_pictures(document):
        lines = [(line[0], line[-1]) for line in lines]
    repeated = [
        tuple("" if word == above else word for word, above in zip(line, before, strict=True))
        for before, line in pairwise(lines)
    ]
    return [lines[0], *repeated]


def _geometry(file: dict[str, Any] | None) -> tuple[str, ...]:
    """Write shape, spacing, axes, hand and type of a file, blank where they are unknown."""
    if not file or not file["shape"]:
        return ("",) * 5
    scaling = "" if not file["scaling"] else " x{:g} {:+g}".format(*file["scaling"])
    return (
        "x".join(map(str, file["shape"])),
        "x".join(f"{size:.4g}" for size in file["spacing_mm"]),
        file["orientation"],
        file["handedness"],
        file["dtype"] + scaling,
    )


def _show_fingerprint(document: dict[str, Any]) -> None:
    mark = document["fingerprint"]
    if not mark:
        return
    title, columns, rows = (_class_pixels if _is_of_pictures(document) else _class_volumes)(
        document
    )
    if rows:
        terminal.out.print(terminal.table(title, columns, rows))
    of_what = "" if _is_of_pictures(document) else " in nonzero voxels"
    for number, (low, middle, high) in enumerate(mark["percentiles"]):
        name = f" of channel {number}" if mark["num_channels"] > 1 else ""
        inside = mark["labelled_percentiles"]
        words = (
            f"; {inside[number][0]:.4g} to {inside[number][2]:.4g}, median "
            f"{inside[number][1]:.4g} where the label is not 0"
            if inside
            else ""
        )
        terminal.out.print(
            f"intensities{name}: {low:.4g} to {high:.4g}, median {middle:.4g}{of_what}{words}",
            markup=False,
        )


def _class_volumes(document: dict[str, Any]) -> _Table:
    mark = document["fingerprint"]
    rows: list[tuple[Any, ...]] = [
        (
            _class(document, value),
            f"{mean:.4g}",
            f"{low:.4g}",
            f"{high:.4g}",
            mark["label_cases"][value],
        )
        for value, (mean, low, high) in mark["label_ml"].items()
    ]
    return "Class volumes", ("label value", "mean ml", "min", "max", "cases"), rows


def _class_pixels(document: dict[str, Any]) -> _Table:
    mark = document["fingerprint"]
    total = sum(mark["label_voxels"].values())
    rows: list[tuple[Any, ...]] = [
        (_class(document, value), f"{100 * count / total:.3g}", mark["label_cases"][value])
        for value, count in mark["label_voxels"].items()
    ]
    return "Class pixels", ("label value", "% of all pixels", "masks"), rows


def _class(document: dict[str, Any], value: str) -> str:
    is_ignored = int(value) in document.get("ignored_values", ())
    name = document["class_names"].get(value, "(does not count)" if is_ignored else "")
    return f"{value} {name}".strip()


def _show_findings(findings: list[dict[str, Any]]) -> None:
    """Print errors first; of many findings of one kind, the first few."""
    from voxseg.export.check_report import group_findings

    for group in group_findings(findings):
        shown = group if group[0]["severity"] == "error" else group[:_FIRST_OF_KIND]
        for finding in shown:
            terminal.out.print(
                f"{finding['severity']}: {finding['cause']}; {finding['cure']}", markup=False
            )
        if len(group) > len(shown):
            terminal.out.print(
                f"{group[0]['severity']}: {len(group) - len(shown)} more of this kind (--json and "
                "--report list them)",
                markup=False,
            )


def _show_fixes(fix: dict[str, Any]) -> None:
    rows = [
        (
            one["case_id"],
            one["outcome"],
            "\n".join(one["remaining"] if one["outcome"] == "left out" else one["changes"]),
        )
        for one in fix["cases"]
    ]
    terminal.out.print(terminal.table(f"Copies in {fix['folder']}", ("case", "", "what"), rows))
    terminal.out.print(
        f"checked again: {fix['errors']} errors, {fix['warnings']} warnings; every change is in "
        f"{Path(fix['folder']) / 'fixes.json'}",
        markup=False,
    )


def _verdict(document: dict[str, Any]) -> str:
    return f"{document['errors']} errors, {document['warnings']} warnings"
