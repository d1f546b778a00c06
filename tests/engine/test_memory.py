"""What prediction says it needs is what it takes, at most."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Peak of resident memory beyond what was held before, in a process of its own.
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from voxseg.data.prepare import Prepared
from voxseg.engine.config import PredictConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.inference import plan_memory, predict_probabilities
from voxseg.models import VoxResNet

design, fusion, sides = json.loads(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)
stages, widths = (3, (32, 64, 128, 256)) if fusion == "decoder" else (1, None)
network = VoxResNet(
    1, 4, design=design, fusion=fusion, stages=stages, widths=widths, width_divisor=8
).eval()
compute = choose_compute(torch.device("cpu"), "float32", "auto", 3)
compute.place(network)

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

def run(side):
    shape = (side, side - 7, side + 5)
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    cells = np.indices(shape) // 6
    regions = ((cells[0] * 64 + cells[1]) * 64 + cells[2]).astype(np.int32)
    regions = np.unique(regions, return_inverse=True)[1].reshape(shape).astype(np.int32)
    box = tuple((0, n) for n in shape)
    case = Prepared("case", image, None, regions, box, (1.0, 1.0, 1.0), None)
    settings = PredictConfig(memory_gb=100.0)
    plan = plan_memory(network, shape, compute, settings)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    predict_probabilities(network, case, compute, settings, coordinates=False)
    return plan.needed_gb, (resident("VmHWM") - before) / 1e9

run(24)  # compiles and loads
print(json.dumps([run(side) for side in sides]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux's /proc is missing")
@pytest.mark.parametrize(
    ("design", "fusion"), [("V0", "features"), ("V3", "features"), ("V0", "decoder")]
)
def test_peak_memory_stays_within_the_estimate(design, fusion):
    asked = json.dumps([design, fusion, [64, 80, 96, 112, 128]])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for needed, peak in json.loads(done.stdout)[1:]:
        # What an earlier size left behind may be used again, so there is no lower bound.
        assert peak < 1.15 * needed
