"""``voxseg export``: masks and networks for other programs."""

import typer

app = typer.Typer(
    name="export",
    no_args_is_help=True,
    help="Write masks and networks for other programs.",
)
