"""Damaged DICOM ends in a sentence or in a volume, never in a traceback."""

import shutil

import numpy as np
import pytest

from voxseg.data.dicom import read_grid, read_series
from voxseg.data.dicom_series import find_series, series_document
from voxseg.data.layouts import find_cases
from voxseg.errors import VoxsegError
from voxseg.export.dicom_seg import write_dicom_seg
from voxseg.export.labels import plain_table

pytestmark = [
    pytest.mark.slow,
    # What pydicom thinks of damaged values on its way.
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def use(folder, out):
    """Do all that is done with a series."""
    (case,) = find_cases(folder, need_labels=False).cases
    series_document(find_series(folder))
    read_series(case.images)
    grid = read_grid(case.images)
    label = np.zeros(grid.shape, np.uint8)
    label[1:3, 1:3, 1:3] = 1
    write_dicom_seg(out, label, grid.frames, plain_table({1: "thing"}))


@pytest.mark.parametrize("kind", ["single", "multiframe"])
def test_damaged_bytes(tmp_path, dicom, kind):
    pytest.importorskip("highdicom", reason="DICOM is an extra, and highdicom is missing")
    rng = np.random.default_rng(11)
    whole = tmp_path / "whole"
    if kind == "single":
        dicom.write_series(whole, dicom.phantom((6, 5, 4)))
    else:
        dicom.write_multiframe(whole / "m.dcm", dicom.phantom((6, 5, 4)))
    ends = {"whole": 0, "refused": 0}
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        path = sorted(folder.iterdir())[0]
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), rng.choice([1, 3, 10])):
            content[place] = rng.integers(256)
        if rng.random() < 0.2:
            del content[rng.integers(len(content)) :]
        path.write_bytes(content)
        try:
            use(folder, folder / "out" / "seg.dcm")
            ends["whole"] += 1
        except VoxsegError:
            ends["refused"] += 1
    assert min(ends.values()) > 5
