"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Device = Annotated[
    str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="A recipe by name; 'voxseg recipes' lists them."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file over the recipe's settings.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting over all files, as SECTION.KEY=VALUE; repeatable."),
]
Plane = Annotated[
    str | None,
    typer.Option(
        "--plane",
        help="Slices that a 2D network sees of volumes: axial, coronal, sagittal, or all three, "
        "averaged.",
        metavar="PLANE",
    ),
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="A second folder, where labels lie apart.")
]
Split = Annotated[Path | None, typer.Option("--split", help="A split file (JSON).")]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        help="Run, checkpoint or published weights (ImageNet ResNet, ENet) to start from.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in -o stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in -o.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of training.")]
MaxMinutes = Annotated[
    float | None, typer.Option("--max-minutes", min=0, help="Wall-clock budget of a training.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of every random number.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that prepare cases and patches; 0 for none; by default none without a "
        "GPU, else 2 for cases and up to 8 for patches. Results are the same.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the data and print the settings, then stop.")
]
Folds = Annotated[int, typer.Option("--folds", "-k", min=2, help="Number of folds.")]
LeaveOneOut = Annotated[
    bool, typer.Option("--leave-one-out", help="A fold for each case, held out alone.")
]
Groups = Annotated[
    Path | None,
    typer.Option("--groups", help="CSV with case,group: a patient or scanner stays in one fold."),
]
Strata = Annotated[
    str,
    typer.Option(
        "--strata",
        help="CSV with case,stratum: each fold gets its share of each site; or 'volume': of "
        "small and large foregrounds.",
        metavar="CSV|volume",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="Results that repeat bit by bit; slower on a GPU."),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Also write one HTML page: tables, plots, warnings, pictures of the cases.",
        metavar="PAGE",
    ),
]
Anonymise = Annotated[
    bool,
    typer.Option(
        "--anonymise",
        help="DICOM without what tells who the patient is: names, dates, places; UIDs are hashed.",
    ),
]
MaskTable = Annotated[
    str | None,
    typer.Option(
        "--label-table",
        "--labels",
        help="Names, colours and codes of the classes: a table that ships with voxseg, or a TOML "
        "or CSV file; by default labels.csv beside MASK.",
        metavar="TABLE",
    ),
]
LabelTable = Annotated[
    str | None,
    typer.Option(
        "--label-table",
        help="Names, colours and codes of the classes: a table that ships with voxseg, or a TOML "
        "or CSV file; by default the run's own.",
        metavar="TABLE",
    ),
]
