"""Classes of whole photographs through the same commands."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

SUNET = (
    "--set", "model.network=sunet", "--set", "model.filters=8",
    "--set", "model.widths=[8,16,16,16,16,16]", "--set", "model.stacks=[1,1,1,1]",
)  # fmt: skip
TINY = (
    "--set", "train.patch_voxels=[32,32]", "--set", "train.steps_per_epoch=2", "--epochs", "1",
    "--set", "train.batch_size=4", "--device", "cpu", "--set", "data.normalise=imagenet", *SUNET,
)  # fmt: skip
COLOURS = {"grass": (30, 160, 40), "sea": (30, 60, 180), "sand": (220, 200, 120)}


def picture(colour, seed):
    noise = np.random.default_rng(seed).normal(0, 15, (36, 44, 3))
    return Image.fromarray(np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for part, count in (("train", 4), ("val", 2)):
        for number, (name, colour) in enumerate(COLOURS.items()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for one in range(count):
                made = picture(colour, 100 * number + one)
                made = made.convert("L") if (part, name, one) == ("train", "sea", 0) else made
                made.save(folder / f"{part}_{name}_{one}.jpg", quality=95)
    return root


def rows(path):
    return {row["case"]: row for row in csv.DictReader(path.read_text().splitlines())}


def test_train_predict_evaluate(voxseg, validate, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    jitter = ("--set", "augment.jitter=[0.4,0.4,0.4]", "--set", "augment.lighting=0.1")
    trained = voxseg("train", data, "-o", run, *TINY, *jitter, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["score_name"] == "top-1"
    assert 0 <= trained.json["score"] <= 1
    assert json.loads((run / "metrics.json").read_text())["selected_by"] == "top-1"
    named = tmp_path / "named.html"
    words = ("predict", run, data / "val", "-o", out, "--tta", "--report", named, "--json")
    predicted = voxseg(*words)
    assert predicted.code == 0, predicted.err
    assert len(predicted.json["cases"]) == 6
    table = rows(out / "predictions.csv")
    for case in ("val_sea_0", "val_sand_1"):
        assert f"{case} <span>{table[case]['class_1']}</span>" in named.read_text()
    assert set(table["val_sea_0"].values()) >= set(COLOURS)
    shares = [float(table["val_sea_0"][f"probability_{n}"]) for n in (1, 2, 3)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    page = tmp_path / "page.html"
    scored = voxseg("evaluate", out, data, "-o", tmp_path / "scores", "--report", page, "--json")
    assert scored.code == 0, scored.err
    assert scored.json["totals"]["top5"] == 1
    assert "Classes of photographs, " in page.read_text()
    assert "taken for" in page.read_text()
    for content in (trained.out, predicted.out, scored.out):
        validate(content)
    for path in (*run.glob("*.json"), *out.glob("*.json"), *(tmp_path / "scores").glob("*.json")):
        validate(path.read_text())
    again = voxseg("predict", run, data / "val", "-o", out)
    assert again.code == 2
    assert "--overwrite" in again.err


def test_classes_that_colours_tell_are_learnt(voxseg, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    # Statistics of the norms follow slowly: momentum is 0.01.
    longer = ("--set", "train.steps_per_epoch=200", "--set", "train.learning_rate=0.005")
    trained = voxseg("train", data, "-o", run, *TINY, *longer, "--set", "train.ema_decay=0")
    assert trained.code == 0, trained.err
    assert voxseg("predict", run, data / "val", "-o", out).code == 0
    scored = voxseg("evaluate", out, data, "--json")
    assert scored.json["totals"]["top1"] >= 5 / 6


def test_crossval_compare_and_a_segmentation_from_the_trunk(voxseg, data, tmp_path):
    runs = [tmp_path / name for name in ("one", "two")]
    for run, seed in zip(runs, "01", strict=True):
        words = ("crossval", data, "-k", "2", "-o", run, *TINY, "--seed", seed, "--jobs", "0")
        done = voxseg(*words)
        assert done.code == 0, done.err
        assert len(list((run / "predictions").glob("predictions-fold-?.csv"))) == 2
        assert len(json.loads((run / "metrics.json").read_text())["cases"]) == 18
    compared = voxseg("compare", *runs, "--json")
    assert compared.code == 0, compared.err
    assert compared.json["metric"] == "top1"
    masks = tmp_path / "masks"
    for kind in ("images", "masks"):
        (masks / kind).mkdir(parents=True)
    for number in range(3):
        picture((30, 60, 180), number).save(masks / "images" / f"p{number}.png")
        mask = np.zeros((36, 44), np.uint8)
        mask[:, 20:] = 1
        Image.fromarray(mask).save(masks / "masks" / f"p{number}.png")
    start = ("--init-from", runs[0] / "fold-0", "--set", "model.output_stride=16")
    run = tmp_path / "segmentation"
    done = voxseg("train", masks, "-o", run, *TINY, *start, "--set", "train.loss=ce")
    assert done.code == 0, done.err
    assert "3 classes became 2, so its head starts anew" in done.out


def test_what_is_about_other_tasks_is_refused(voxseg, data, tmp_path):
    for words, sentence in {
        ("--set", "augment.resize=[0.5,2]"): "other tasks than that",
        ("--set", "model.network=enet", "--set", "model.filters=0"): "does not classify",
        ("--set", "train.loss=ce"): "train.loss is about segmentation",
        ("--set", 'labels.names=["sea","grass"]'): "lacks the classes sand",
    }.items():
        settings = [*TINY, *words]
        if "model.network=enet" in words:
            settings = [*TINY[: -len(SUNET)], "--set", "model.network=enet"]
        found = voxseg("train", data, "-o", tmp_path / "run", *settings)
        assert found.code == 2
        assert sentence in found.err
