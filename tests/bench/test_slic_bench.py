"""The SLIC benchmark runs, on a volume too small to mean anything."""

import math

import numpy as np
import pytest

from voxseg.bench.slic import SlicBench, peak_bytes, run_slic_bench, simulated_volume
from voxseg.export.nifti import plain_geometry, write_map
from voxseg.metrics.superpixels import explained_variance
from voxseg.ops import slic


def test_slic_bench_measures_every_tool(tmp_path):
    told = []
    bench = SlicBench(shape=(24, 20, 28), n_segments=30, tuning_voxels=4000, memory=False)
    result = run_slic_bench(bench, told.append)
    assert [row["tool"] for row in result.rows] == ["voxseg", "scikit-image", "SimpleITK"]
    assert result.rows[0]["times voxseg"] == 1
    for row in result.rows:
        assert row["seconds"] >= 0
        assert 1 <= row["supervoxels"] <= 60
        assert 0 < row["explained variance"] < 1
        assert math.isnan(row["bytes per voxel"])
    image = simulated_volume((24, 20, 28), 0)
    compactness = result.rows[0]["compactness"]
    labels = slic(image, n_segments=30, compactness=compactness, min_size=0.25)
    variance = explained_variance(image, labels)
    assert result.rows[0]["explained variance"] == pytest.approx(variance, abs=1e-4)
    assert [set(sweep.curves) for sweep in result.sweeps] == [set(bench.tools)] * 2
    result.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert "tuning voxseg" in told


def test_slic_bench_of_a_file(tmp_path):
    image = np.zeros((30, 22, 26), np.float32)
    image[3:27, 1:21, :] = 5 + simulated_volume((24, 20, 26), 1)
    path = write_map(tmp_path / "image.nii.gz", image, plain_geometry(np.eye(4), image.shape))
    bench = SlicBench(
        image=path, n_segments=30, tuning_voxels=4000, tools=("voxseg",), memory=False, sweep=False
    )
    assert "24 x 20 x 26 voxels" in run_slic_bench(bench).title


@pytest.mark.slow
def test_slic_takes_little_memory():
    bench = SlicBench(shape=(160, 128, 160), n_segments=800, tools=("voxseg",), sweep=False)
    bytes_per_voxel = run_slic_bench(bench).rows[0]["bytes per voxel"]
    if math.isnan(bytes_per_voxel):
        pytest.skip("peak memory is read from Linux's /proc, which is not here")
    assert 4 <= bytes_per_voxel <= 20  # labels are 4; 16 at sizes that dwarf the library's own


def test_peak_bytes_rejects_an_unknown_tool(tmp_path):
    np.save(tmp_path / "image.npy", simulated_volume((16, 16, 16), 0))
    with pytest.raises(ValueError, match="no tool"):
        peak_bytes("nothing", tmp_path / "image.npy", 64, 0.1)
