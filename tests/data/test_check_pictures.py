"""Checks of photographs: sizes, values, doubles, how they are read, and how many."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from voxseg.data.check import check_dataset, check_headers, find_pairs
from voxseg.data.check_facts import value_counts
from voxseg.data.check_pictures import picture_facts_of, sampled
from voxseg.data.images import picture_volume
from voxseg.data.layouts import find_cases
from voxseg.errors import DataError, UsageError


@pytest.fixture
def data(tmp_path, save_pictures):
    """Three photographs with masks of 0 and 1."""
    for name in "abc":
        save_pictures(tmp_path, f"images/{name}.png", f"masks/{name}.png:0 1 1")
    return tmp_path


def check(root, **kwargs):
    dataset, known = find_pairs(root)
    return check_dataset(dataset, None, known, **kwargs)


def found(report):
    """Return (severity, kind, case) of every finding but equal masks, which the fixture has."""
    return [
        (one.severity, one.kind, one.case_id)
        for one in report.findings
        if one.kind != "duplicate-label"
    ]


def test_a_good_set_has_no_findings_and_a_fingerprint(data):
    report = check(data)
    assert found(report) == []
    mark = report.fingerprint
    assert (mark.num_cases, mark.num_channels, mark.median_shape) == (3, 3, (3, 4, 1))
    assert mark.label_voxels == {0: 12, 1: 24}
    assert mark.label_cases == {0: 3, 1: 3}
    assert [pair.images[0].shape for pair in report.pairs] == [(3, 4)] * 3
    assert report.pairs[0].label.dtype == "uint8 grey"


def test_classes_that_some_lack_and_odd_lights_are_no_findings(tmp_path, save_pictures):
    for number in range(12):
        save_pictures(tmp_path, f"images/{number}.png", f"masks/{number}.png:0 {1 + number % 4}")
    Image.fromarray(np.full((3, 4, 3), (0, 1, 2), np.uint8)).save(tmp_path / "images" / "0.png")
    assert found(check(tmp_path)) == [("warning", "constant", "0")]


def test_sizes_that_differ_are_an_error_without_reading_a_pixel(data):
    Image.new("L", (5, 3)).save(data / "masks" / "b.png")
    report = check_headers(find_cases(data))
    assert found(report) == [("error", "grid", "b")]
    assert "b.png has 5x3 pixels but" in report.errors[0].cause
    assert [one for one in found(check(data)) if one[0] == "error"] == [("error", "grid", "b")]
    with pytest.raises(DataError, match="save both in one size"):
        report.raise_for_errors()


def test_damage_is_an_error_of_its_case(data):
    path = data / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:60])
    (data / "masks" / "c.png").write_text("no picture")
    report = check(data)
    assert {one for one in found(report) if one[0] == "error"} == {
        ("error", "unreadable", "a"),
        ("error", "unreadable", "c"),
    }
    assert [report.status(pair) for pair in report.pairs] == ["error", "ok", "error"]


def test_the_same_photograph_twice_is_found_across_parts(tmp_path, save_pictures):
    for part in ("train", "val"):
        save_pictures(tmp_path, f"{part}/{part}.png", f"{part}annot/{part}.png:0 1")
    (tmp_path / "val" / "val.png").write_bytes((tmp_path / "train" / "train.png").read_bytes())
    report = check(tmp_path)
    assert found(report) == [("warning", "duplicate", "val")]
    assert "has the same pixels as case train" in report.warnings[0].cause


def test_a_photograph_that_is_its_mask(data):
    pixels = np.array(Image.open(data / "masks" / "a.png"))
    Image.fromarray(np.dstack([pixels] * 3)).save(data / "images" / "a.png")
    assert ("error", "image-is-label", "a") in found(check(data))


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        ("picture-grey", Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))),
        ("picture-alpha", Image.fromarray(np.arange(48, dtype=np.uint8).reshape(3, 4, 4))),
        ("picture-cmyk", Image.fromarray(np.arange(48, dtype=np.uint8).reshape(3, 4, 4), "CMYK")),
    ],
)
def test_how_photographs_are_read_is_told_once(kind, picture, data):
    for name in "ab":
        path = data / "images" / f"{name}.png"
        path.unlink()
        picture.rotate(180 * (name == "b")).save(path.with_suffix(".tif"))
    report = check(data)
    assert ("note", kind, "") in found(report)
    note = next(one for one in report.notes if one.kind == kind)
    assert note.cause.endswith("2 of 3")


def test_an_exif_orientation_is_told(data):
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(data / "images" / "a.png") as picture:
        picture.save(data / "images" / "a.jpg", exif=exif)
    (data / "images" / "a.png").unlink()
    assert ("note", "picture-turned", "") in found(check(data))


def test_values_are_held_against_the_classes(tmp_path, save_pictures):
    save_pictures(tmp_path, "train/0001TP_1.png", "trainannot/0001TP_1.png:0 11 30")
    save_pictures(tmp_path, "val/0001TP_2.png", "valannot/0001TP_2.png:11")
    report = check(tmp_path)
    assert found(report) == [
        ("warning", "nothing-counts", "0001TP_2"),
        ("error", "class-unknown", ""),
        ("warning", "class-absent", ""),
    ]
    assert "1 masks hold the value 30, which is no class of CamVid" in report.errors[0].cause
    assert "1 (building), 2 (pole)" in report.warnings[1].cause
    assert "11" not in report.warnings[1].cause


def test_masks_of_one_value(tmp_path, save_pictures):
    save_pictures(tmp_path, "a.png", "a_mask.png:0 1", "b.png", "b_mask.png:1")
    assert found(check(tmp_path)) == [("note", "one-value", "b")]
    save_pictures(tmp_path, "a_mask.png:1")
    assert ("error", "background-only", "") in found(check(tmp_path))


def test_training_reads_all_masks_and_some_photographs(tmp_path, save_pictures):
    for number in range(9):
        save_pictures(tmp_path, f"i/{number}.png", f"m/{number}.png:{number}")
    damaged = tmp_path / "i" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])  # its header is whole
    dataset = find_cases(tmp_path / "i", tmp_path / "m")
    seen = []
    report = check_dataset(dataset, seen.append, most_photographs=3)
    assert report.fingerprint.label_values == tuple(range(9))
    assert report.fingerprint.num_cases == 9
    assert len(report.fingerprint.percentiles) == 3
    assert report.errors == ()
    assert "3 of 9 photographs, spread over the set, were read in full" in report.notes[-1].cause
    assert len(seen) == 9
    assert [one.kind for one in check_dataset(dataset).errors] == ["unreadable"]


def test_a_set_whose_sampled_photographs_are_all_damaged(data):
    for path in (data / "images").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    report = check(data, most_photographs=1)
    assert (report.fingerprint.num_channels, report.fingerprint.percentiles) == (0, ())


def test_photographs_are_sampled_evenly(data):
    cases = find_cases(data).cases
    assert sampled(cases, None) == sampled(cases, 3) == {"a", "b", "c"}
    assert sampled(cases, 2) == {"a", "c"}
    assert sampled((), 2) == set()


def test_percentiles_of_a_large_photograph_are_those_of_all_pixels(rng):
    pixels = rng.integers(0, 256, (3, 700, 900, 1)).astype(np.float32)
    facts = picture_facts_of("a", picture_volume(pixels, "a.png"), None, {})
    exact = np.percentile(pixels[1], (0.5, 50, 99.5))
    np.testing.assert_allclose(facts.percentiles[1], exact, atol=2)


def test_values_are_counted_whatever_they_are():
    label = np.array([[0, 3, 3], [70000, 0, 0]], np.int32)
    assert value_counts(label) == {0: 3, 3: 2, 70000: 1}
    assert value_counts(label[:1]) == {0: 1, 3: 2}
    assert value_counts(label - 1) == {-1: 3, 2: 2, 69999: 1}


def test_sbds_masks_are_checked(tmp_path, save_pictures):
    save_pictures(tmp_path, "a.png")
    content = {"GTcls": {"Segmentation": np.resize([0, 1], (3, 4)).astype(np.uint8)}}
    scipy.io.savemat(tmp_path / "a.mat", content)
    (tmp_path / "list.csv").write_text("image,label\na.png,a.mat\n")
    report = check(tmp_path / "list.csv")
    assert (report.findings, report.pairs[0].label.shape) == ((), (3, 4))


def test_photographs_cannot_be_fixed(data, tmp_path):
    from voxseg.data.fix import open_folder

    with pytest.raises(UsageError, match="leave it out for photographs"):
        open_folder(tmp_path / "out", [data], find_cases(data), overwrite=False)


@pytest.fixture
def normals(tmp_path, rng):
    """Three archives of a photograph and its normals; returns how to write one again."""

    def write(name, **arrays):
        vectors = rng.normal(size=(3, 4, 3))
        vectors[..., 2] = np.abs(vectors[..., 2])
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        pixels = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
        np.savez(tmp_path / f"{name}.npz", **{"image": pixels, "normal": vectors} | arrays)
        return vectors

    for name in "abc":
        write(name)
    return write


@pytest.mark.parametrize("most", [None, 1])
def test_normals_are_checked_and_have_no_classes(most, normals, tmp_path):
    report = check(tmp_path, most_photographs=most)
    assert found(report) == ([] if most is None else [("note", "sampled", "")])
    assert report.fingerprint.median_shape == (3, 4, 1)
    assert report.fingerprint.label_voxels == {}


def test_what_cannot_be_normals_is_an_error_of_its_case(normals, tmp_path):
    vectors = normals("a")
    normals("a", normal=vectors * 0.9)
    normals("b", normal=np.zeros((3, 4, 3)))
    normals("c", normal=vectors * np.array([1, 1, -1]))
    report = check(tmp_path)
    assert found(report) == [
        ("error", "unreadable", "a"),
        ("error", "unreadable", "b"),
        ("warning", "facing-away", "c"),
    ]
    assert "not of length 1" in report.errors[0].cause
    assert "no pixel whose normal is known" in report.errors[1].cause
