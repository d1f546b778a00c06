"""``voxseg check`` of photographs, as a user calls it."""

import pytest


@pytest.fixture
def data(tmp_path, save_pictures):
    for number in range(3):
        save_pictures(
            tmp_path / "data",
            f"train/0001TP_{number}.png",
            f"trainannot/0001TP_{number}.png:{number} 11 5",
        )
    return tmp_path / "data"


def test_table(voxseg, data):
    outcome = voxseg("check", data)
    assert outcome.code == 0
    for words in ("rows x columns", "3x4", "uint8 grey", "Class pixels", "11 (does not count)"):
        assert words in outcome.out, words
    for words in ("mm", "nonzero", "hand"):
        assert words not in outcome.out, words


def test_large_sets_list_what_has_something_to_say(voxseg, tmp_path, save_pictures):
    for number in range(60):
        save_pictures(tmp_path, f"i/{number}.png", f"i/{number}_mask.png:0 1 {number}")
    (tmp_path / "i" / "7.png").write_text("")
    outcome = voxseg("check", tmp_path / "i")
    assert outcome.code == 3
    assert "59 of them ok and not listed" in outcome.out
    assert "7_mask.png" in outcome.out
    assert "8_mask.png" not in outcome.out


def test_json_and_page(voxseg, validate, data, tmp_path):
    outcome = voxseg("check", data, "--json", "--report", tmp_path / "page.html")
    document = validate(outcome.out)
    assert (document["kind"], document["ignored_values"]) == ("photographs", [11])
    assert document["pairs"][0]["images"][0]["shape"] == [3, 4]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("Classes by pixels", "does not count", "rows \u00d7 columns"):
        assert words in page, words
    for words in ("Voxel sizes", " ml", "hand<"):
        assert words not in page, words


def test_fix_is_for_volumes(voxseg, data, tmp_path):
    outcome = voxseg("check", data, "--fix", tmp_path / "out")
    assert (outcome.code, "leave it out for photographs" in outcome.err) == (2, True)
