"""The report page: what it says, and that its pictures are the right way round."""

import base64
import io
import itertools
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from voxseg.export.label_table import class_colours
from voxseg.export.report import Report, ReportCase, ReportTable, draw_case, write_report

NAMES = {0: "background", 1: "CSF", 2: "grey & white"}
SHAPE = (31, 37, 29)


class Page(HTMLParser):
    """Collects text, and the attributes of every tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def phantom(spacing=(1.0, 1.0, 1.0)):
    """A grey body in RAS+ order with a bright block at its right, anterior, superior corner."""
    image = np.zeros(SHAPE, np.float32)
    image[3:28, 3:34, 3:26] = 50
    truth = np.zeros(SHAPE, np.uint8)
    truth[21:26, 25:31, 19:24] = 1
    image[truth == 1] = 100
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-12, 5, 30]
    return image, truth, affine


def turned(array, affine, axes, flips):
    """The same volume stored along other axes and directions."""
    moved = affine.copy()
    for axis in flips:
        moved[:3, 3] += (array.shape[axis] - 1) * moved[:3, axis]
        moved[:3, axis] *= -1
    array = np.flip(array, flips).transpose(axes)
    moved[:, :3] = moved[:, list(axes)]
    return array, moved


def case(image, truth, affine, **others):
    return ReportCase("one", image, affine, truth=truth, **others)


def pixels(png):
    return imread(io.BytesIO(png), format="png")


def bright(picture):
    """Rows and columns of what is nearly white within one panel, letters at the rim left out."""
    rows, columns = picture.shape[:2]
    inner = picture[rows // 10 : -rows // 10, columns // 10 : -columns // 10, :3].min(-1)
    found = np.nonzero(inner > 0.95)
    return found[0] + rows // 10, found[1] + columns // 10


def panels(png, rows):
    """The pictures of the first row, cut at the widths that the planes' extents give."""
    top = pixels(png)
    top = top[: top.shape[0] // rows]
    box = [n + 2 * (2 + (n - 1) // 10) for n in (25, 31, 23)]
    widths = np.cumsum([0, box[0], box[0], box[1]])
    edges = (widths / widths[-1] * top.shape[1]).astype(int)
    return [top[:, a:b] for a, b in itertools.pairwise(edges)]


def test_right_is_on_the_left_and_superior_and_anterior_are_up():
    png = draw_case(case(*phantom()), {})
    for panel in panels(png, 2):
        rows, columns = bright(panel)
        assert rows.size > 50
        assert rows.mean() < 0.45 * panel.shape[0]
        assert columns.mean() < 0.45 * panel.shape[1]


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((0, 1, 2), (0,)), ((0, 1, 2), (0, 1, 2)), ((2, 0, 1), ()), ((1, 2, 0), (1, 2))],
    ids=str,
)
def test_storage_order_changes_no_pixel(axes, flips):
    image, truth, affine = phantom((1.0, 1.5, 0.8))
    colours = class_colours(NAMES)
    expected = draw_case(case(image, truth, affine), colours)
    other, moved = turned(image, affine, axes, flips)
    found = draw_case(case(other, turned(truth, affine, axes, flips)[0], moved), colours)
    np.testing.assert_array_equal(pixels(found), pixels(expected))


def test_proportions_follow_the_spacing():
    """A block of 10 mm along every axis is square in every plane."""
    image = np.full(SHAPE, 50, np.float32)
    truth = np.zeros(SHAPE, np.uint8)
    truth[10:20, 15:20, 10:15] = 1
    image[truth == 1] = 100
    image[0] = 0
    picture = pixels(draw_case(case(image, truth, np.diag([1.0, 2.0, 2.0, 1.0])), {}))
    picture = picture[: picture.shape[0] // 2, :, :3].min(-1) > 0.95
    across = [mm * (n + 2 * (2 + (n - 1) // 10)) for n, mm in ((30, 1), (30, 1), (SHAPE[1], 2))]
    widths = np.cumsum(across) / sum(across)
    edges = (np.array([0, *widths]) * picture.shape[1]).astype(int)
    for left, right in itertools.pairwise(edges):
        rows, columns = np.nonzero(picture[:, left + 25 : right - 25])
        # The letters are bright too, so take where most of the block's pixels lie.
        height = np.count_nonzero(np.bincount(rows) > 30)
        width = np.count_nonzero(np.bincount(columns) > 30)
        assert height == pytest.approx(width, abs=4)
        assert height > 30


def test_classes_and_superpixels_are_drawn():
    image, truth, affine = phantom()
    colours = {1: (255, 0, 0)}
    superpixels = (np.indices(SHAPE) // 5).sum(0).astype(np.int32)
    plain = pixels(draw_case(ReportCase("one", image, affine), colours))
    assert np.ptp(plain[..., :3], axis=-1).max() < 0.02
    picture = pixels(
        draw_case(case(image, truth, affine, prediction=truth, superpixels=superpixels), colours)
    )
    third = picture.shape[0] // 3
    reddest = [np.max(row[..., 0] - row[..., 1]) for row in np.split(picture[: 3 * third], 3)]
    assert reddest[0] < 0.02
    assert reddest[1] > 0.9
    assert np.max(picture[2 * third :, :, 0] - picture[2 * third :, :, 2]) > 0.4


def test_page_is_self_contained_and_escaped(tmp_path):
    image, truth, affine = phantom()
    report = Report(
        title="Run <1>",
        class_names=NAMES,
        facts={"model": "V3 & more"},
        warnings=["All subjects are simulated."],
        tables=[ReportTable("Dice", ("class", "mean"), [("CSF", "0.912")], note="Empty masks.")],
        cases=(case(image, truth, affine, prediction=truth) for _ in range(2)),
    )
    path = write_report(tmp_path / "new" / "report.html", report)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for words in ("Run <1>", "V3 & more", "All subjects are simulated.", "0.912", "Empty masks."):
        assert words in page.words
    assert {"CSF", "grey & white"} <= set(page.words)
    assert "background" not in page.words
    assert len(page.all("img")) == 2
    for attributes in page.all("img"):
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert pixels(base64.b64decode(data)).shape[1] == 1100
    assert not page.all("script") + page.all("link")
    assert "http" not in text.replace("http-equiv", "")


def test_page_without_pictures(tmp_path):
    path = write_report(tmp_path / "report.html", Report("Run", NAMES))
    page = Page(path.read_text(encoding="utf-8"))
    assert page.all("img") == []
    assert "Pictures" not in page.words


def test_oblique_volumes_say_so(tmp_path):
    image, truth, affine = phantom()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    report = Report("Run", NAMES, cases=[case(image, truth, turn @ affine)])
    text = write_report(tmp_path / "report.html", report).read_text(encoding="utf-8")
    assert "oblique by 20 degrees" in text


def test_an_empty_or_constant_image_is_drawn():
    empty = np.zeros(SHAPE, np.float32)
    for image in (empty, empty + 7):
        picture = pixels(draw_case(ReportCase("none", image, np.eye(4)), {}))
        assert picture.shape[1] == 1100


def test_report_rejects_another_grid():
    image, truth, affine = phantom()
    with pytest.raises(ValueError, match="truth of one must be"):
        draw_case(case(image, truth[1:], affine), {})
