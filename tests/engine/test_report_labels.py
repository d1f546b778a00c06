"""Classes have the names and colours of their run on its pages."""

import base64
import io
import json

import numpy as np
from PIL import Image

from voxseg.engine.case_report import write_page
from voxseg.engine.outcomes import DISCLAIMER
from voxseg.engine.report_labels import colours_of_settings, page_colours, written_table
from voxseg.engine.report_sources import read_source
from voxseg.export.label_table import write_label_table
from voxseg.export.labels import class_colours, plain_table
from voxseg.files import write_text

PINK, GREEN = (250, 1, 99), (1, 200, 2)
SETTINGS = '[labels]\nvalues = [0, 1, 2]\ncolours = ["#000000", "#fa0163", "#01c802"]\n'


def test_colours_of_settings():
    assert colours_of_settings(SETTINGS) == {0: (0, 0, 0), 1: PINK, 2: GREEN}
    for nothing in ("", "[labels", "labels = 1", "[labels]\nvalues = [0]\n",
                    '[labels]\nvalues = [1]\ncolours = ["pink"]\n'):  # fmt: skip
        assert colours_of_settings(nothing) == {}


def test_classes_without_a_colour_keep_that_of_every_page():
    assert page_colours([0, 1, 2], {1: PINK, 7: GREEN}) == {1: PINK, 2: class_colours([1, 2])[2]}


def test_a_table_of_another_program_has_no_names(tmp_path):
    assert len(written_table(tmp_path)) == 0
    write_text(tmp_path / "labels.csv", "value;name\n1;shell\n")
    assert len(written_table(tmp_path)) == 0


def test_a_cross_validation_is_drawn_in_its_own_colours(finished_run, tmp_path, read_page):
    write_text(finished_run / "config.toml", SETTINGS)
    page = write_page(read_source(finished_run), tmp_path / "page.html").path
    text = page.read_text()
    assert '<i style="background: #fa0163"></i>shell' in text
    assert '<i style="background: #01c802"></i>core' in text
    assert "How far a volume may be off" in text
    assert f"{DISCLAIMER}</footer>" in text
    assert _has_pink(read_page(page))


def test_a_prediction_is_drawn_in_the_colours_of_its_table(finished_run, tmp_path, read_page):
    out = tmp_path / "out"
    mask = (finished_run / "predictions/case0.nii.gz").read_bytes()
    out.mkdir()
    (out / "case0.nii.gz").write_bytes(mask)
    row = {"case_id": "case0", "output": str(out / "case0.nii.gz"), "seconds": 0, "error": ""}
    write_text(out / "predict.json", json.dumps([{**row, "memory": "kept as it was"}]))
    write_label_table(out, plain_table({1: "shell", 2: "core"}, {1: PINK, 2: GREEN}))
    page = write_page(read_source(out), tmp_path / "page.html").path
    assert '<i style="background: #fa0163"></i>shell' in page.read_text()
    assert _has_pink(read_page(page))


def _has_pink(page):
    """Whether a picture of the page has what no other colour of a page is: red and blue alone."""
    for one in page.all("img"):
        png = base64.b64decode(one["src"].partition(",")[2])
        with Image.open(io.BytesIO(png)) as picture:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), int), -1, 0)
        if (np.minimum(red, blue) - green > 30).any():
            return True
    return False
