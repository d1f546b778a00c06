"""Networks as ONNX files, from programs of ``torch_program``."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxseg.errors import VoxsegError
from voxseg.export.torch_program import INPUTS, OUTPUT, quiet
from voxseg.files import replacing

if TYPE_CHECKING:
    import torch

OPSET = 20
"""Of the operations; onnxruntime 1.20 and later have them all."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_AXES = ("batch", "x", "y", "z")


def need_onnx() -> None:
    """Refuse to go on where a package is missing that writes or checks ONNX files.

    Raises:
        VoxsegError: so it is.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise VoxsegError(
            f"ONNX files need {', '.join(missing)}; install with pip install 'voxseg[onnx]'"
        )


def write_onnx(program: "torch.export.ExportedProgram", path: Path, about: dict[str, str]) -> None:
    """Write a program as one ONNX file with its weights, whole or not at all.

    Args:
        program: as ``export_program`` gives it.
        path: ``.onnx``.
        about: names and texts that the file carries as its metadata.

    Raises:
        VoxsegError: an operation of the network has no form in ONNX.
    """
    import onnx
    import torch

    takes = INPUTS[: len(program.graph_signature.user_inputs)]
    with quiet():
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(takes),
                output_names=[OUTPUT],
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
            raise VoxsegError(
                f"this network cannot be written as ONNX ({reason}); use 'voxseg export torch'"
            ) from None
    assert written is not None
    model = written.model_proto
    _tidy(model)
    onnx.helper.set_model_props(model, about)
    with replacing(path) as temporary:
        onnx.save_model(model, temporary)


def _tidy(model: Any) -> None:
    """Give the axes names, and take out where on this machine each operation was traced."""
    graph = model.graph
    names: dict[str, str] = {}
    image = graph.input[0].type.tensor_type.shape.dim
    free = [axis for number, axis in enumerate(image) if number != 1]
    for axis, name in zip(free, _AXES, strict=False):
        names[axis.dim_param] = name
    del graph.value_info[:]  # sizes in between, which runtimes find out themselves
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    for part in (graph, *graph.input, *graph.output, *graph.node, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
