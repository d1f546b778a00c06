"""``voxseg supervoxels``: maps on the source's grid, the oracle, the search and the sweep."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import typer
from scipy import ndimage
from typer.testing import CliRunner

from voxseg.cli.supervoxels import supervoxels
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.export.nifti import plain_geometry, write_map, write_mask
from voxseg.metrics.superpixels import oracle_dice
from voxseg.ops import block_partition, slic

SHAPE = (24, 21, 18)
SPACING = (1.0, 1.5, 2.0)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 2.0, 3], [0, 0, 0, 1]])

app = typer.Typer()
app.command()(supervoxels)


def run(*words):
    """Call the command; an error that a user can cure is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(result.exception, VoxsegError):
        raise result.exception
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write_case(folder, name, seed, *, label=True):
    """A noisy ball in a ball, the outside of which is 0."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    radius = np.hypot(np.hypot(z - 12 + seed, (y - 10) * 1.5), (x - 9) * 2.0)
    truth = (radius < 10).astype(int) + (radius < 6 + rng.random())
    bumps = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1)
    image = np.where(truth > 0, 50.0 * truth + 200 * bumps, 0).astype(np.float32)
    geometry = plain_geometry(AFFINE, SHAPE)
    write_map(folder / f"{name}.nii.gz", image, geometry)
    if label:
        write_mask(folder / f"{name}_seg.nii.gz", truth, geometry)
    return image, truth


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    return folder, {name: write_case(folder, name, seed) for seed, name in enumerate("ab")}


def read(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image


def test_maps_and_oracle_of_a_folder(data, tmp_path):
    folder, cases = data
    result = run(folder, "-o", tmp_path / "out", "--size-mm", 4, "--json")
    report = json.loads(result.stdout)
    rows = list(csv.DictReader((tmp_path / "out" / "oracle.csv").read_text().splitlines()))
    means = []
    for case, row, (name, (image, truth)) in zip(report["cases"], rows, cases.items(), strict=True):
        expected = slic(image, size_mm=4, compactness=0.1, spacing=SPACING, mask=image != 0)
        written, header = read(tmp_path / "out" / f"{name}_supervoxels.nii.gz")
        np.testing.assert_array_equal(written, expected + 1)
        np.testing.assert_array_equal(header.affine, AFFINE)
        dice = oracle_dice(expected, truth)
        assert case["case_id"] == row["case"] == name
        assert case["num_supervoxels"] == int(row["supervoxels"]) == expected.max() + 1
        assert case["dice"] == pytest.approx({str(k): v for k, v in dice.items()})
        assert float(row["mean"]) == pytest.approx(np.mean(list(dice.values())), abs=1e-6)
        means.append(dice[2])
    assert report["mean_dice"]["2"] == pytest.approx(np.mean(means))
    assert "oracle Dice" in run(folder, "-o", tmp_path / "table").stdout


def test_blocks_without_a_mask_and_without_labels(tmp_path):
    write_case(tmp_path, "one", 3, label=False)
    out = tmp_path / "made" / "map.nii.gz"
    result = run(
        tmp_path / "one.nii.gz", "-o", out, "--method", "block", "--mask", "all", "--size-mm", 5
    )
    expected = block_partition(SHAPE, size_mm=5, spacing=SPACING)
    np.testing.assert_array_equal(read(out)[0], expected + 1)
    assert "oracle" not in result.stdout
    assert sorted(path.name for path in out.parent.iterdir()) == ["map.nii.gz"]


def test_label_of_a_single_image_and_labels_apart(data, tmp_path):
    folder, _ = data
    apart = tmp_path / "apart"
    apart.mkdir()
    (folder / "b_seg.nii.gz").rename(apart / "b.nii.gz")
    single = run(
        folder / "b.nii.gz", "--labels", apart / "b.nii.gz", "-o", tmp_path / "1", "--json"
    )
    among = run(folder / "b.nii.gz", "--labels", apart, "-o", tmp_path / "2", "--json")
    dice = [json.loads(result.stdout)["cases"][0]["dice"] for result in (single, among)]
    assert dice[0] == dice[1] != {}


def test_labels_outside_the_mask_count_against_the_oracle(data, tmp_path):
    folder, _ = data
    path = folder / "a_seg.nii.gz"
    truth, _ = read(path)
    truth = truth.astype(int)
    before = json.loads(run(folder, "-o", tmp_path / "1", "--json").stdout)["cases"][0]["dice"]
    truth[0, 0, :] = 2
    write_mask(path, truth, plain_geometry(AFFINE, SHAPE))
    after = json.loads(run(folder, "-o", tmp_path / "2", "--json").stdout)["cases"][0]["dice"]
    assert after["2"] < before["2"]
    assert after["1"] == before["1"]


def test_target_oracle_finds_a_size(data, tmp_path):
    folder, _ = data
    result = run(folder, "-o", tmp_path / "out", "--target-oracle", 0.85, "--json")
    report = json.loads(result.stdout)
    closest = min(report["search"], key=lambda point: abs(point["oracle"] - 0.85))
    assert abs(closest["oracle"] - 0.85) < 0.01
    assert report["settings"]["size_mm"] == closest["size_mm"]
    assert report["mean"] == pytest.approx(closest["oracle"])


@pytest.mark.parametrize("target", ["0.0", "1.0", "0.02"])
def test_target_oracle_that_no_size_reaches(target, data, tmp_path):
    with pytest.raises(UsageError, match="oracle"):
        run(data[0], "-o", tmp_path / "out", "--target-oracle", target, "--iterations", 1)
    assert not (tmp_path / "out").exists()


def test_sweep_draws_both_methods(data, tmp_path):
    result = run(data[0], "-o", tmp_path / "out", "--sweep", "--size-mm", 6, "--json")
    sweep = json.loads(result.stdout)["sweep"]
    for method in ("slic", "block"):
        points = [point for point in sweep if point["method"] == method]
        sizes = [point["size_mm"] for point in points]
        numbers = [point["num_supervoxels"] for point in points]
        assert sizes == sorted(sizes)
        assert numbers == sorted(numbers, reverse=True)
        assert points[0]["oracle"] > points[-1]["oracle"]
    picture = (tmp_path / "out" / "sweep.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "Sweep" in run(data[0], "-o", tmp_path / "table", "--sweep", "--size-mm", 8).stdout


def test_search_needs_labels(tmp_path):
    write_case(tmp_path, "one", 0, label=False)
    with pytest.raises(DataError, match="no image has a label"):
        run(tmp_path / "one.nii.gz", "-o", tmp_path / "out", "--target-oracle", 0.9)


def test_existing_output_is_kept(data, tmp_path):
    out = tmp_path / "out"
    run(data[0], "-o", out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match="exists"):
        run(data[0], "-o", out, "--size-mm", 9)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    run(data[0], "-o", out, "--size-mm", 9, "--overwrite")
    assert {path: path.read_bytes() for path in out.iterdir()} != before


def test_broken_image_among_others(data, tmp_path):
    folder, _ = data
    geometry = plain_geometry(AFFINE, SHAPE)
    (folder / "a.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:200])
    write_map(folder / "c.nii.gz", np.zeros(SHAPE), geometry)
    result = run(folder, "-o", tmp_path / "out")
    assert result.exit_code == 4
    assert "a: " in result.stderr
    assert "c: " in result.stderr
    assert [p.name for p in sorted((tmp_path / "out").glob("*.gz"))] == ["b_supervoxels.nii.gz"]
    with pytest.raises(DataError, match="all zeros"):
        run(folder / "c.nii.gz", "-o", tmp_path / "alone")


def test_one_output_for_many_and_one_label_for_many(data, tmp_path):
    with pytest.raises(UsageError, match="name a folder"):
        run(data[0], "-o", tmp_path / "map.nii.gz")
    images = [data[0] / "a.nii.gz", data[0] / "b.nii.gz"]
    with pytest.raises(UsageError, match="folder of labels"):
        run(*images, "--labels", data[0] / "a_seg.nii.gz", "-o", tmp_path / "out")
    with pytest.raises(DataError, match="two volumes are called a"):
        run(images[0], images[0], "-o", tmp_path / "out")


def test_real_brain_reaches_the_paper(real_data, tmp_path):
    # arXiv:1806.02705, table 2: the oracle of SLIC is 87.76, of BLOCK 79.57.
    case = real_data / "ibsr18" / "IBSR_01"
    result = run(
        case / "IBSR_01.nii.gz", "--labels", case / "IBSR_01_seg.nii.gz",
        "-o", tmp_path / "out", "--target-oracle", 0.878, "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["mean"] == pytest.approx(0.878, abs=0.01)
    assert 1000 < report["cases"][0]["num_supervoxels"] < 10_000
