"""The pooling benchmark, on sizes too small to mean anything, and the result that it shares."""

import pytest
import torch

from voxseg.bench import pool
from voxseg.bench.pool import PoolBench, run_pool_bench
from voxseg.bench.report import BenchResult, Sweep, machine_info
from voxseg.ops.reference import superpixel_pool as reference

TINY = PoolBench(
    side=20,
    channels=3,
    count=30,
    repeats=1,
    sweep_channels=2,
    sweep_sides=(16, 20),
    sweep_counts=(5, 20),
)


def test_pool_bench_measures_every_method(tmp_path):
    told = []
    result = run_pool_bench(TINY, told.append)
    names = ["copy of the features", *(method.name for method in pool.METHODS)]
    assert [row["method"] for row in result.rows] == names
    assert "20^3 voxels, 3 channels" in result.title
    sizes = len(TINY.sweep_sides) + len(TINY.sweep_counts)
    on_gpu = torch.cuda.is_available()
    assert len(told) == 2 + sizes + (not on_gpu)
    rows = {row["method"]: row for row in result.rows}
    assert rows["voxseg max"]["times voxseg"] == 1
    assert rows["voxseg mean"]["times voxseg"] == 1
    for name in names[1:]:
        ours = rows["voxseg mean" if "mean" in name else "voxseg max"]["forward + backward ms"]
        ratio = rows[name]["forward + backward ms"] / ours
        assert rows[name]["times voxseg"] == pytest.approx(ratio, rel=0.5)
    by_voxels, by_count = result.sweeps
    names = {method.name for method in pool.METHODS if method.swept}
    swept = {"SciPy max"} | names | ({f"{name}, CUDA" for name in names} if on_gpu else set())
    assert set(by_voxels.curves) == set(by_count.curves) == swept
    assert [x for x, _ in by_voxels.curves["voxseg max"]] == [16**3, 20**3]
    assert len(by_count.curves["voxseg mean"]) == len(TINY.sweep_counts)
    assert result.to_json()["rows"] == result.rows
    result.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:.*in beta:UserWarning")
@pytest.mark.parametrize("method", pool.METHODS, ids=lambda method: method.name)
def test_methods_compute_what_they_say(method):
    case = pool._make_case(TINY, 16, 3, 20)
    arguments = (case.features.numpy(), case.superpixels.numpy(), case.count)
    if method.computes == "max":
        expected = reference.superpixel_max(*arguments)[0]
    else:
        expected = reference.superpixel_mean(*arguments)
    found = method.pool(case.features, case).view(1, 3, case.count)
    torch.testing.assert_close(found, torch.from_numpy(expected).float())


def test_result_without_curves_has_nothing_to_plot(tmp_path):
    result = BenchResult("title", machine_info(2), [{"method": "a", "ms": 1.0}])
    assert result.columns == ["method", "ms"]
    assert result.machine["num_threads"] == 2
    with pytest.raises(ValueError, match="no sweep"):
        result.plot(tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
    assert BenchResult("title", {}, []).columns == []


def test_plot_draws_every_curve(tmp_path):
    sizes = []
    for curves in ({"a": [(1.0, 2.0), (10.0, 20.0)]}, {"a": [(1.0, 2.0)], "b": [(1.0, 3.0)]}):
        sweep = Sweep("title", "voxels", "ms", curves)
        BenchResult("title", {}, [], [sweep, sweep]).plot(tmp_path / "plot.png")
        sizes.append((tmp_path / "plot.png").stat().st_size)
    assert sizes[0] != sizes[1]
