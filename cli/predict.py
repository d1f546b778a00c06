"""``voxseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from voxseg.errors import ExitCode

from . import console as terminal
from . import options

if TYPE_CHECKING:
    from voxseg.engine.outcomes import CaseOutcome


def predict(
    checkpoint: Annotated[
        Path, typer.Argument(help="Run folder, checkpoint, or a cross-validation (folds averaged).")
    ],
    inputs: Annotated[
        list[Path], typer.Argument(help="Volumes, DICOM or photographs, or folders of them.")
    ],
    output: options.Output,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also one float map for each class.")
    ] = False,
    save_tissues: Annotated[
        bool,
        typer.Option(
            "--save-tissues",
            help="Also a soft map of each tissue under FSL FAST's names: CASE_pve_0 (fluid), _1 "
            "(grey matter), _2 (white matter), as far as the label table names them.",
        ),
    ] = False,
    save_uncertainty: Annotated[
        bool,
        typer.Option(
            "--save-uncertainty",
            help="Also entropy; with folds or --tta, their disagreement too. 0 sure, 1 unsure.",
        ),
    ] = False,
    save_overlays: Annotated[
        bool,
        typer.Option("--save-overlays", help="Also photographs with their classes in colour."),
    ] = False,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Average over flips, as in training, and over predict.scales of slices."
        ),
    ] = False,
    low_memory: Annotated[
        bool, typer.Option("--low-mem", help="Parts that take 1 GB, whatever is free.")
    ] = False,
    postprocess: Annotated[
        Path | None,
        typer.Option(
            "--postprocess",
            help="A postprocessing.json to apply to the masks; by default the cross-validation's "
            "own. Probability and uncertainty maps stay as they are.",
        ),
    ] = None,
    no_postprocess: Annotated[
        bool, typer.Option("--no-postprocess", help="Masks as the networks give them.")
    ] = False,
    label_table: options.LabelTable = None,
    series: Annotated[
        str | None,
        typer.Option(
            "--series",
            help="Which series of a DICOM folder: a UID, a number or a part of the description; "
            "'voxseg data series' lists them.",
        ),
    ] = None,
    hash_names: Annotated[
        bool,
        typer.Option(
            "--hash-names",
            help="Name cases by a short hash instead of their folder or file, in names of files, "
            "manifests and reports. A DICOM Segmentation needs --anonymise besides.",
        ),
    ] = False,
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="Also CASE.seg.dcm, for DICOM series."),
    ] = False,
    anonymise: options.Anonymise = False,
    slicer: Annotated[
        bool,
        typer.Option("--slicer", help="Also CASE.seg.nrrd: names, colours, codes in 3D Slicer."),
    ] = False,
    mrb: Annotated[
        bool,
        typer.Option(
            "--mrb", help="Also CASE.mrb: a scene of 3D Slicer that holds the patient's image too."
        ),
    ] = False,
    num_parts: Annotated[
        int,
        typer.Option("--num-parts", min=1, help="Predict one of so many shares of the cases."),
    ] = 1,
    part_id: Annotated[
        int,
        typer.Option("--part-id", min=0, help="Which share, from 0: an array job's task number."),
    ] = 0,
    device: options.Device = "auto",
    report: options.Report = None,
    overwrite: options.Overwrite = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Keep masks that are already there.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Segment INPUTS; write one mask for each, on its own grid, into OUTPUT.

    A folder of DICOM is one case: its only volume, or the one that --series names.

    Networks of other tasks write thinned boundary maps (CASE.png), surface normals (CASE.png and
    CASE.npz), or the most probable classes of all photographs (predictions.csv).

    Volumes of all structures go to volumes.csv and predict.json, with intervals.
    Those of a cross-validation say where the true volume is expected.
    Research software, not a medical device.

    Exit code 4 when some cases failed and the others were written.
    """
    from voxseg.api import predict as run
    from voxseg.engine.outcomes import predict_document

    screen = terminal.console(as_json)

    def tell(outcome: "CaseOutcome", number: int, total: int) -> None:
        head = f"[{number}/{total}] {outcome.case_id}"
        if outcome.error:
            terminal.err.print(f"{head}: {outcome.error}", markup=False)
        else:
            facts = f"{outcome.seconds:.1f} s, {outcome.memory}"
            what = outcome.category or outcome.output
            screen.print(f"{head}: {what} ({facts})", markup=False)
            for path in outcome.also:
                screen.print(f"{' ' * len(head)}  {path}", markup=False)

    outcomes = run(
        checkpoint,
        inputs,
        output,
        save_probabilities=save_probabilities,
        save_tissues=save_tissues,
        save_uncertainty=save_uncertainty,
        save_overlays=save_overlays,
        tta=tta,
        low_memory=low_memory,
        postprocess=postprocess,
        no_postprocess=no_postprocess,
        label_table=label_table,
        series=series,
        hash_names=hash_names,
        dicom_seg=dicom_seg,
        anonymise=anonymise,
        slicer=slicer,
        mrb=mrb,
        num_parts=num_parts,
        part_id=part_id,
        device=device,
        report=report,
        overwrite=overwrite,
        skip_existing=skip_existing,
        notify=tell,
        say=lambda text: screen.print(text, markup=False),
    )
    failed = [outcome for outcome in outcomes if outcome.error]
    for done in {outcome.postprocessing for outcome in outcomes} - {""}:
        screen.print(f"post-processing of the masks: {done}", markup=False)
    _show_volumes(outcomes, screen)
    if as_json:
        terminal.print_json(predict_document(outcomes))
    if failed:
        terminal.err.print(f"{len(failed)} of {len(outcomes)} cases failed", markup=False)
        raise typer.Exit(ExitCode.FAILED if len(failed) == len(outcomes) else ExitCode.SOME_FAILED)


def _show_volumes(outcomes: "list[CaseOutcome]", screen: Console) -> None:
    """Print what was measured by case, with intervals in brackets, and what they are."""
    from voxseg.engine.outcomes import DISCLAIMER
    from voxseg.engine.volume_words import bias_sentence, interval_sentences, with_interval

    measured = [outcome for outcome in outcomes if outcome.volumes]
    if not measured:
        return
    rows = [
        [outcome.case_id, *(with_interval(v.ml, v.uncertainty) for v in outcome.volumes)]
        for outcome in measured
    ]
    columns = ("case", *(volume.name for volume in measured[0].volumes))
    screen.print(terminal.table("Volumes, ml", columns, rows))
    heads = [f"{m.name}, {m.unit}" for m in measured[0].measures]
    if heads:
        rows = [
            [one.case_id, *(with_interval(m.value, m.uncertainty, m.unit) for m in one.measures)]
            for one in measured
        ]
        screen.print(terminal.table("Structures, sides and shares", ("case", *heads), rows))
    known = [(v.name, v.uncertainty) for one in measured for v in one.volumes]
    known += [(m.name, m.uncertainty) for one in measured for m in one.measures]
    texts = [*interval_sentences(found for _, found in known), bias_sentence(known)]
    for text in (*texts, *dict.fromkeys(one.volume_note for one in measured), DISCLAIMER):
        if text:
            screen.print(text, markup=False)
