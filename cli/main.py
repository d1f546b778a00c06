"""The program: its commands, and how an error ends it."""

import gc
import os
import sys
import traceback
from typing import Annotated

import typer

from voxseg import __version__
from voxseg.engine import process
from voxseg.engine.launch import Launch, read_launch
from voxseg.errors import EXIT_CODES, ExitCode, UsageError, VoxsegError

from . import (
    bench,
    cache,
    check,
    compare,
    console,
    crossval,
    data,
    demo,
    doctor,
    evaluate,
    export,
    labels,
    models,
    predict,
    report,
    reproduce,
    schemas,
    split,
    supervoxels,
    train,
    view,
)

_IN_SEVERAL_PROCESSES = ("train",)
"""Commands that torchrun may start."""

app = typer.Typer(
    name="voxseg",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Medical volumetric segmentation with supervoxel-pooled networks.",
    epilog="\n".join(
        ["Exit codes:", *(f"{code:>5}  {meaning}" for code, meaning in EXIT_CODES.items())]
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"voxseg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all by default.")
    ] = None,
) -> None:
    """Medical volumetric segmentation with supervoxel-pooled networks."""
    del version
    command = context.invoked_subcommand
    if command not in (None, *_IN_SEVERAL_PROCESSES) and read_launch().size > 1:
        raise UsageError(f"voxseg {command} works in one process; start it without torchrun")
    if debug:
        os.environ["VOXSEG_DEBUG"] = "1"
    if threads:
        os.environ.update(dict.fromkeys(process.THREAD_VARIABLES, str(threads)))


app.command()(demo.demo)
app.command()(train.train)
app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command()(crossval.crossval)
app.command()(compare.compare)
app.command()(report.report)
app.command()(view.view)
app.command()(reproduce.reproduce)
app.command()(split.split)
app.command()(supervoxels.supervoxels)
app.command()(check.check)
app.command()(models.models)
app.command()(doctor.doctor)
app.command()(cache.cache)
app.command()(train.recipes)
app.command()(labels.labels)
app.command()(schemas.schemas)
app.add_typer(export.app, name="export")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the program; an error that a user can cure is one sentence and an exit code."""
    launch = Launch()
    try:
        launch = read_launch()
        if launch.rank:
            console.be_quiet()
        process.prepare()
        app()
    except VoxsegError as error:
        if os.environ.get("VOXSEG_DEBUG"):
            traceback.print_exc()
        if _is_worth_telling(error, launch):
            sys.stderr.write(f"{_name(launch)}: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"{_name(launch)}: interrupted\n")
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        # Else Python looks through all that torch has made before it ends: half a second.
        gc.freeze()


def _name(launch: Launch) -> str:
    return f"voxseg (rank {launch.rank})" if launch.size > 1 else "voxseg"


def _is_worth_telling(error: VoxsegError, launch: Launch) -> bool:
    """Of several processes the first tells what all find: a command line that cannot work.

    A process that ends because of another one's error has no words of its own.
    """
    return bool(str(error)) and not (launch.rank and isinstance(error, UsageError))
