"""Boundaries and surface normals through the same commands as masks."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import io

TINY = (
    "--set", "train.patch_voxels=[32,32]", "--set", "train.steps_per_epoch=2", "--epochs", "1",
    "--set", "train.batch_size=2", "--device", "cpu", "--set", "model.network=enet",
    "--set", "model.design=V0",
)  # fmt: skip
SIZE = (38, 45)


def scene(number):
    """A photograph, its boundaries, and the normals of two surfaces."""
    rng = np.random.default_rng(number)
    inside = np.zeros(SIZE, bool)
    inside[10:30, 5 + number : 25 + number] = True
    colour = np.where(inside[..., None], [200, 60, 40], [30, 90, 160])
    pixels = np.clip(colour + rng.normal(0, 12, colour.shape), 0, 255).astype(np.uint8)
    drawn = inside & ~np.pad(inside, 1)[2:, 1:-1] | inside & ~np.pad(inside, 1)[:-2, 1:-1]
    drawn |= inside & ~np.pad(inside, 1)[1:-1, 2:] | inside & ~np.pad(inside, 1)[1:-1, :-2]
    normals = np.where(inside[..., None], [0.6, 0.0, 0.8], [0.0, 0.0, 1.0])
    coded = np.rint((normals + 1) / 2 * 254 + 1).astype(np.uint8)
    coded[:3] = 0
    return pixels, drawn.astype(np.uint8) * 255, coded


@pytest.fixture(scope="module")
def boundaries(tmp_path_factory):
    root = tmp_path_factory.mktemp("boundaries")
    for number in range(6):
        pixels, drawn, _ = scene(number)
        for kind, picture in (("images", pixels), ("boundaries", drawn)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(picture).save(root / kind / f"p{number}.png")
    return root


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    root = tmp_path_factory.mktemp("normals")
    for number in range(6):
        pixels, _, coded = scene(number)
        Image.fromarray(pixels).save(root / f"p{number}.rgb.png")
        Image.fromarray(coded).save(root / f"p{number}.normal.png")
    return root


@pytest.fixture(scope="module")
def sets(boundaries, normals):
    return {"boundaries": boundaries, "normals": normals}


HEADLINES = {
    "boundaries": ("pixel AP", "ods", "f"),
    "normals": ("mean angle", "mean_degrees", "mean_degrees"),
}


@pytest.mark.parametrize("task", ["boundaries", "normals"])
def test_train_predict_evaluate(voxseg, validate, sets, tmp_path, task):
    data, run, out = sets[task], tmp_path / "run", tmp_path / "out"
    trained = voxseg("train", data, "-o", run, *TINY, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["score_name"] == HEADLINES[task][0]
    assert trained.json["score"] is not None
    assert json.loads((run / "metrics.json").read_text())["validation_dice"] is None
    predicted = voxseg("predict", run, data, "-o", out, "--tta", "--json")
    assert predicted.code == 0, predicted.err
    assert [case["volumes"] for case in predicted.json["cases"]] == [[]] * 6
    assert not (out / "labels.csv").exists()
    assert io.imread(out / "p0.png").shape[:2] == SIZE
    scored = voxseg("evaluate", out, data, "-o", tmp_path / "scores", "--json")
    assert scored.code == 0, scored.err
    assert scored.json["task"] == task
    assert scored.json["totals"][HEADLINES[task][1]] is not None
    assert len(scored.json["cases"]) == 6
    for content in (trained.out, predicted.out, scored.out):
        validate(content)
    for path in (*run.glob("*.json"), *out.glob("*.json"), *(tmp_path / "scores").glob("*.json")):
        validate(path.read_text())
    validate((run / "log.jsonl").read_text().splitlines()[0])
    shown = voxseg("evaluate", out, data)
    assert "The whole set, 6 cases" in shown.out


def test_normals_are_unit_vectors_of_the_photographs_size(voxseg, normals, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    small = ("--set", "data.resize_pixels=[19,23]")
    assert voxseg("train", normals, "-o", run, *TINY, *small).code == 0
    assert voxseg("predict", run, normals, "-o", out).code == 0
    found = np.load(out / "p0.npz")["normal"].astype(np.float64)
    assert found.shape == (*SIZE, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=2e-3)


def test_boundary_maps_are_thin_and_the_probabilities_are_kept(voxseg, boundaries, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    assert voxseg("train", boundaries, "-o", run, *TINY).code == 0
    assert voxseg("predict", run, boundaries, "-o", out, "--save-probabilities").code == 0
    with Image.open(out / "p0.png") as picture:
        assert picture.mode == "L"
        thin = np.asarray(picture) / 255
    whole = io.imread(out / "p0_probability-1.tif")
    assert whole.shape == SIZE
    kept = thin > 0
    assert 0 < kept.sum() < 0.8 * kept.size
    assert (thin <= whole + 1 / 255).all()


@pytest.mark.parametrize("task", ["boundaries", "normals"])
def test_crossval_and_compare(voxseg, sets, tmp_path, task):
    runs = [tmp_path / name for name in ("one", "two")]
    for run, seed in zip(runs, "01", strict=True):
        words = ("crossval", sets[task], "-k", "2", "-o", run, *TINY, "--seed", seed)
        done = voxseg(*words, "--jobs", "0", "--set", "data.normalise=unit")
        assert done.code == 0, done.err
        assert len(list((run / "predictions").glob("p?.png"))) == 6
        content = json.loads((run / "metrics.json").read_text())
        assert len(content["cases"]) == 6
    compared = voxseg("compare", *runs, "--json")
    assert compared.code == 0, compared.err
    assert compared.json["metric"] == HEADLINES[task][2]
    assert compared.json["better"] == ("higher" if task == "boundaries" else "lower")
    assert compared.json["cases"] == 6
    assert any("Of each run's set" in note for note in compared.json["notes"])


def test_seeds_are_averaged(voxseg, normals, tmp_path):
    words = ("crossval", normals, "-k", "2", "-o", tmp_path / "run", *TINY, "--seeds", "2")
    done = voxseg(*words, "--jobs", "0", "--json", "--set", "data.normalise=unit")
    assert done.code == 0, done.err
    single = [
        json.loads((tmp_path / "run" / f"seed-{n}" / "metrics.json").read_text()) for n in (0, 1)
    ]
    means = [one["totals"]["mean_degrees"] for one in single]
    assert done.json["totals"]["mean_degrees"] == pytest.approx(sum(means) / 2)
    rows = {row["metric"]: row for row in done.json["seeds"]["rows"]}
    assert rows["mean_degrees"]["seed_1"] == pytest.approx(means[1])


def test_what_is_about_segmentation_is_refused(voxseg, sets, tmp_path):
    for words, sentence in {
        ("train", sets["normals"], "--set", "train.loss=dice"): "train.loss is about segmentation",
        ("train", sets["normals"], "--set", "labels.names=[a]"): "section labels",
        ("train", sets["normals"], "--set", "task.kind=boundaries"): "are surface normals",
        ("train", sets["boundaries"], "--set", "task.consensus=0"): "at least 1",
        ("crossval", sets["normals"], "--postprocess"): "leave it out",
    }.items():
        found = voxseg(*words, "-o", tmp_path / "run", *TINY)
        assert found.code == 2
        assert sentence in found.err
    run, out = tmp_path / "run", tmp_path / "out"
    assert voxseg("train", sets["normals"], "-o", run, *TINY).code == 0
    for option in ("--save-overlays", "--save-uncertainty", "--save-probabilities"):
        found = voxseg("predict", run, sets["normals"], "-o", out, option)
        assert found.code == 2
        assert f"{option} is about segmentations" in found.err
    assert voxseg("predict", run, sets["normals"], "-o", out).code == 0
    found = voxseg("evaluate", out, sets["normals"], "--ignore", "255")
    assert found.code == 2
    assert "about classes" in found.err


def test_a_broken_prediction_is_told_and_the_others_are_scored(voxseg, boundaries, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    assert voxseg("train", boundaries, "-o", run, *TINY).code == 0
    assert voxseg("predict", run, boundaries, "-o", out).code == 0
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(out / "p1.png")
    (out / "p2.png").unlink()
    scored = voxseg("evaluate", out, boundaries, "--json")
    assert scored.code == 4
    assert "5 x 5 pixels" in scored.json["failures"]["p1"]
    assert scored.json["without_prediction"] == ["p2"]
    assert len(scored.json["cases"]) == 4


@pytest.mark.parametrize("task", ["boundaries", "normals"])
def test_pages(voxseg, sets, tmp_path, task):
    data, run, out = sets[task], tmp_path / "run", tmp_path / "out"
    assert voxseg("train", data, "-o", run, *TINY).code == 0
    assert voxseg("predict", run, data, "-o", out, "--report", tmp_path / "p.html").code == 0
    (out / "p3.png").write_bytes(b"not a picture")
    words = ("evaluate", out, data, "-o", tmp_path / "scores", "--report", tmp_path / "s.html")
    scored = voxseg(*words)
    assert scored.code == (4 if task == "boundaries" else 0), scored.err
    later = voxseg("report", tmp_path / "scores", "-o", tmp_path / "later.html")
    assert later.code == 0, later.err
    predicted, now, then = (
        (tmp_path / name).read_text() for name in ("p.html", "s.html", "later.html")
    )
    title = "Surface normals" if task == "normals" else "Boundaries"
    assert all(f"{title}, " in page for page in (predicted, now, then))
    assert predicted.count("<figure") >= 6
    # A figure of the set, and each case that could be scored.
    assert now.count("<figure") == then.count("<figure") == (6 if task == "boundaries" else 7)
    assert ("p3 failed" in now) == (task == "boundaries")


def test_crossval_scores_labels_that_lie_apart(voxseg, normals, tmp_path):
    for number in range(4):
        for kind in ("rgb", "normal"):
            place = tmp_path / kind / f"p{number}.png"
            place.parent.mkdir(exist_ok=True)
            picture = io.imread(normals / f"p{number}.{kind}.png")
            Image.fromarray(picture).save(place)
    words = ("crossval", tmp_path / "rgb", "--labels", tmp_path / "normal", "-k", "2")
    done = voxseg(*words, "-o", tmp_path / "run", *TINY, "--jobs", "0", "--json")
    assert done.code == 0, done.err
    assert len(done.json["cases"]) == 4
