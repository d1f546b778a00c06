"""``voxseg doctor``."""

from voxseg.documents import document
from voxseg.schemas import DOCTOR

from . import console as terminal
from . import options


def doctor(as_json: options.Json = False) -> None:
    """Show versions, threads, devices and caches, what is missing, and how to get it."""
    from voxseg.engine.doctor import examine

    findings = examine()
    if as_json:
        rows = [vars(finding) for finding in findings]
        terminal.print_json(document(DOCTOR, {"findings": rows}))
        return
    lines = [(f.what, f.state, f.cure) for f in findings]
    table = terminal.table("voxseg doctor", ("what", "state", "to do"), lines)
    for column in table.columns[1:]:
        column.justify = "left"
    terminal.out.print(table)
