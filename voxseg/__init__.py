"""Medical volumetric segmentation with supervoxel-pooled networks.

``voxseg.train``, ``voxseg.predict`` and the other commands are functions of this package, see
``voxseg.api``; they are loaded when they are first used, for torch takes seconds to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxseg.api import (
        check,
        compare,
        convert,
        crossval,
        evaluate,
        export_bundle,
        export_dicom,
        export_onnx,
        export_slicer,
        export_torch,
        labels,
        predict,
        report,
        reproduce,
        series,
        split,
        supervoxels,
        train,
        view,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
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


def __getattr__(name: str) -> Any:
    if name in __all__:
        # By name: loading it here would load torch for whoever asks for the version.
        return getattr(importlib.import_module("voxseg.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
