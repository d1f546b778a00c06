"""Functions about data sets: ``check``, ``series``, ``split``, ``supervoxels``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxseg.api.shared import silent
from voxseg.data.folders import check_exists
from voxseg.engine.options import Place, as_path, as_paths

if TYPE_CHECKING:
    from voxseg.data.check import CheckReport
    from voxseg.data.dicom_series import Series
    from voxseg.data.prepare import MaskMode
    from voxseg.data.splits import Fold
    from voxseg.data.superpixels import Method
    from voxseg.engine.supervoxels import SupervoxelReport


def check(
    data: Place, *, labels: Place | None = None, notify: Callable[[str], None] = silent
) -> "CheckReport":
    """Check a data set: what is wrong and how to mend it; see ``voxseg check --help``.

    The page, the corrected copies and the JSON document of the command are
    ``voxseg.export.check_report``, ``voxseg.data.fix`` and ``voxseg.data.check_document``.
    """
    from voxseg.data.check import check_dataset, find_pairs

    dataset, known = find_pairs(Path(data), as_path(labels))
    return check_dataset(dataset, notify, known)


def series(folder: Place) -> "tuple[Series, ...]":
    """List the series of a DICOM folder; see ``voxseg data series --help``."""
    from voxseg.data.dicom_series import list_series

    return list_series(Path(folder))


def split(
    data: Place,
    output: Place,
    *,
    folds: int = 3,
    leave_one_out: bool = False,
    groups: Place | None = None,
    strata: str = "",
    labels: Place | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> "tuple[Fold, ...]":
    """Deal the cases of ``data`` into folds and write them to ``output``; see ``voxseg split``."""
    check_exists(data, labels, groups)  # before torch is loaded
    from voxseg.engine.dealing import Dealing, write_dealt

    dealing = Dealing(
        folds=folds, leave_one_out=leave_one_out, groups=as_path(groups), strata=strata
    )
    return write_dealt(Path(data), as_path(labels), Path(output), dealing, seed, overwrite)


def supervoxels(
    images: Place | Sequence[Place],
    output: Place,
    *,
    labels: Place | None = None,
    method: "Method" = "slic",
    size_mm: float = 7.0,
    compactness: float = 0.1,
    iterations: int = 10,
    sigma_mm: float = 0.0,
    mask: "MaskMode" = "auto",
    target_oracle: float | None = None,
    sweep: bool = False,
    run: Place | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = silent,
) -> "SupervoxelReport":
    """Divide volumes into supervoxels and measure them; see ``voxseg supervoxels --help``."""
    check_exists(*as_paths(images))  # before torch is loaded
    from voxseg.data.superpixels import SupervoxelSettings
    from voxseg.engine.supervoxels import SupervoxelRequest, make_supervoxels

    request = SupervoxelRequest(
        inputs=as_paths(images),
        output=Path(output),
        labels=as_path(labels),
        settings=SupervoxelSettings(
            method=method,
            size_mm=size_mm,
            compactness=compactness,
            iterations=iterations,
            sigma_mm=sigma_mm,
        ),
        mask=mask,
        target_oracle=target_oracle,
        sweep=sweep,
        run=as_path(run),
        overwrite=overwrite,
    )
    return make_supervoxels(request, say)
