"""The program's commands as functions: ``voxseg.train(...)`` is ``voxseg train``.

Each takes the options of its command under the same names and with the same defaults, and returns
typed what the command prints. Two things differ: ``settings`` may be nested tables as well as
``SECTION.KEY=VALUE`` texts, and instead of printing a function calls ``say`` with each sentence and
``notify`` with each step. Paths may be texts. An error that a user can cure is a
``voxseg.errors.VoxsegError``.

The command line is made of these functions, and a test compares the parameters of both. A function
is loaded when it is first named, and what it works with when it is first called: torch takes a
second to load, MONAI three, and a mistyped path is told before either.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "datasets": ("check", "series", "split", "supervoxels"),
    "exports": ("export_dicom", "export_slicer", "labels"),
    "network_exports": ("export_bundle", "export_onnx", "export_torch"),
    "results": ("compare", "evaluate", "predict", "report"),
    "training": ("crossval", "reproduce", "train"),
    "viewing": ("view",),
}
_PLACES = {name: f"voxseg.api.{module}" for module, names in _MODULES.items() for name in names}
_PLACES["convert"] = "voxseg.engine.convert"


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
