"""Write a run's network as ONNX or as a program of torch, each checked against the original."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import voxseg
from voxseg.documents import document, write_document
from voxseg.engine.exported import (
    Check,
    Run,
    check_network,
    reference,
)
from voxseg.engine.portable_run import PortableRun, facts_of, read_portable
from voxseg.errors import UsageError
from voxseg.export.onnx import need_onnx, write_onnx
from voxseg.export.torch_program import INPUTS, TOLERANCE, export_program, write_program
from voxseg.files import replacing
from voxseg.schemas import EXPORTED, NETWORK

_EXAMPLE_SUPERPIXELS = 40


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Which network to write where, and how it is checked."""

    run: Path
    """A run folder or checkpoint."""
    output: Path
    case: Path | None = None
    """Volume to compare on; None makes one up."""
    tolerance: float = TOLERANCE
    """Share of the mask's voxels that may differ."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise UsageError(f"--tolerance is a share in 0 to 1, got {self.tolerance:g}")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    form: str
    """"onnx", "torch" or "bundle"."""
    output: Path
    sidecar: Path | None
    """What a program must know to use it; a bundle holds that itself."""
    needs_voxseg: bool
    """Whether it runs only where voxseg is installed."""
    check: Check
    note: str = ""
    """A sentence about what the run does and the exported network does not."""

    def to_json(self) -> dict[str, Any]:
        """Everything as a document of plain values."""
        content = {
            "form": self.form,
            "output": str(self.output),
            "sidecar": "" if self.sidecar is None else str(self.sidecar),
            "needs_voxseg": self.needs_voxseg,
            "check": self.check.to_json(),
            "note": self.note,
        }
        return document(EXPORTED, content)


def export_onnx(request: ExportRequest, say: Callable[[str], None] = lambda _: None) -> Exported:
    """Write an ONNX file and, beside it, a document that says how to use it.

    Raises:
        UsageError: the output cannot be, or the network is not one of volumes.
        VoxsegError: a package is missing, torch cannot write the network, or it differs from the
            original by more than is allowed; nothing is left behind.
    """
    need_onnx()
    return _export(request, "onnx", ".onnx", _write_onnx, _onnx_runner, say)


def export_torch(request: ExportRequest, say: Callable[[str], None] = lambda _: None) -> Exported:
    """Write a program for ``torch.export.load`` and, beside it, how to use it; see ``export_onnx``.

    Raises:
        UsageError, VoxsegError: as ``export_onnx``.
    """
    return _export(request, "torch", ".pt2", _write_torch, program_runner, say)


def program_of(run: PortableRun) -> "torch.export.ExportedProgram":
    """Turn a run's network into a program of standard operations."""
    return export_program(
        run.network,
        run.example_shape,
        channels=run.channels,
        num_superpixels=_EXAMPLE_SUPERPIXELS if run.needs_superpixels else None,
        needs_places=run.needs_places,
    )


def program_runner(path: Path) -> Run:
    """Load a written program, as somebody without voxseg would."""
    module = torch.export.load(path).module()

    def run(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = module(*(torch.from_numpy(one) for one in inputs)).numpy()
        return answer

    return run


def package_versions(*names: str) -> dict[str, str]:
    """Versions of voxseg and of packages that wrote an exported network."""
    return {"voxseg": voxseg.__version__, **{name: metadata.version(name) for name in names}}


def _export(
    request: ExportRequest,
    form: str,
    ending: str,
    write: Callable[[PortableRun, Path], dict[str, str]],
    load: Callable[[Path], Run],
    say: Callable[[str], None],
) -> Exported:
    output = request.output
    sidecar = output.with_name(f"{output.name}.json")
    _check_output(request, ending, sidecar)
    run = read_portable(request.run)
    if run.config.predict.always_windows:
        raise UsageError(
            f"{request.run} answers in windows that are blended (predict.always_windows); "
            "'voxseg export bundle' can write that"
        )
    with reference(run, request.case) as known, replacing(output) as temporary:
        say(f"writing {output}")
        versions = write(run, temporary)
        say(f"comparing on {'a synthetic volume' if known.is_synthetic else known.case.case_id}")
        check = check_network(run, load(temporary), known, request.tolerance)
        facts = {
            "form": form,
            "file": output.name,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
            **facts_of(run),
            "check": check.to_json(is_passed_on=True),
            "versions": versions,
        }
        write_document(sidecar, NETWORK, facts)
    return Exported(form, output, sidecar, False, check, left_out(run))


def left_out(run: PortableRun) -> str:
    """Say what the run's own predictions do and an exported network cannot; empty for nothing."""
    if not run.config.predict.tta:
        return ""
    return (
        "the run predicts over mirror images (predict.tta); the exported network answers once, and "
        "was compared with one answer of the original"
    )


def _check_output(request: ExportRequest, ending: str, sidecar: Path) -> None:
    output = request.output
    if output.suffix != ending:
        raise UsageError(f"{output} must end in {ending}; it names the file to write")
    for path in (output, sidecar):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; -o names the file to write")
        if path.exists() and not request.overwrite:
            raise UsageError(f"{path} exists; use --overwrite, or another -o")


def _write_onnx(run: PortableRun, path: Path) -> dict[str, str]:
    about = {"voxseg": voxseg.__version__, "document": "the .json beside this file"}
    write_onnx(program_of(run), path, about)
    return package_versions("torch", "onnx", "onnxscript", "onnxruntime")


def _onnx_runner(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        answer: np.ndarray = session.run(None, dict(zip(INPUTS, inputs, strict=False)))[0]
        return answer

    return run


def _write_torch(run: PortableRun, path: Path) -> dict[str, str]:
    write_program(program_of(run), path)
    return package_versions("torch")
