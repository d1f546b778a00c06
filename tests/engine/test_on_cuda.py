"""Runs on a CUDA device: the same answers as on the CPU, and no waiting where none is needed.

Without a GPU the device is pretended (``tests/cuda_on_cpu/device.py``): a tensor left on the wrong
device, a copy that nobody waited for or a wait in every step shows there too.
"""

import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
import torch

from voxseg.bench import gpu_part
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.config import merge
from voxseg.engine.predict import PredictRequest, predict
from voxseg.engine.train import TrainRequest, train

pytestmark = pytest.mark.cuda
DESIGNS = ["V0", "V1", "V2", "V3", "V4"]
# A GPU of its own rounds otherwise, in TF32 too.
IS_PRETENDED = torch.version.cuda is None
LOSS_ERROR = 1e-3 if IS_PRETENDED else 0.05
SAME_VOXELS = 0.9999 if IS_PRETENDED else 0.99


def run_of(folder, run, settings, device, **changes):
    request = TrainRequest(data=folder, run=run, settings=settings, device=device, **changes)
    return train(request)


def weights(run):
    return load_checkpoint(run / "checkpoints" / "last.pt")["model"]


def losses(run):
    """The mean loss of each epoch. Weights say less: where a gradient is only rounding, AdamW
    makes steps of it.
    """
    history = load_checkpoint(run / "checkpoints" / "last.pt")["state"]["history"]
    return [epoch["loss"] for epoch in history]


def masks(run, inputs, output, device, **changes):
    said = []
    request = PredictRequest(
        checkpoint=run, inputs=tuple(inputs), output=output, device=device, **changes
    )
    outcomes = predict(request, say=said.append)
    assert [one.error for one in outcomes] == [""] * len(outcomes)
    found = sorted(path for path in output.glob("*.nii.gz") if "_" not in path.name)
    return [np.asarray(nib.load(path).dataobj) for path in found], said


@pytest.mark.parametrize("design", DESIGNS)
def test_training_learns_what_it_learns_on_the_cpu(subjects, quick, tmp_path, design, cuda_device):
    settings = merge(quick, {"model": {"design": design}, "train": {"epochs": 2}})
    for device in ("cuda", "cpu"):
        run_of(subjects, tmp_path / device, settings, device)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=LOSS_ERROR)
    assert all(value.device.type == "cpu" for value in weights(tmp_path / "cuda").values())


@pytest.mark.parametrize(("design", "plans"), [("V0", 0), ("V3", 1), ("V4", 1)])
def test_a_step_waits_for_nothing_but_its_plan(
    subjects, quick, tmp_path, design, plans, pretence, cuda_device
):
    train_settings = {"epochs": 1, "steps_per_epoch": 5, "validate_every": 1}
    settings = merge(quick, {"model": {"design": design}, "train": train_settings})
    with pretence.waits() as waits:
        run_of(subjects, tmp_path / "run", settings, "cuda")
    elsewhere = ("checkpoint.py", "device.py", "streaming.py", "segmentation.py")
    in_steps = [one for one in waits if not any(file in one for file in elsewhere)]
    reasons = Counter(one.partition(":")[0] if "nonzero" not in one else "plan" for one in in_steps)
    # The loss of a step is read when the next one has been queued; weights are looked at at the
    # end of an epoch.
    expected = {"an event in engine/steps.py": 5, "aten": 1, "plan": 5 * plans}
    assert reasons == {key: count for key, count in expected.items() if count}, in_steps
    assert all("superpixel_plan.py" in one for one in in_steps if "nonzero" in one)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("workers", [0, 1])
def test_half_precision_and_workers(subjects, quick, tmp_path, precision, workers, cuda_device):
    change = {"precision": precision, "workers": workers, "epochs": 2, "steps_per_epoch": 6}
    result = run_of(subjects, tmp_path / "run", merge(quick, {"train": change}), "cuda")
    assert result.steps == 12
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_a_run_goes_on_on_another_device(subjects, quick, tmp_path, cuda_device):
    for run, devices in {"both": ("cuda", "cpu", "cuda"), "cpu": ("cpu", "cpu", "cpu")}.items():
        for epochs, device in enumerate(devices, start=1):
            settings = merge(quick, {"train": {"epochs": epochs}})
            run_of(subjects, tmp_path / run, settings, device, resume=epochs > 1)
    assert losses(tmp_path / "both") == pytest.approx(losses(tmp_path / "cpu"), rel=LOSS_ERROR)


@pytest.mark.parametrize("design", ["V3", "V4"])
def test_masks_are_those_of_the_cpu(subjects, quick, tmp_path, design, cuda_device):
    run = tmp_path / "run"
    learnt = {"epochs": 1, "steps_per_epoch": 60, "validate_every": 1}
    run_of(subjects, run, merge(quick, {"model": {"design": design}, "train": learnt}), "cpu")
    inputs = [subjects / f"case{number}.nii.gz" for number in range(2)]
    expected, _ = masks(run, inputs, tmp_path / "cpu", "cpu")
    assert len(np.unique(expected)) == 3
    for name, changes in {
        "whole": {},
        "flips": {"tta": True},
        "little": {"low_memory": True},
        "all": {"save_probabilities": True, "save_uncertainty": True},
    }.items():
        found, _ = masks(run, inputs, tmp_path / name, "cuda", **changes)
        if name == "flips":
            expected_here, _ = masks(run, inputs, tmp_path / "cpu-flips", "cpu", tta=True)
        else:
            expected_here = expected
        for one, other in zip(found, expected_here, strict=True):
            assert (one == other).mean() > SAME_VOXELS, name


def test_a_device_that_is_too_small_leads_down_the_ladder(
    subjects, quick, tmp_path, pretence, monkeypatch
):
    run = tmp_path / "run"
    run_of(subjects, run, merge(quick, {"train": {"epochs": 1}}), "cpu")
    inputs = [subjects / "case0.nii.gz"]
    expected, _ = masks(run, inputs, tmp_path / "cpu", "cpu")
    with pretence.pretended():
        torch.cuda.reset_peak_memory_stats()
        masks(run, inputs, tmp_path / "enough", "cuda")
        most = torch.cuda.max_memory_allocated()
    with pretence.pretended(memory_bytes=most * 9 // 10):
        # Others take it between the question and the need.
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 << 30, 8 << 30))
        found, said = masks(run, inputs, tmp_path / "cuda", "cuda")
    assert any("out of memory" in one for one in said), said
    assert (found[0] == expected[0]).mean() > SAME_VOXELS


@pytest.mark.parametrize("part", gpu_part.PARTS)
def test_every_part_of_make_gpu_runs(part, tmp_path, cuda_device, capsys):
    output = tmp_path / "out.json"
    assert gpu_part.main([part, "--device", "cuda", "--small", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["rows"] or result["sweeps"]
    assert "failed" not in capsys.readouterr().out
