"""The program's commands as functions: ``voxseg.train(...)`` is ``voxseg train``.

Each takes the options of its command under the same names and with the same defaults, and returns
typed what the command prints. Two things differ: ``settings`` may be nested tables as well as
``SECTION.KEY=VALUE`` texts, and instead of printing a function calls ``say`` with each sentence and
``notify`` with each step. Paths may be texts. An error that a user can cure is a
``voxseg.errors.VoxsegError``.

The command line is made of these functions, and a test compares the parameters of both.
"""

from voxseg.api.datasets import check, series, split, supervoxels
from voxseg.api.exports import export_dicom, export_slicer, labels
from voxseg.api.network_exports import export_bundle, export_onnx, export_torch
from voxseg.api.results import compare, evaluate, predict, report
from voxseg.api.training import crossval, reproduce, train
from voxseg.api.viewing import view
from voxseg.engine.convert import convert

__all__ = [
    "check",
    "compare",
    "convert",
    "crossval",
    "evaluate",
    "export_bundle",
    "export_dicom",
    "export_onnx",
    "export_slicer",
    "export_torch",
    "labels",
    "predict",
    "report",
    "reproduce",
    "series",
    "split",
    "supervoxels",
    "train",
    "view",
]
