"""The page about a data set: complete, self-contained, and safe with any name."""

import re

import pytest

from voxseg.export.check_report import figure, group_findings, write_check_page


def _file(name, **more):
    plain = {
        "path": f"/d/{name}", "shape": [5, 6, 7], "spacing_mm": [0.9, 1.5, 2.0],
        "orientation": "LAS", "handedness": "left", "form": "sform", "dtype": "int16",
        "scaling": None,
    }  # fmt: skip
    return {**plain, **more}


def _finding(severity, kind, cause, fix=""):
    return {
        "severity": severity, "kind": kind, "case_id": "a", "path": "/d/a.nii.gz", "cause": cause,
        "cure": f"cure of {kind}", "fix": fix,
    }  # fmt: skip


def _case(name, top, ml):
    return {
        "case_id": name, "shape": [5, 6, 7], "spacing": [0.9, 1.5, 2.0], "voxel_ml": 0.0027,
        "percentiles": [[1.0, top / 2, top]], "labelled_percentiles": [], "foreground_share": 0.5,
        "foreground_ml": 0.3, "foreground_shape": [4, 4, 4], "label_voxels": {"0": 9, "1": 3},
        "label_ml": {"0": 1.0, "1": ml},
    }  # fmt: skip


@pytest.fixture
def document():
    """Two cases, of which one has no label and cannot be read."""
    broken = _file("b<i>.nii.gz", shape=[], spacing_mm=[], orientation="", dtype="")
    return {
        "schema": "voxseg.check/1", "voxseg": "0", "data": "/d", "layout": "a folder of pairs",
        "notes": ["left aside: x"], "class_names": {"1": "tail & tip"}, "num_unlabelled": 1,
        "errors": 1, "warnings": 4,
        "pairs": [
            {"case_id": "a", "status": "ok", "images": [_file("a.nii.gz", scaling=[2.0, 1.0])],
             "label": _file("a_seg.nii.gz", dtype="uint8")},
            {"case_id": "b", "status": "no label", "images": [broken], "label": None},
        ],
        "findings": [
            *[_finding("warning", "pixdim", f"/d/cause {n}", "safe") for n in range(4)],
            _finding("error", "unreadable", "/d/b<i>.nii.gz is damaged"),
        ],
        "cases": [_case("a", 100.0, 2.5), _case("c", 100.0, 5.0), _case("d", 9000.0, 1.0)],
        "fingerprint": {
            "num_cases": 3, "num_channels": 1, "median_spacing": [0.9, 1.5, 2.0],
            "min_spacing": [0.9, 1.5, 2.0], "max_spacing": [0.9, 1.5, 2.0],
            "median_shape": [5, 6, 7], "min_shape": [5, 6, 7], "max_shape": [5, 6, 8],
            "label_voxels": {"0": 27, "1": 9}, "label_cases": {"0": 3, "1": 3},
            "label_ml": {"0": [1.0, 1.0, 1.0], "1": [2.8, 1.0, 5.0]},
            "percentiles": [[1.0, 50.0, 100.0]], "labelled_percentiles": [],
            "foreground_share": 0.5, "foreground_shape": [4, 4, 4],
        },
        "fix": {
            "folder": "/o", "errors": 0, "warnings": 0,
            "cases": [{"case_id": "a", "outcome": "fixed", "files": [], "changes": ["a became b"],
                       "remaining": []}],
        },
    }  # fmt: skip


def test_page_says_everything_and_stands_alone(document, tmp_path):
    page = write_check_page(tmp_path / "sub/page.html", document).read_text(encoding="utf-8")
    page = page.replace("\u00d7", "x")
    for words in (
        "Not ready for training:", "1 error, 4 warnings", "cause 0", "cure of pixdim",
        "1 more of this kind", "voxseg check … --fix OUT", "cannot be read", "no label",
        "1 tail &amp; tip", "2.80 (1 to 5), 3", "x 2 + 1", "LAS", "left aside: x", "a became b",
        "0.9 x 1.5 x 2 in all cases", "from 5 x 6 x 7 to 5 x 6 x 8",
    ):  # fmt: skip
        assert words in page, words
    assert "<i>.nii" not in page
    assert "/d/cause" not in page
    assert not re.search(r"(src|href)=|https?:|@import|url\(", page)
    assert page.index("is damaged") < page.index("cause 0")


def test_bars_are_to_scale_and_cut_at_a_wild_case(document, tmp_path):
    page = write_check_page(tmp_path / "page.html", document).read_text(encoding="utf-8")
    volumes = re.findall(r"left:0;width:([\d.]+)%", page.partition("Intensities")[0])
    assert [float(width) for width in volumes] == [50, 100, 20]
    assert page.count('class="track cut"') == 1
    assert "an axis from 0 to 100" in page


def test_page_rejects_another_schema(document, tmp_path):
    with pytest.raises(ValueError, match=r"schema voxseg\.check/1, got 'voxseg\.check/2'"):
        write_check_page(tmp_path / "page.html", {**document, "schema": "voxseg.check/2"})


def test_a_set_of_which_nothing_can_be_read(document, tmp_path):
    bare = {**document, "cases": [], "fingerprint": None, "fix": None, "pairs": []}
    assert "Findings" in write_check_page(tmp_path / "p.html", bare).read_text(encoding="utf-8")


def test_findings_are_grouped(document):
    groups = group_findings(document["findings"])
    assert [(group[0]["severity"], len(group)) for group in groups] == [
        ("error", 1),
        ("warning", 4),
    ]


def test_figures():
    values = (0, 3.0, 999.6, 12345.6, 0.5, 19.23, 123.4, 0.00012, -4.5)
    assert [figure(value) for value in values] == [
        "0", "3", "1,000", "12,346", "0.500", "19.2", "123", "0.00012", "-4.50",
    ]  # fmt: skip
