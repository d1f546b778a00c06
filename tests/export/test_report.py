"""The report page: what it says, and that it stands alone, prints and can be read aloud."""

import base64
import io
import weakref

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export.report import (
    Report,
    ReportCase,
    ReportFigure,
    ReportLink,
    ReportSection,
    ReportTable,
    write_report,
)

NAMES = {0: "background", 1: "CSF", 2: "grey & white"}
SHAPE = (31, 37, 29)


def phantom():
    image = np.zeros(SHAPE, np.float32)
    image[3:28, 3:34, 3:26] = 50
    truth = np.zeros(SHAPE, np.uint8)
    truth[21:26, 25:31, 19:24] = 1
    return image, truth, np.eye(4)


@pytest.fixture
def written(tmp_path, read_page):
    """Write a report and read the page."""

    def write(**parts):
        path = tmp_path / "new" / "report.html"
        return read_page(write_report(path, Report(**{"class_names": NAMES, **parts})))

    return write


def test_page_is_self_contained_and_escaped(written):
    image, truth, affine = phantom()
    page = written(
        title="Run <1>",
        facts={"model": "V3 & more"},
        warnings=["All subjects are simulated."],
        tables=[ReportTable("Dice", ("class", "mean"), [("CSF", "0.912")], note="Empty masks.")],
        cases=(ReportCase("one", image, affine, truth, truth) for _ in range(2)),
    )
    for words in ("Run <1>", "V3 & more", "All subjects are simulated.", "0.912", "Empty masks."):
        assert words in page.words
    assert {"CSF", "grey & white"} <= set(page.words)
    assert "background" not in page.words
    pictures = page.all("img")
    assert len(pictures) == 2
    for attributes in pictures:
        png = base64.b64decode(attributes["src"].partition(",")[2])
        assert imread(io.BytesIO(png), format="png").shape[1] == 1100


def test_page_without_pictures(written):
    page = written(title="Run")
    assert page.all("img") == []
    assert "Pictures" not in page.words
    assert "pass it on" not in page.text


def test_legends_are_there_for_what_is_drawn(written):
    image, truth, affine = phantom()
    other = np.roll(truth, 1, 0)
    plain = written(title="Run", cases=[ReportCase("one", image, affine, truth)])
    assert not {"Errors", "Uncertainty"} & set(plain.words)
    wrong = written(
        title="Run", cases=[ReportCase("one", image, affine, truth, other, errors=True)]
    )
    assert "Errors" in wrong.words
    assert "predicted, not true (false positive)" in wrong.words
    unsure = ReportCase("one", image, affine, truth, uncertainty=image / 50)
    page = written(title="Run", cases=[unsure])
    assert "Uncertainty" in page.words
    assert "linear-gradient(to right, #000004" in page.text


def test_sections_of_others_are_shown_where_they_belong(written):
    figure = ReportFigure(b"\x89PNG", "Bars <b>", "A plot.")
    table = ReportTable("T", ("bin", "a"), [("<0.1", "3")])
    first = ReportSection("First", ("Some words.",))
    more = ReportSection("Calibration", ("One.", "Two."), (figure,), (table,), anchor="calibration")
    cases = [ReportCase("c", caption="gone.")]
    page = written(title="Run", sections=[first], cases=cases, closing=[more])
    order = [page.words.index(word) for word in ("First", "Pictures", "Calibration", "<0.1")]
    assert order == sorted(order)
    assert page.all("img")[0]["alt"] == "Bars <b>"
    assert {"Some words.", "One.", "Two.", "A plot.", "No picture: gone."} <= set(page.words)
    assert "calibration" in page.ids


def test_links_lead_somewhere_or_are_text(written):
    links = [[ReportLink("a", "case-1")], [ReportLink("b", "case-2")], [ReportLink("c", "")]]
    section = ReportSection("Cases", tables=(ReportTable("", ("case",), links),))
    image, truth, affine = phantom()
    one = ReportCase("a", image, affine, truth, anchor="case-1")
    page = written(title="Run", sections=[section], cases=[one])
    assert [link["href"] for link in page.all("a")] == ["#case-1"]
    assert {"a", "b", "c"} <= set(page.words)


def test_anchors_are_given_once(tmp_path):
    twice = [ReportSection("A", anchor="x"), ReportSection("B", anchor="x")]
    with pytest.raises(ValueError, match="anchor"):
        write_report(tmp_path / "page.html", Report("Run", NAMES, sections=twice))


def test_details_are_folded_and_left_out_of_print(written):
    page = written(title="Run", folded={"Manifest": '{"a": "<script>"}'})
    assert len(page.all("details")) == 1
    assert '{"a": "<script>"}' in page.words
    printed = page.text[page.text.index("@media print") :]
    assert "details { display: none; }" in printed
    assert "break-inside: avoid" in printed


def test_one_case_is_held_at_a_time(tmp_path):
    held = []

    def one():
        image = np.zeros(SHAPE, np.float32)
        held.append(weakref.ref(image))
        return ReportCase("c", image, np.eye(4))

    def cases():
        for _ in range(3):
            assert not any(reference() is not None for reference in held)
            yield one()

    write_report(tmp_path / "page.html", Report("Run", NAMES, cases=cases()))
    assert len(held) == 3
