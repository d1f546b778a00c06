"""PixelNet through the engine: sparse training of volumes and photographs, tiles, memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from voxseg.data.orientation import Orientation
from voxseg.data.prepare import Grid, Prepared, PrepareSettings
from voxseg.data.reading import read_label
from voxseg.engine import inference, memory
from voxseg.engine.config import ModelConfig, PredictConfig
from voxseg.engine.device import choose_compute
from voxseg.engine.gather import Wanted
from voxseg.engine.inference import Ensemble, plan_memory
from voxseg.engine.memory import MemoryPlan
from voxseg.engine.network import build_network, deepest_stride
from voxseg.engine.predict import PredictRequest, predict
from voxseg.engine.tiles import Tiling
from voxseg.engine.train import TrainRequest, train
from voxseg.layers.depth_first import LiveBytes

COMPUTE = choose_compute(torch.device("cpu"), "float32", "auto", 3)
VOLUMES = {
    "network": "pixelnet", "trunk": "voxresnet", "taps": ["conv1b", "voxres3", "voxres6"],
    "width_divisor": 8, "hidden": [16], "dropout": 0.0, "normalise_taps": True, "head_std": 0.0,
}  # fmt: skip
PHOTOGRAPHS = {
    "network": "pixelnet", "taps": ["1_2", "2_2", "3_3"], "widths": [4, 8, 8, 8, 8, 8],
    "hidden": [16, 16], "dropout": 0.0, "batch_norm": True, "normalise_taps": True,
    "head_std": 0.0,
}  # fmt: skip


def trained(folder, run, model, train_settings, **settings):
    tables = {
        "model": model,
        "train": {
            "epochs": 4,
            "steps_per_epoch": 10,
            "pixels": 300,
            "validate_every": 4,
            "learning_rate": 1e-2,
            "precision": "float32",
            "ema_decay": 0.5,
            **train_settings,
        },
        "augment": {"affine_probability": 0.0, "intensity_probability": 0.0, "noise": 0.0},
        **settings,
    }
    return train(TrainRequest(data=folder, run=run, settings=tables, device="cpu"))


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_sparse_voxels_of_volumes_are_enough(subjects, tmp_path, sampling):
    patch = {"patch_voxels": [20, 20, 16], "pixel_sampling": sampling}
    result = trained(subjects, tmp_path / "run", VOLUMES, patch)
    assert result.best_dice > 0.75
    request = PredictRequest(
        checkpoint=tmp_path / "run",
        inputs=(subjects / "case0.nii.gz",),
        output=tmp_path / "out",
        device="cpu",
    )
    predict(request)
    assert {0, 2, 5} == set(np.unique(read_label(tmp_path / "out" / "case0.nii.gz").array))


def test_slices_of_volumes_with_a_voxresnet_trunk(subjects, tmp_path):
    data = {"plane": "axial", "neighbours": 1}
    patch = {"patch_voxels": [20, 16], "batch_size": 4}
    result = trained(subjects, tmp_path / "run", VOLUMES, patch, data=data)
    assert result.best_dice > 0.6


@pytest.fixture
def photographs(tmp_path):
    """Discs in front of another colour, some pixels unlabelled."""
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rows, columns = np.mgrid[:37, :45]
    for number in range(5):
        rng = np.random.default_rng(number)
        mask = (np.hypot(rows - 18, columns - 15 - 3 * number) < 11).astype(np.uint8)
        colour = np.where(mask[..., None] == 1, [200, 60, 40], [30, 90, 160])
        pixels = np.clip(colour + rng.normal(0, 12, colour.shape), 0, 255).astype(np.uint8)
        mask[:3] = 255
        Image.fromarray(pixels).save(folder / "images" / f"p{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"p{number}.png")
    return folder


def test_sparse_pixels_of_photographs_are_enough(photographs, tmp_path):
    settings = {
        "patch_voxels": [32, 32], "batch_size": 3, "class_share": 0.0, "loss": "ce",
        "head_rate": 2.0, "head_bias_rate": 4.0,
    }  # fmt: skip
    result = trained(
        photographs, tmp_path / "run", PHOTOGRAPHS, settings, data={"normalise": "unit"}
    )
    assert result.best_iou > 0.7


def prepared(shape, channels):
    rng = np.random.default_rng(0)
    box = tuple((0, n) for n in shape)
    return Prepared(
        case_id="a",
        image=rng.normal(size=(channels, *shape)).astype(np.float32),
        label=None,
        superpixels=None,
        mask_box=box,
        spacing=(1.0,) * len(shape),
        grid=Grid(shape, Orientation((0, 1, 2), (False,) * 3), shape, box),
    )


def network_of(model, dims, channels=1):
    torch.manual_seed(0)
    config = ModelConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in model.items()})
    return build_network(config, channels, 3, dims).eval()


def test_tiles_answer_as_the_whole_and_less_margin_does_not():
    network = network_of(VOLUMES, 3)
    reach, stride = network.reach, deepest_stride(network)
    shape = (91, 10, 9)
    less = tuple(max(0, r // 3) for r in reach)
    ensemble = Ensemble(networks=(network,), compute=COMPUTE, data=PrepareSettings())
    whole, tiles, short = (
        inference._run(
            ensemble,
            prepared(shape, 1),
            PredictConfig(memory_gb=100.0),
            [MemoryPlan(0, 0, cut, False)],
            Wanted(),
        ).probabilities
        for cut in (
            Tiling(shape, shape, reach, stride),
            Tiling(shape, (24, 10, 9), reach, stride),
            Tiling(shape, (24, 10, 9), less, stride),
        )
    )
    np.testing.assert_allclose(tiles, whole, atol=2e-5)
    assert np.abs(short - whole).max() > 1e-4


@pytest.mark.parametrize(
    ("model", "shape"),
    [(VOLUMES, (41, 52, 33)), (PHOTOGRAPHS, (150, 230)), (PHOTOGRAPHS, (300, 400))],
    ids=["volume", "photograph", "larger"],
)
def test_the_estimate_is_what_a_prediction_takes_at_most(model, shape, monkeypatch):
    monkeypatch.setattr(memory, "_FIXED_GB", 0.0)
    monkeypatch.setattr(memory, "_SAFETY", 1.0)
    network = network_of({**model, "hidden": [64, 64]}, len(shape))
    monkeypatch.setattr(type(network), "block_bytes", 2**20)
    image = torch.zeros(1, 1, *shape)
    plan = plan_memory(network, shape, COMPUTE, PredictConfig(memory_gb=100.0))
    with torch.no_grad(), LiveBytes("cpu") as live:
        network(image)
    assert plan.is_whole
    assert 0.4 * plan.needed_gb < live.peak / 1e9 < plan.needed_gb
