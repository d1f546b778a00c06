"""``voxseg bench predict``: the head that it predicts, and the row that a launch becomes."""

import math

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from voxseg.bench import predict as module
from voxseg.bench.heads import write_head
from voxseg.bench.predict import PredictBench, run_predict_bench
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.network import network_of
from voxseg.engine.untrained import write_untrained
from voxseg.errors import DataError, UsageError, VoxsegError

CPU = torch.device("cpu")


def test_the_head_is_one_piece_of_three_tissues_as_large_as_ibsrs(tmp_path):
    image = nib.load(write_head(tmp_path / "head.nii.gz", (64, 32, 64), 0))
    np.testing.assert_allclose(image.header.get_zooms(), (0.9375, 1.5, 0.9375))
    values = np.asarray(image.dataobj)
    assert ndimage.label(values > 0)[1] == 1
    assert 0.1 < (values > 0).mean() < 0.2  # IBSR's brains fill 0.10 to 0.20 of their volumes
    peaks = np.histogram(values[values > 0], bins=(40, 85, 135, 190))[0]
    assert (peaks > 0.1 * peaks.sum()).all()


def launches(walls):
    """What launches give that take so long, and a second case whose network is quicker."""
    stages = {"read": 0.25, "network": 0.5, "write": 0.125}
    cases = [
        {"seconds": 1.0, "stages": stages},
        {"seconds": 0.75, "stages": stages | {"network": 0.375}},
    ]
    left = list(walls)

    def launch(times=1):
        wall = left.pop(0) if times == 1 else 99.0
        return module._Launch(wall, wall / 2, cases[:times])

    return launch


def test_a_row_is_the_fastest_launch_and_its_parts_make_the_whole():
    row = module._row("full-v0", 7, 3, launches([9.0, 3.0, 4.0]))
    assert (row["total s"], row["CPU s"], row["array to labels s"]) == (3.0, 1.5, 0.375)
    assert row["start and end s"] == 2.0
    assert (row["read s"], row["network s"], row["rest s"]) == (0.25, 0.5, 0.125)
    assert math.isnan(row["supervoxels s"])


def test_a_prediction_that_fails_is_told(tmp_path):
    image = tmp_path / "head.nii.gz"
    image.write_bytes(b"nothing")
    bench = PredictBench(networks=("reduced8-v0",), image=image, repeats=1)
    with pytest.raises(VoxsegError, match=r"predict failed on .*head.nii.gz: .*case0"):
        run_predict_bench(bench, CPU, write_untrained, lambda _: None)


@pytest.mark.parametrize(("name", "message"), [("no.nii.gz", "there is no"), (".", "is a folder")])
def test_an_image_that_is_no_file_is_told_before_anything_is_made(tmp_path, name, message):
    bench = PredictBench(networks=("reduced8-v0",), image=tmp_path / name)
    with pytest.raises(DataError, match=message):
        run_predict_bench(bench, CPU, None, None)


def test_untrained_networks_are_the_recipes(tmp_path):
    state = torch.get_rng_state()
    count = write_untrained("ibsr-reduced8-v3", tmp_path / "a" / "best.pt")
    write_untrained("ibsr-reduced8-v3", tmp_path / "b.pt")
    assert torch.equal(torch.get_rng_state(), state)
    contents = [load_checkpoint(tmp_path / name) for name in ("a/best.pt", "b.pt")]
    network, config = network_of(contents[0], tmp_path)
    assert (config.model.design, config.model.width_divisor) == ("V3", 8)
    assert config.labels.values == (0, 1, 2, 3)
    assert sum(p.numel() for p in network.parameters()) == count
    for name, weights in contents[0]["model"].items():
        torch.testing.assert_close(contents[1]["model"][name], weights, rtol=0, atol=0)
    with pytest.raises(UsageError, match="no recipe"):
        write_untrained("nothing", tmp_path / "c.pt")
