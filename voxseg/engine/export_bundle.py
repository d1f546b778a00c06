"""Write a run's network as a MONAI Bundle, run it as others would, and compare its mask."""

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from voxseg.data.reading import read_geometry, read_label
from voxseg.data.volume import check_same_grid
from voxseg.documents import json_text
from voxseg.engine.export_models import (
    Exported,
    ExportRequest,
    left_out,
    package_versions,
    program_of,
    program_runner,
)
from voxseg.engine.exported import Reference, check_network, reference, refuse_difference
from voxseg.engine.portable_run import PortableRun, facts_of, read_portable
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.bundle import CONFIG, METADATA, write_bundle_files, write_script
from voxseg.export.bundle_config import PROGRAM, SCRIPT
from voxseg.export.torch_program import write_program
from voxseg.files import write_text

_PACKAGES = ("torch", "monai", "numpy", "nibabel")


def export_bundle(request: ExportRequest, say: Callable[[str], None] = lambda _: None) -> Exported:
    """Write a folder that ``python -m monai.bundle run`` takes.

    Raises:
        UsageError: the output cannot be, or the network is not one that a bundle can hold.
        VoxsegError: torch cannot write the network, or the bundle's mask differs from voxseg's by
            more than is allowed; nothing is left behind.
    """
    output = request.output
    _check_output(request)
    run = read_portable(request.run)
    _check_preparation(run, request.run)
    with reference(run, request.case) as known, _new_folder(output) as folder:
        say(f"writing {output}")
        _write(run, folder, output.name)
        say(f"running the bundle on {known.case.case_id}")
        label = _run_bundle(folder, known)
        difference = None
        if run.needs_superpixels:
            exported = program_runner(folder / PROGRAM)
            difference = check_network(run, exported, known, 1.0).logits_difference
        check = known.compare(label, request.tolerance, difference)
        refuse_difference(check)
        write_text(
            folder / "docs" / "check.json", json_text(check.to_json(is_passed_on=True)) + "\n"
        )
    return Exported("bundle", output, None, run.needs_superpixels, check, left_out(run))


def _write(run: PortableRun, folder: Path, name: str) -> None:
    facts = facts_of(run)
    about = {
        "name": name,
        "versions": package_versions(*_PACKAGES),
        "note": run.config.labels.note,
    }
    write_bundle_files(folder, facts, about)
    if run.needs_superpixels:
        write_program(program_of(run), folder / PROGRAM)
    else:
        write_script(run.network, folder / SCRIPT, run.example_shape, run.channels)


def _run_bundle(folder: Path, known: Reference) -> Any:
    """Run a bundle through MONAI; return the mask (X, Y, Z) that it wrote."""
    from monai.bundle import ConfigWorkflow

    images = [str(path.absolute()) for path in known.case.images]
    with tempfile.TemporaryDirectory(prefix="voxseg-") as masks, _quiet():
        workflow = ConfigWorkflow(
            config_file=str(folder / CONFIG),
            meta_file=str(folder / METADATA),
            logging_file=False,
            workflow_type="inference",
            bundle_root=str(folder),
            output_dir=masks,
            datalist=[images if len(images) > 1 else images[0]],
            device="$torch.device('cpu')",
        )
        try:
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
            raise VoxsegError(
                f"MONAI cannot run the bundle on {known.case.images[0]} ({reason}); nothing was "
                "kept"
            ) from error
        (found,) = Path(masks).glob("*.nii*")
        mask = read_label(found)
    source, _ = read_geometry(known.case.images)
    try:
        check_same_grid(source, mask)
    except DataError:
        raise VoxsegError(
            f"MONAI writes the mask of {source.path} on another grid than voxseg; name another "
            "volume with --case, or correct this one ('voxseg check' may tell); nothing was kept"
        ) from None
    return mask.array


def _check_output(request: ExportRequest) -> None:
    output = request.output
    if output.is_file():
        raise UsageError(f"{output} is a file; -o names the folder to make")
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / METADATA).is_file():
        raise UsageError(f"{output} holds other files than a bundle; choose another -o")
    if not request.overwrite:
        raise UsageError(f"{output} exists; use --overwrite, or another -o")


def _check_preparation(run: PortableRun, path: Path) -> None:
    """Refuse what MONAI's transforms cannot do.

    Raises:
        UsageError: so it is.
    """
    data = run.config.data
    if data.coordinates:
        raise UsageError(
            f"{path} sees coordinates (data.coordinates), for which MONAI has no transform; use "
            "'voxseg export onnx'"
        )
    if run.needs_superpixels and data.normalise != "zscore" and data.mask != "all":
        raise UsageError(
            f"{path} divides the foreground alone, which a bundle finds again only where "
            f"data.normalise is zscore, not {data.normalise}; use 'voxseg export onnx'"
        )


@contextlib.contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """Give a folder beside ``output`` that takes its place when the block ends without an error."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=output.parent, prefix=".part-"))
    except OSError as error:
        raise VoxsegError(
            f"cannot write {output}: {error.strerror or error}; choose another output"
        ) from None
    try:
        yield made
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        if output.exists():
            old = made.with_name(f"{made.name}-old")
            output.rename(old)
            made.rename(output)
            shutil.rmtree(old)
        else:
            made.rename(output)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MONAI and ignite from logging, and from warning of their own future."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
