"""Finding cases: each arrangement people keep, and one sentence for what could be read two ways."""

import json

import pytest

from voxseg.data.layouts import find_cases
from voxseg.errors import DataError


def pairs(dataset):
    """Return id -> (image names, label name)."""
    return {
        case.case_id: (
            [path.name for path in case.images],
            case.label.name if case.label else None,
        )
        for case in dataset.cases
    }


def refused(root, *args, **kwargs):
    """Return the one sentence that ``root`` is refused with."""
    with pytest.raises(DataError) as caught:
        find_cases(root, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message  # what to do
    return message


@pytest.mark.parametrize(
    "label",
    [
        "{}_seg",
        "{}_label",
        "{}_mask",
        "{}-labels",
        "{}.segmentation",
        "label-{}",
        "mask_{}",
        "{}_GT",
    ],
)
def test_pairs_by_name_in_one_folder(label, tmp_path, save_cases):
    names = [f"{stem}.nii.gz" for case in ("a", "b_2") for stem in (case, label.format(case))]
    save_cases(tmp_path, *names)
    dataset = find_cases(tmp_path)
    assert pairs(dataset) == {
        "a": (["a.nii.gz"], f"{label.format('a')}.nii.gz"),
        "b_2": (["b_2.nii.gz"], f"{label.format('b_2')}.nii.gz"),
    }
    assert dataset.layout == "a folder of pairs"


def test_images_may_carry_a_word_and_suffixes_may_differ(tmp_path, save_cases):
    save_cases(tmp_path, "sub-01_T1w.nii", "sub-01_dseg.nii.gz", "p2_image.nii.gz", "p2_label.nii")
    assert pairs(find_cases(tmp_path)) == {
        "sub-01_T1w": (["sub-01_T1w.nii"], "sub-01_dseg.nii.gz"),
        "p2_image": (["p2_image.nii.gz"], "p2_label.nii"),
    }


def test_a_folder_for_each_subject(tmp_path, save_cases):
    save_cases(tmp_path, "s1/t1.nii.gz", "s1/seg.nii.gz", "s2/t1.nii.gz", "s2/seg.nii.gz")
    save_cases(tmp_path, "s3/scan7.nii.gz", "s3/scan7_seg.nii.gz")
    assert pairs(find_cases(tmp_path)) == {
        "s1": (["t1.nii.gz"], "seg.nii.gz"),
        "s2": (["t1.nii.gz"], "seg.nii.gz"),
        "scan7": (["scan7.nii.gz"], "scan7_seg.nii.gz"),
    }


@pytest.mark.parametrize("folders", [("images", "labels"), ("img", "masks"), ("image", "label")])
def test_two_folders_found_or_given(folders, tmp_path, save_cases):
    images, labels = folders
    save_cases(tmp_path, f"{images}/a.nii.gz", f"{images}/b.nii.gz")
    save_cases(tmp_path, f"{labels}/a.nii.gz", f"{labels}/b_seg.nii.gz", "unlabelled/c.nii.gz")
    expected = {
        "a": (["a.nii.gz"], "a.nii.gz"),
        "b": (["b.nii.gz"], "b_seg.nii.gz"),
    }
    found, given = find_cases(tmp_path), find_cases(tmp_path / images, tmp_path / labels)
    assert pairs(found) == pairs(given) == expected
    assert [case.case_id for case in found.unlabelled] == ["c"]
    assert sorted(pairs(find_cases(tmp_path, need_labels=False))) == ["a", "b", "c"]


def test_an_image_and_its_label_as_files(tmp_path, save_cases):
    save_cases(tmp_path, "x.nii.gz", "truth_of_x_label.nii.gz")
    image, label = tmp_path / "x.nii.gz", tmp_path / "truth_of_x_label.nii.gz"
    assert pairs(find_cases(image, label)) == {"x": (["x.nii.gz"], "truth_of_x_label.nii.gz")}
    assert "two files or two folders" in refused(image, tmp_path)


def test_decathlon_with_class_names(tmp_path, save_cases):
    save_cases(tmp_path, "imagesTr/h_001.nii.gz", "imagesTr/h_003.nii.gz", "imagesTs/h_002.nii.gz")
    save_cases(tmp_path, "labelsTr/h_001.nii.gz", "labelsTr/h_003.nii.gz")
    save_cases(tmp_path, "imagesTr/._h_001.nii.gz", "labelsTr/._h_001.nii.gz")  # macOS
    save_cases(tmp_path, "imagesTr/.trash/h_009.nii.gz")
    names = {"0": "background", "1": "Anterior", "2": "Posterior"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    dataset = find_cases(tmp_path)
    assert dataset.layout == "Medical Segmentation Decathlon"
    assert sorted(pairs(dataset)) == ["h_001", "h_003"]
    assert dataset.class_names == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert [case.case_id for case in dataset.unlabelled] == ["h_002"]


def test_nnunet_channels(tmp_path, save_cases):
    for case in ("p_1", "p_2"):
        save_cases(tmp_path / "imagesTr", f"{case}_0001.nii.gz", f"{case}_0000.nii.gz")
        save_cases(tmp_path / "labelsTr", f"{case}.nii.gz")
    save_cases(tmp_path / "imagesTs", "p_3_0000.nii.gz", "p_3_0001.nii.gz")
    names = {"background": 0, "edema": 1, "whole": [1, 2], "core": "2"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    dataset = find_cases(tmp_path)
    assert dataset.layout == "nnU-Net"
    assert pairs(dataset)["p_2"] == (["p_2_0000.nii.gz", "p_2_0001.nii.gz"], "p_2.nii.gz")
    assert dataset.class_names == {0: "background", 1: "edema", 2: "core"}
    assert [len(case.images) for case in dataset.unlabelled] == [2]
    alone = find_cases(tmp_path / "imagesTs", need_labels=False)
    assert pairs(alone) == {"p_3": (["p_3_0000.nii.gz", "p_3_0001.nii.gz"], None)}


def test_names_that_end_in_four_digits_are_not_channels(tmp_path, save_cases):
    save_cases(tmp_path, "imagesTr/s_0000.nii.gz", "imagesTr/s_0001.nii.gz")
    save_cases(tmp_path, "labelsTr/s_0000.nii.gz", "labelsTr/s_0001.nii.gz")
    assert sorted(pairs(find_cases(tmp_path))) == ["s_0000", "s_0001"]
    save_cases(tmp_path / "plain", "s_0001.nii.gz", "s_0002.nii.gz")
    assert sorted(pairs(find_cases(tmp_path / "plain", need_labels=False))) == ["s_0001", "s_0002"]
    save_cases(tmp_path / "unclear", "s_0000.nii.gz", "s_0001.nii.gz")
    message = refused(tmp_path / "unclear", need_labels=False)
    assert "one case of 2 channels or 2 cases" in message


def test_missing_channel_is_named(tmp_path, save_cases):
    save_cases(tmp_path / "imagesTr", "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz")
    save_cases(tmp_path / "labelsTr", "a.nii.gz", "b.nii.gz")
    assert "case b in" in (message := refused(tmp_path))
    assert "channels 0001 where 0000, 0001 are needed" in message


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}", "{}_seg"),
        ("{}_ana_strip", "{}_segTRI_ana"),
        ("{}_ana_strip", "{}_segTRI_fill_ana"),
        ("{}_ana", "{}_segTRI_ana"),
    ],
)
def test_ibsr_under_both_namings(image, label, tmp_path, save_cases):
    for case in ("IBSR_01", "IBSR_12"):
        save_cases(tmp_path / case, *[f"{n.format(case)}.nii.gz" for n in (image, label)])
    save_cases(tmp_path / "unlabelled", f"{image.format('IBSR_02')}.nii.gz")
    dataset = find_cases(tmp_path)
    assert dataset.layout == "IBSR"
    assert pairs(dataset) == {
        case: ([f"{image.format(case)}.nii.gz"], f"{label.format(case)}.nii.gz")
        for case in ("IBSR_01", "IBSR_12")
    }
    assert dataset.class_names[2] == "grey matter"
    assert [case.case_id for case in dataset.unlabelled] == ["IBSR_02"]
    everything = find_cases(tmp_path, need_labels=False)
    assert sorted(pairs(everything)) == ["IBSR_01", "IBSR_02", "IBSR_12"]


def test_ibsr_choice_is_stated(tmp_path, save_cases):
    suffixes = ("ana", "ana_strip", "ana_brainmask", "seg_ana", "segTRI_ana", "segTRI_fill_ana")
    save_cases(tmp_path, *[f"IBSR_03_{suffix}.nii.gz" for suffix in suffixes])
    dataset = find_cases(tmp_path)
    assert pairs(dataset) == {
        "IBSR_03": (["IBSR_03_ana_strip.nii.gz"], "IBSR_03_segTRI_ana.nii.gz")
    }
    assert len(dataset.notes) == 4
    assert any("segtri_fill_ana of 1 IBSR" in note for note in dataset.notes)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_list(separator, tmp_path, save_cases):
    save_cases(tmp_path / "data", "a.nii.gz", "a2.nii.gz", "weird_name.nii.gz", "b.nii", "b2.nii")
    rows = [
        ["Case", "image", "image2", "label"],
        ["first", "data/a.nii.gz", "data/a2.nii.gz", "data/weird_name.nii.gz"],
        ["second", "data/b.nii", "data/b2.nii", ""],
    ]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    dataset = find_cases(path)
    assert pairs(dataset) == {"first": (["a.nii.gz", "a2.nii.gz"], "weird_name.nii.gz")}
    assert [case.case_id for case in dataset.unlabelled] == ["second"]
    assert sorted(pairs(find_cases(path, need_labels=False))) == ["first", "second"]


def test_csv_list_rejects_what_is_missing(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz")
    path = tmp_path / "list.csv"
    path.write_text("case,label\n1,a.nii.gz\n")
    assert "columns case,image,label" in refused(path)
    path.write_text("image,label\na.nii.gz,none.nii.gz\n")
    assert "line 2 of" in (message := refused(path))
    assert "none.nii.gz, which does not exist" in message
    path.write_text("case,image\na,\n")
    assert "names no image" in refused(path)
    path.write_text("case,image\na,a.nii.gz\na,a.nii.gz\n")
    assert "two cases are called a" in refused(path, need_labels=False)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in refused(path)
    path.write_text("")
    assert "lists no images" in refused(path)


def test_json_lists_of_monai_and_decathlon(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_label.nii.gz", "b.nii.gz", "c.nii.gz", "c_label.nii.gz")
    entry = {"image": ["./a.nii.gz", "b.nii.gz"], "label": "a_label.nii.gz"}
    content = {
        "labels": {"0": "background", "1": "lesion"},
        "training": [entry],
        "test": ["b.nii.gz", {"image": "c.nii.gz", "label": "c_label.nii.gz"}],
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    dataset = find_cases(path)
    assert pairs(dataset) == {"a": (["a.nii.gz", "b.nii.gz"], "a_label.nii.gz")}
    assert [case.case_id for case in dataset.unlabelled] == ["b", "c"]  # test stays held out
    assert dataset.class_names == {0: "background", 1: "lesion"}
    path.write_text(json.dumps([{**entry, "case_id": 7}]))
    assert list(pairs(find_cases(path))) == ["7"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("{}", "lists no cases"),
        ('{"training": {}}', "lists no cases"),
        ('{"training": 3}', "must be a list"),
        ("[3]", "must name an image"),
        ('[{"image": 3}]', "a file name is needed"),
        ('[{"label": "a.nii"}]', "names no image"),
    ],
)
def test_json_list_rejects_what_is_no_list(content, words, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        find_cases(path)
    assert str(path) in str(caught.value)


def test_prediction_takes_files_and_folders_of_images(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "lone_mask.nii.gz", "sub/b.nii")
    dataset = find_cases(tmp_path, need_labels=False)
    assert pairs(dataset) == {
        "a": (["a.nii.gz"], "a_seg.nii.gz"),
        "b": (["b.nii"], None),
        "lone_mask": (["lone_mask.nii.gz"], None),
    }
    assert pairs(find_cases(tmp_path / "a.nii.gz", need_labels=False)) == {
        "a": (["a.nii.gz"], None)
    }
    assert "without its label" in refused(tmp_path / "a.nii.gz")


def test_empty_folder_says_what_is_there(tmp_path):
    assert "found: nothing" in refused(tmp_path)
    (tmp_path / "slice1.dcm").touch()
    (tmp_path / "slice2.dcm").touch()
    (tmp_path / "._a.nii.gz").touch()
    assert "found: 2 .dcm" in refused(tmp_path)
    assert "there is no file or folder" in refused(tmp_path / "none")
    assert "neither a .nii or .nii.gz" in refused(tmp_path / "slice1.dcm")


def test_image_without_label(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz")
    message = refused(tmp_path)
    assert "1 image of 2 without label" in message
    assert str(tmp_path / "b.nii.gz") in message
    assert "b_seg.nii.gz" in message
    save_cases(tmp_path / "two", "images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz")
    assert "without label" in refused(tmp_path / "two")
    save_cases(tmp_path / "none", "unlabelled/a.nii.gz")
    assert "1 images but no labels" in refused(tmp_path / "none")


def test_label_without_image(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz")
    message = refused(tmp_path)
    assert "1 label without image" in message
    assert str(tmp_path / "b_seg.nii.gz") in message
    save_cases(tmp_path / "IBSR", "IBSR_01.nii.gz", "IBSR_01_seg.nii.gz", "IBSR_02_seg.nii.gz")
    assert "IBSR_02_seg.nii.gz" in refused(tmp_path / "IBSR")


def test_two_images_for_one_label(tmp_path, save_cases):
    save_cases(tmp_path, "a_T1w.nii.gz", "a_T2w.nii.gz", "a_seg.nii.gz")
    message = refused(tmp_path)
    assert "two images for one label" in message
    assert "a_T1w.nii.gz and" in message
    dataset = find_cases(tmp_path, need_labels=False)  # which one is the label's does not matter
    assert "a_seg" not in pairs(dataset)
    assert pairs(dataset)["a_T2w"] == (["a_T2w.nii.gz"], None)
    save_cases(tmp_path / "both", "a.nii.gz", "a.nii", "a_seg.nii.gz")
    assert "two images for one label" in refused(tmp_path / "both")
    assert "two cases are called a" in refused(tmp_path / "both", need_labels=False)


def test_two_labels_for_one_image(tmp_path, save_cases):
    save_cases(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a_mask.nii.gz")
    assert "two labels for one image" in refused(tmp_path)
    save_cases(tmp_path / "IBSR", "IBSR_01.nii.gz", "x/IBSR_01.nii.gz", "IBSR_01_seg.nii.gz")
    assert "two files for one subject" in refused(tmp_path / "IBSR")


def test_real_folders(real_data):
    ibsr = find_cases(real_data / "ibsr18")
    assert (ibsr.layout, len(ibsr.cases), len(ibsr.unlabelled)) == ("IBSR", 10, 1)
    hippocampus = find_cases(real_data / "msd_hippocampus")
    assert len(hippocampus.cases) == 60
    assert all(case.images[0].name == case.label.name for case in hippocampus.cases)


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path, save_cases):
    save_cases(tmp_path / "store", "a/a.nii.gz", "a/a_seg.nii.gz", "b/b.nii.gz", "b/b_seg.nii.gz")
    data = tmp_path / "data"
    data.mkdir()
    (data / "one").symlink_to(tmp_path / "store" / "a")
    (data / "two").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "store" / "a" / "up").symlink_to(data)
    assert pairs(find_cases(data)) == {
        "a": (["a.nii.gz"], "a_seg.nii.gz"),
        "b": (["b.nii.gz"], "b_seg.nii.gz"),
    }
