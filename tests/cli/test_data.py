"""``voxseg data convert`` as a user calls it."""


def test_convert(voxseg, coco, tmp_path):
    outcome = voxseg("data", "convert", "coco", coco, "-o", tmp_path / "out")
    assert outcome.code == 0
    assert "2 of 4 photographs have objects" in outcome.out
    assert "2 masks in " in outcome.out
    assert "3 objects painted; 2 of 4 photographs left out" in outcome.out
    again = voxseg(
        "data", "convert", "coco", coco, "-o", tmp_path / "out", "--smallest-object", "2",
        "--overwrite",
    )  # fmt: skip
    assert "2 smaller objects left out" in again.out


def test_json(voxseg, validate, coco, tmp_path):
    words = ("data", "convert", "coco", coco, "-o", tmp_path / "out", "--split", "val", "--json")
    document = validate(voxseg(*words).out)
    assert (document["split"], document["num_masks"], document["finished"]) == ("val", 2, True)
    assert document["classes"]["15"] == "person"
    validate((tmp_path / "out" / "convert-val.json").read_text(encoding="utf-8"))
    assert voxseg(*words).json["num_kept"] == 2


def test_wrong_usage(voxseg, tmp_path):
    outcome = voxseg("data", "convert", "coco", tmp_path, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "name one with --annotations" in outcome.err
    assert voxseg("data", "convert", "yolo", tmp_path, "-o", tmp_path / "out").code == 2
