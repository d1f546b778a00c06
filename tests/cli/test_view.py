"""``voxseg view`` and ``voxseg report --viewers``."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def volume(tmp_path):
    array = np.zeros((12, 13, 14), np.int16)
    array[3:8, 4:9, 5:9] = np.arange(4)
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(array * 400 - 1000, np.diag([1, 1, 2, 1.0])), path)
    return path


def test_view_takes_its_options(voxseg, volume, tmp_path, read_viewer):
    page = tmp_path / "page.html"
    outcome = voxseg("view", volume, "-o", page, "--window", "-160", "240", "--full")
    assert outcome.code == 0, outcome.err
    assert f"page: {page}" in outcome.out
    found = read_viewer(page)
    assert found.case()["image"]["window"] == [-160, 240]
    assert found.volume("image").shape == (12, 13, 14)
    again = voxseg("view", volume, "-o", page)
    assert again.code == 2
    assert "--overwrite" in again.err
    small = voxseg("view", volume, "-o", page, "--overwrite", "--max-mb", "0.5")
    assert small.code == 2
    assert "--max-mb must be at least 2" in small.err
    assert voxseg("view", tmp_path / "none.nii", "-o", tmp_path / "x.html").code == 3


def test_open_shows_the_page(voxseg, volume, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    page = tmp_path / "page.html"
    assert voxseg("view", volume, "-o", page, "--open").code == 0
    assert opened == [page.as_uri()]


def test_worst_cases_of_a_report_open_in_viewers(voxseg, finish_run, tmp_path, read_viewer):
    run = finish_run({"case0": 0, "case1": 1, "case2": 3})
    page = tmp_path / "page.html"
    outcome = voxseg("report", run, "-o", page, "--viewers", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["viewers"] == outcome.json["drawn"][:2] == ["case2", "case1"]
    assert "3 of 3 cases drawn, 2 in viewers" in outcome.err
    found = read_viewer(page)
    buttons = [one for tag, one in found.elements if tag == "button" and "data-viewer" in one]
    assert [one["data-title"] for one in buttons] == ["case2", "case1"]
    assert all("hidden" in one for one in buttons)  # without a script there is nothing to press
    for button, shift in zip(buttons, (3, 1), strict=True):
        case = found.case(button["data-viewer"])
        assert [mask["name"] for mask in case["masks"]] == ["prediction", "truth"]
        assert [row["name"] for row in case["labels"]] == ["shell", "core"]
        assert case["differences"][0]["name"] == "errors"
        masks = [found.volume(f"mask-{n}", button["data-viewer"]) for n in range(2)]
        centres = [
            np.argwhere(np.asarray(m.dataobj) == 2).mean(0) @ m.affine[:3, :3] for m in masks
        ]
        np.testing.assert_allclose(centres[0] - centres[1], [shift, 0, 0], atol=1e-5)
    assert "Licences of the viewer" in found.notes()


def test_pages_without_viewers_hold_no_script(voxseg, finish_run, tmp_path, read_page):
    run = finish_run({"case0": 0, "case1": 1})
    assert voxseg("report", run, "-o", tmp_path / "a.html", "--viewers", "0").code == 0
    words = ("report", run, "-o", tmp_path / "b.html", "--pictures", "0", "--viewers", "5")
    assert voxseg(*words).code == 0
    for page in ("a.html", "b.html"):
        read_page(tmp_path / page)  # which refuses scripts
        assert "script" not in (tmp_path / page).read_text()


def test_photographs_have_no_viewer(voxseg, tmp_path, rng):
    from PIL import Image

    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
        for n in range(2):
            array = rng.integers(0, 3, (20, 30)).astype(np.uint8)
            Image.fromarray(array).save(tmp_path / folder / f"p{n}.png")
    scores = tmp_path / "scores"
    assert voxseg("evaluate", tmp_path / "masks", tmp_path / "truth", "-o", scores).code == 0
    outcome = voxseg("report", scores, "--viewers", "1")
    assert outcome.code == 2
    assert "--viewers shows volumes" in outcome.err
