"""Viewers in a real browser: the right voxel in the right colour, and no request leaves the page.

Needs a Chromium (Debian's package ``chromium``), which draws without a graphics card.
"""

import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from voxseg.export.case_picture import ERROR_COLOURS
from voxseg.export.labels import plain_table
from voxseg.export.viewer import write_viewer
from voxseg.export.viewer_scene import ViewerScene

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]

SHAPE = (20, 24, 16)
SPACING = np.array([2.0, 1.5, 3.0])
# Stored with the axes to the left, the front and the bottom.
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -40], [0, 0, -3.0, 25], [0, 0, 0, 1]])
VALUES = {"right": 2, "front": 5, "top": 9}
TABLE = plain_table({value: name for name, value in VALUES.items()})
CENTRE = AFFINE @ [10, 12, 8, 1]
# What a picture shows on its left and on top: axis of the world, and whether it is its high end.
VIEWS = {
    "axial": ((0, True), (1, True), 2),
    "coronal": ((0, True), (2, True), 1),
    "sagittal": ((1, True), (2, True), 0),
}


def phantom():
    image = np.full(SHAPE, 80, np.float32)
    image[0, 0, 0] = 0
    label = np.zeros(SHAPE, np.int32)
    label[2:5, 11:14, 7:9] = VALUES["right"]  # the first axis runs to the left
    label[9:12, 19:22, 6:10] = VALUES["front"]
    label[9:12, 11:14, 1:4] = VALUES["top"]
    other = np.roll(label, 1, axis=1)
    masks = {"first": label, "second": other}
    return ViewerScene("phantom", AFFINE, image, masks, TABLE, window=(0.0, 100.0))


class Shot:
    """What a browser made of a page."""

    def __init__(self, folder, page, words, size=(1000, 700)):
        picture, log = folder / "shot.png", folder / "net.json"
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--hide-scrollbars", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            "--force-device-scale-factor=1", "--enable-logging=stderr", "--dump-dom",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}",
            f"--log-net-log={log}", f"--screenshot={picture}", "--virtual-time-budget=30000",
            f"{page.as_uri()}#{words}",
        ]  # fmt: skip
        clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        done = subprocess.run(command, capture_output=True, timeout=240, check=True, env=clean)
        self.console = re.findall(r"CONSOLE.*", done.stderr.decode(errors="replace"))
        self.page = re.sub(r"<script.*?</script>", "", done.stdout.decode(), flags=re.DOTALL)
        self.pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"))
        self.asked = _asked(log)

    def readout(self):
        found = re.findall(r'class="viewer-readout"[^>]*>(.*?)</p>', self.page, re.DOTALL)
        return re.sub(r"<[^>]+>", " ", max(found, key=len))  # that of the template is empty

    def check(self):
        assert 'data-state="ready"' in self.page
        assert not self.console
        assert not self.asked

    def panels(self):
        """Boxes of what is drawn of the volume, from left to right: left, right, top, bottom."""
        drawn = ndimage.binary_opening(self.pixels.max(-1) > 60, iterations=6)
        parts, _ = ndimage.label(drawn)
        boxes = [(x.start, x.stop, y.start, y.stop) for y, x in ndimage.find_objects(parts)]
        large = [b for b in boxes if min(b[1] - b[0], b[3] - b[2]) > 150]
        return sorted(large)


def _asked(log):
    """Addresses that a page asked the network for; the browser's own requests have no origin."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    found = [one["params"] for one in events if "initiator" in one.get("params", {})]
    return {one["url"] for one in found if one["initiator"] != "not an origin"}


def place(point, view, box):
    """Pixel (row, column) where a place in mm is drawn."""
    (across, _), (up, _), _ = VIEWS[view]
    corners = np.array([[-0.5, -0.5, -0.5], np.array(SHAPE) - 0.5])
    world = np.c_[corners, [1, 1]] @ AFFINE[:3].T
    low, high = world.min(0), world.max(0)
    left, right, top, bottom = box
    column = left + (right - left) * (high[across] - point[across]) / (high[across] - low[across])
    row = top + (bottom - top) * (high[up] - point[up]) / (high[up] - low[up])
    return int(row), int(column)


def check_plane(shot, view, box, label, colours):
    """Each voxel of the plane through the centre has its colour at its middle, where it belongs."""
    left, right, top, bottom = box
    (across, _), (up, _), cut = VIEWS[view]
    ratio = SHAPE[across] * SPACING[across] / (SHAPE[up] * SPACING[up])
    assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.03)  # in mm
    seen = 0
    for voxel in np.ndindex(SHAPE):
        point = (AFFINE @ [*voxel, 1])[:3]
        edge = min(min(voxel[a], SHAPE[a] - 1 - voxel[a]) for a in (across, up))
        if abs(point[cut] - CENTRE[cut]) > 0.1 or edge < 1:
            continue  # letters stand at the edges
        value = int(label[voxel])
        expected = colours[value] if value else (204, 204, 204)
        found = shot.pixels[place(point, view, box)]
        if not value and np.ptp(found) == 0 and found.max() < 204:
            continue  # a letter or its rim
        assert np.abs(found.astype(int) - expected).max() <= 3, (voxel, found, expected)
        seen += value > 0
    return seen


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    return write_viewer(folder / "page.html", phantom(), is_whole=True).path


def words(view, split="off"):
    at = ",".join(f"{mm:g}" for mm in CENTRE[:3])
    return f"view={view}&at={at}&crosshair=off&opacity=100&split={split}"


def test_a_request_would_be_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<title>x</title><img src="http://asked.invalid/picture.png">')
    assert Shot(tmp_path, page, "").asked == {"http://asked.invalid/picture.png"}


@pytest.mark.parametrize("view", ["axial", "coronal"])
def test_the_right_voxel_has_the_right_colour(view, page, tmp_path):
    shot = Shot(tmp_path, page, words(view))
    shot.check()
    assert "<title>phantom, ready</title>" in shot.page
    (box,) = shot.panels()
    label = phantom().masks["first"]
    assert check_plane(shot, view, box, label, TABLE.colours) >= 15
    # The patient's right is on the left of the screen, and the front (or the head) on top.
    right = np.argwhere((shot.pixels == TABLE.colours[2]).all(-1)).mean(0)
    upper = {"axial": 5, "coronal": 9}[view]
    top = np.argwhere((shot.pixels == TABLE.colours[upper]).all(-1)).mean(0)
    assert right[1] < (box[0] + box[1]) / 2 - 50
    assert top[0] < (box[2] + box[3]) / 2 - 50
    readout = shot.readout()
    assert "R 10.0, P 22.0, S 1.0 mm" in readout
    assert re.search(r"Image\s+(about )?80", readout)


def test_two_masks_stand_beside_their_difference(page, tmp_path):
    shot = Shot(tmp_path, page, words("sagittal", split="on"), size=(1500, 700))
    shot.check()
    boxes = shot.panels()
    assert len(boxes) == 3
    first, second = phantom().masks.values()
    errors = np.zeros(SHAPE, np.uint8)
    errors[(first > 0) & (second == 0)] = 1
    errors[(first == 0) & (second > 0)] = 2
    for box, label, colours in zip(
        boxes, (first, second, errors), (TABLE.colours, TABLE.colours, ERROR_COLOURS), strict=True
    ):
        assert check_plane(shot, "sagittal", box, label, colours) >= 6
    assert "only in second" in shot.page


def test_keys_do_what_the_page_says(page, tmp_path, read_viewer):
    """A script of the test's own presses them; the copy's policy knows it."""
    pressed = [
        ("1", "view"), ("ArrowLeft", "place"), ("ArrowUp", "place"), ("PageUp", "place"),
        ("2", "view"), ("ArrowUp", "place"), ("PageDown", "place"), ("ArrowRight", "place"),
        ("3", "view"), ("ArrowLeft", "place"), ("r", "place"), ("m", "over"), ("-", "opacity"),
        ("n", "choice"), ("x", "crosshair"), ("?", "help"),
    ]  # fmt: skip
    keys = """(async () => {
      const part = (name) => document.querySelector(`main [data-part="${name}"]`);
      const ask = {
        view: () => document.querySelector('main [name="viewer-view"]:checked').value,
        place: () => part("readout").firstChild.textContent,
        over: () => part("over").checked, opacity: () => part("opacity-text").textContent,
        help: () => part("help").open,
        choice: () => document.querySelector("main select").value,
        crosshair: () => part("crosshair").checked,
      };
      while (!document.title.endsWith("ready")) await new Promise((done) => setTimeout(done, 50));
      const found = PRESSED.map(([key, name]) => {
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        return [key, ask[name]()];
      });
      document.body.dataset.found = JSON.stringify(found);
    })();""".replace("PRESSED", json.dumps(pressed))
    digest = base64.b64encode(hashlib.sha256(keys.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8")
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    copy = tmp_path / "keys.html"
    copy.write_text(text.replace("</body>", f"<script>{keys}</script></body>"), encoding="utf-8")
    shot = Shot(tmp_path, copy, words("multiplanar"))
    shot.check()
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', shot.page)[1]))
    middle = zip(("RL", "AP", "SI"), read_viewer(page).case()["start"], strict=True)
    start = f"Place{', '.join(f'{ways[mm < 0]} {abs(mm):.1f}' for ways, mm in middle)} mm"
    # From R 10, P 22, S 1 by voxels of 2, 1.5 and 3 mm; left on the screen is the patient's right.
    assert [value for _, value in found] == [
        "axial", "PlaceR 12.0, P 22.0, S 1.0 mm", "PlaceR 12.0, P 20.5, S 1.0 mm",
        "PlaceR 12.0, P 20.5, S 4.0 mm",
        "coronal", "PlaceR 12.0, P 20.5, S 7.0 mm", "PlaceR 12.0, P 22.0, S 7.0 mm",
        "PlaceR 10.0, P 22.0, S 7.0 mm",
        "sagittal", "PlaceR 10.0, P 20.5, S 7.0 mm", start, False, "90 %",
        "mask-1", True, True,
    ]  # fmt: skip


def test_a_report_opens_its_worst_case(finish_run, tmp_path, voxseg):
    run = finish_run({"case0": 0, "case1": 3})
    report = tmp_path / "report.html"
    assert voxseg("report", run, "-o", report, "--viewers", "1").code == 0
    shot = Shot(tmp_path, report, "viewer-case-1", size=(1500, 800))
    shot.check()
    assert "<dialog" in shot.page
    assert re.search(r"prediction\s+(shell|core)", shot.readout())
    for colour in ((86, 180, 233), (230, 159, 0), ERROR_COLOURS[1], ERROR_COLOURS[2]):
        # At half opacity over the image; a third of a colour's way from grey is told apart.
        hue = np.array(colour) - np.mean(colour)
        tint = shot.pixels - shot.pixels.mean(-1, keepdims=True)
        match = (tint @ hue) / (np.linalg.norm(tint, axis=-1) * np.linalg.norm(hue) + 1e-9)
        assert ((match > 0.98) & (np.linalg.norm(tint, axis=-1) > 30)).sum() > 200
