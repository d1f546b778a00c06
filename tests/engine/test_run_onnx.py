"""The runner without torch: the masks of voxseg, from numpy, nibabel and onnxruntime alone."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import voxseg
from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, merge, to_tables
from voxseg.engine.network import build_network
from voxseg.errors import UsageError

RUNNER = Path(__file__).parents[2] / "examples" / "run_onnx.py"
ALONE = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "voxseg", "monai", "scipy", "skimage"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_run(folder, tables):
    tables = merge(
        {
            "labels": {"values": [0, 2, 5], "names": ["none", "outer", "inner"]},
            "supervoxels": {"size_mm": 3.0},
            "train": {"precision": "float32"},
        },
        tables,
    )
    config = build(tables)
    torch.manual_seed(0)
    channels = 4 if config.data.coordinates else 1
    network = build_network(config.model, channels, 3, 3)
    for weight in network.heads.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    content = {"model": network.state_dict(), "config": to_tables(config), "spatial_dims": 3,
               "in_channels": channels}  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "best.pt", content)
    return folder


def segment_alone(*words):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(RUNNER), *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def oblique(volume, target):
    """Write a volume again with other axes, one flipped, on a tilted grid."""
    image = nib.load(volume).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    affine = np.array([[0.98, -0.2, 0, 3], [0.2, 0.98, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine @ image.affine), target)
    return target


@pytest.mark.parametrize(
    "tables",
    [
        {"model": {"design": "V3"}},
        {"model": {"design": "V4"}},
        {"model": {"design": "V0"},
         "data": {"spacing_mm": [0.7, 1.9, 1.3], "coordinates": True, "normalise": "median"}},
    ],
    ids=["supervoxels", "placed", "resampled"],
)  # fmt: skip
def test_it_gives_voxsegs_mask_without_torch(tables, make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 1)
    volume = oblique(data / "case0.nii.gz", tmp_path / "volume.nii.gz")
    run = write_run(tmp_path / "run", tables)
    voxseg.export_onnx(run, tmp_path / "n.onnx", case=volume)
    voxseg.predict(run, volume, tmp_path / "own.nii.gz", device="cpu")
    words = [tmp_path / "n.onnx", volume, tmp_path / "mask.nii.gz"]
    if tables["model"]["design"] != "V0":
        voxseg.supervoxels(volume, tmp_path / "map.nii.gz", run=run)
        words += ["--supervoxels", tmp_path / "map.nii.gz"]
    segment_alone(*words)
    mask, own = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "own.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(own.dataobj))
    np.testing.assert_array_equal(mask.affine, own.affine)
    assert mask.get_data_dtype() == own.get_data_dtype()
    assert len(np.unique(own.dataobj)) == 3


def test_supervoxels_of_a_run_are_those_that_prediction_pools(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 2)
    run = write_run(tmp_path / "run", {"data": {"spacing_mm": [1.0, 1.0, 1.0]}})
    report = voxseg.supervoxels(data, tmp_path / "maps", run=run)
    assert [case.error for case in report.cases] == ["", ""]
    assert all(case.dice[2] > 0.8 for case in report.cases)
    assert report.settings.size_mm == 3.0
    with pytest.raises(UsageError, match="--run takes the supervoxels' settings from"):
        voxseg.supervoxels(data, tmp_path / "more", run=run, size_mm=4.0)
