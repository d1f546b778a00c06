"""Photographs, and slices of volumes, through the same commands as volumes."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from skimage import io

TINY = (
    "--set", "train.patch_voxels=[32,32]", "--set", "train.steps_per_epoch=2", "--epochs", "1",
    "--set", "train.batch_size=2", "--device", "cpu",
)  # fmt: skip
ENET = ("--set", "model.network=enet", "--set", "model.design=V0")
FCN = ("--set", "model.network=fcn")


def scene(number):
    """A photograph and its mask: 0 and 1, some of it 255."""
    rng = np.random.default_rng(number)
    mask = np.zeros((37, 45), np.uint8)
    mask[10:30, 5 + number : 25 + number] = 1
    colour = np.where(mask[..., None] == 1, [200, 60, 40], [30, 90, 160])
    pixels = np.clip(colour + rng.normal(0, 12, colour.shape), 0, 255).astype(np.uint8)
    mask[:3] = 255
    return pixels, mask


@pytest.fixture
def data(tmp_path):
    """Four photographs in images/ and masks/, the last one grey."""
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(4):
        pixels, mask = scene(number)
        picture = Image.fromarray(pixels)
        picture = picture.convert("L") if number == 3 else picture
        picture.save(folder / "images" / f"p{number}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "masks" / f"p{number}.png")
    return folder


def test_train_predict_evaluate_without_a_recipe(voxseg, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    trained = voxseg("train", data, "-o", run, *TINY, "--json")
    assert trained.code == 0, trained.err
    assert "chosen from the data: ENet V3" in trained.err
    assert "255" in trained.err
    assert "grey" in trained.err
    assert set(trained.json) >= {"dice", "iou"}
    predicted = voxseg("predict", run, data / "images", "-o", out, "--tta", "--json")
    assert predicted.code == 0, predicted.err
    assert [case["volumes"] for case in predicted.json["cases"]] == [[]] * 4
    assert io.imread(out / "p0.png").shape[:2] == (37, 45)
    with Image.open(out / "p0.png") as mask:
        assert mask.mode == "P"
        assert set(np.unique(np.asarray(mask))) <= {0, 1}
    scored = voxseg("evaluate", out, data, "--json")
    assert scored.code == 0, scored.err
    assert scored.json["photographs"] is True
    assert scored.json["pooled"]["ignored_pixels"] == 4 * 3 * 45
    assert 0 <= scored.json["pooled"]["mean_iou"] <= 1
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["selected_by"] == "iou"
    assert metrics["validation_iou"] is not None


@pytest.mark.parametrize("network", [ENET, FCN], ids=["enet", "fcn"])
def test_crossval_and_compare(voxseg, data, tmp_path, network):
    runs = [tmp_path / name for name in ("one", "two")]
    for run, seed in zip(runs, "01", strict=True):
        done = voxseg(
            "crossval", data, "-k", "2", "-o", run, *TINY, *network, "--seed", seed,
            "--set", "data.normalise=unit", "--jobs", "0",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "p3: mean IoU" in done.out
        assert sorted(p.name for p in (run / "predictions").iterdir()) == [
            f"p{number}.png" for number in range(4)
        ]
    compared = voxseg("compare", *runs, "--json")
    assert compared.code == 0, compared.err
    assert compared.json["metric"] == "iou"


def test_a_network_of_another_size_still_fits_any_photograph(voxseg, data, tmp_path):
    run = tmp_path / "run"
    assert voxseg("train", data, "-o", run, *TINY, *FCN).code == 0
    Image.fromarray(np.full((1, 1, 3), 90, np.uint8)).save(tmp_path / "dot.png")
    maps = ("--save-uncertainty", "--save-probabilities")
    done = voxseg("predict", run, tmp_path / "dot.png", "-o", tmp_path / "out", *maps, "--json")
    assert done.code == 0, done.err
    assert io.imread(tmp_path / "out" / "dot.png").shape[:2] == (1, 1)
    assert io.imread(tmp_path / "out" / "dot_entropy.tif").dtype == np.float32
    shares = [io.imread(tmp_path / "out" / f"dot_probability-{k}.tif") for k in (0, 1)]
    np.testing.assert_allclose(sum(shares), 1, atol=1e-5)


def test_a_batch_of_one_trains_with_a_global_branch(voxseg, data, tmp_path):
    deeplab = ("--set", "model.network=deeplab", "--set", "model.multi_grid=[1,2]")
    one = ("--set", "train.batch_size=1", "--set", "train.patch_voxels=[64,80]")
    done = voxseg("train", data, "-o", tmp_path / "run", *TINY, *deeplab, *one)
    assert done.code == 0, done.err


def test_slices_of_volumes_train_predict_and_cross_validate(voxseg, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        label = np.zeros((34, 20, 30), np.uint8)
        label[8:20, 5:14, 6:20] = 1
        image = (40 + 60 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        for array, name in ((image, ""), (label, "_seg")):
            path = data / f"s{number}{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.diag([1, 1.5, 1, 1.0])), path)
    options = (*TINY, "--plane", "all", "--set", "data.neighbours=1")
    enet = ("--set", "model.network=enet", "--set", "supervoxels.size_mm=4")
    done = voxseg("crossval", data, "-k", "2", "-o", run, *options, *enet, "--jobs", "0", "--json")
    assert done.code == 0, done.err
    assert len(done.json["cases"]) == 8
    out = tmp_path / "out"
    assert voxseg("predict", run, data / "s0.nii.gz", "-o", out).code == 0
    mask, image = nib.load(out / "s0.nii.gz"), nib.load(data / "s0.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_array_equal(mask.affine, image.affine)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--plane", "coronal"), 2, "photographs have one plane"),
        (("--set", "data.neighbours=1", "--set", "data.plane='axial'"), 2, "no neighbours"),
        (("--plane", "axail"), 2, "did you mean axial"),
        (("--set", "labels.values=[0,3]"), 3, "hold values [1"),
        (("--set", "model.finest_stride=8"), 2, "is nothing that enet has"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(voxseg, data, tmp_path, options, code, sentence):
    done = voxseg("train", data, "-o", tmp_path / "run", *TINY, *ENET, *options)
    assert done.code == code
    assert sentence in done.err


def test_volumes_for_a_network_of_slices_need_a_plane(voxseg, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:9, 4:9, 4 + number : 9] = 1
        for array, name in ((label * 50.0 + number + 9, ""), (label, "_seg")):
            volume = nib.Nifti1Image(array.astype(np.float32), np.eye(4))
            nib.save(volume, data / f"s{number}{name}.nii.gz")
    done = voxseg("train", data, "-o", tmp_path / "run", *TINY, *ENET)
    assert done.code == 2
    assert "--plane" in done.err


def test_a_mask_of_another_size_is_named(voxseg, data, tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "masks" / "p1.png")
    done = voxseg("train", data, "-o", tmp_path / "run", *TINY, *ENET)
    assert done.code == 3
    assert "p1" in done.err
