"""Which series of a folder is taken, and what is said where that is not clear."""

import re
import shutil

import pytest
from pydicom.uid import RTStructureSetStorage

from voxseg.data.dicom import read_series
from voxseg.data.dicom_series import (
    choose_series,
    files_of_hash,
    find_series,
    left_aside,
    list_series,
    problem_of,
    series_document,
    series_hash,
    stack_series,
)
from voxseg.data.layouts import find_cases
from voxseg.errors import DataError, UsageError


@pytest.fixture
def study(tmp_path, dicom):
    """Two volumes, a localizer, a single picture and contours, all in one folder."""

    def write(number, words, array=None, **changes):
        dicom.write_series(
            tmp_path, array, SeriesInstanceUID=dicom.uid(words), SeriesNumber=number,
            SeriesDescription=words, name=f"{number}-{{}}", **changes,
        )  # fmt: skip

    write(1, "scout", dicom.phantom()[:, :, :3], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(2, "t1 mprage")
    write(3, "t2 space")
    write(4, "screenshot", dicom.phantom()[:, :, :1])
    write(
        5, "contours", dicom.phantom()[:, :, :1], Modality="RTSTRUCT",
        SOPClassUID=RTStructureSetStorage,
    )  # fmt: skip
    return tmp_path


def test_every_series_is_listed(study):
    found = list_series(study)
    assert [one.kind for one in found] == [
        "localizer", "volume", "volume", "single slice", "no image",
    ]  # fmt: skip
    assert str(found[1]) == "2 't1 mprage' (MR, 9 slices of 14x11)"
    assert str(found[4]) == "5 'contours' (RTSTRUCT, no image)"
    rows = series_document(found)["series"]
    assert [row["slices"] for row in rows] == [3, 9, 9, 1, 0]
    assert {row["study"] for row in rows} == {1}
    assert {row["problem"] for row in rows} == {""}


def test_several_volumes_must_be_chosen_from(study, dicom):
    with pytest.raises(UsageError) as caught:
        find_cases(study, need_labels=False)
    words = str(caught.value)
    assert "holds 2 series (2 't1 mprage' (MR, 9 slices of 14x11); 3 't2 space'" in words
    assert "--series" in words
    assert not any(secret in words for secret in dicom.SECRETS)


@pytest.mark.parametrize("wanted", ["3", "t2", "T2 Space", " 3 ", "uid"])
def test_a_series_is_chosen_by_uid_number_or_description(study, dicom, wanted):
    wanted = dicom.uid("t2 space") if wanted == "uid" else wanted
    chosen = choose_series(find_series(study), study, wanted)
    assert chosen.description == "t2 space"
    (case,) = find_cases(study, need_labels=False, series=wanted).cases
    assert case.images == chosen.files
    assert len(case.images) == 9


def test_what_is_left_aside_is_said(study):
    found = find_series(study)
    notes = left_aside(found, found[1])
    assert notes == (
        "left aside: series 1 'scout' (MR, 3 slices of 14x11), a localizer",
        "left aside: series 3 't2 space' (MR, 9 slices of 14x11)",
        "left aside: series 4 'screenshot' (MR, 1 slice of 14x11), a single slice",
        "left aside: series 5 'contours' (RTSTRUCT, no image)",
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("7", "no series of .* is called 7 by UID, number or description; there are 1 'scout'"),
        ("t", r"fits 5 series of .*; name its UID"),
        ("contours", "holds no image; choose another"),
    ],
)
def test_a_choice_that_cannot_be_made(study, wanted, words):
    with pytest.raises(UsageError, match=words):
        choose_series(find_series(study), study, wanted)


def test_two_studies_are_refused_unless_one_is_named(tmp_path, dicom):
    for name in ("first", "second"):
        dicom.write_series(
            tmp_path / name, StudyInstanceUID=dicom.uid(name), SeriesInstanceUID=dicom.uid(name, 1),
            SeriesDescription=f"t1 {name}",
        )  # fmt: skip
    with pytest.raises(UsageError, match=r"holds 2 studies .* each study's folder by itself"):
        find_cases(tmp_path, need_labels=False)
    (case,) = find_cases(tmp_path, need_labels=False, series="second").cases
    assert {path.parent.name for path in case.images} == {"second"}
    assert [row["study"] for row in series_document(list_series(tmp_path))["series"]] in (
        [1, 2], [2, 1],
    )  # fmt: skip


def test_parallel_planes_make_a_volume_and_others_a_localizer(tmp_path, dicom):
    dicom.write_series(tmp_path / "t1")
    for number, affine in enumerate((dicom.axial(), dicom.coronal())):
        dicom.write_series(
            tmp_path / f"plane{number}", dicom.phantom()[:, :, :1], affine,
            SeriesInstanceUID=dicom.uid("three planes"), SOPInstanceUID=dicom.uid("plane", number),
        )  # fmt: skip
    dataset = find_cases(tmp_path, need_labels=False)
    assert {path.parent.name for path in dataset.cases[0].images} == {"t1"}
    assert "a localizer" in dataset.notes[0]


def test_only_pictures_that_are_no_volume(tmp_path, dicom):
    dicom.write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(DataError, match=r"no volume .*14x11\), a localizer\); give"):
        find_cases(tmp_path, need_labels=False)


def test_a_single_slice_is_refused_as_one(tmp_path, dicom):
    files = dicom.write_series(tmp_path, dicom.phantom()[:, :, :1])
    (case,) = find_cases(tmp_path, need_labels=False).cases
    assert case.images == tuple(files)
    with pytest.raises(DataError, match=rf"{files[0]} has one slice, which makes no volume"):
        read_series(files)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PhotometricInterpretation": "RGB"}, "colour pictures .RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour pictures"),
        ({"PhotometricInterpretation": None}, "colour pictures .of no named kind"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted grey values .MONOCHROME1"),
        ({"Rows": lambda k: 11 if k else 10}, "different size .8 of 14x11, 1 of 14x10"),
        ({"PixelSpacing": lambda k: [1.1, 0.9 + k / 9]}, "different pixel spacing"),
        ({"ImagePositionPatient": None}, "does not say where 9 of its 9 slices lie"),
    ],
)
def test_a_volume_with_a_problem_is_listed_with_it(tmp_path, dicom, changes, words):
    files = dicom.write_series(tmp_path, **changes)
    (series,) = list_series(tmp_path)
    assert re.search(words, problem_of(series))
    with pytest.raises(DataError, match=rf"^{tmp_path} .*{words}"):
        read_series(files)


def test_files_that_are_there_twice_are_told_as_such(tmp_path, dicom):
    files = dicom.write_series(tmp_path)
    for path in files[:4]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    with pytest.raises(DataError, match=r"holds 4 files twice .*; remove the copies"):
        read_series(find_series(tmp_path)[0].files)


def test_grey_values_from_a_table_are_refused(tmp_path, dicom):
    table = dicom.dataset(1, 1)
    dicom.write_series(tmp_path, ModalityLUTSequence=[table])
    (series,) = list_series(tmp_path)
    with pytest.raises(DataError, match="by a table"):
        stack_series(series.headers, "it")


def test_several_frames_without_places_are_refused(tmp_path, dicom):
    dicom.write_series(tmp_path, dicom.phantom()[:, :, :1], NumberOfFrames=5)
    (series,) = list_series(tmp_path)
    assert "does not say where 5 of its 5 slices lie" in problem_of(series)


@pytest.mark.parametrize("content", [{}, {"a.txt": "words"}, {"dose.csv": "1,2\n" * 99}])
def test_a_folder_without_dicom(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert find_series(tmp_path) == ()
    with pytest.raises(DataError, match="holds no DICOM"):
        list_series(tmp_path)
    with pytest.raises(DataError, match="there is no file or folder"):
        list_series(tmp_path / "none")


def test_training_on_dicom_says_what_to_do(tmp_path, dicom):
    dicom.write_series(tmp_path)
    with pytest.raises(DataError, match=r"holds 9 DICOM files, .* convert them to NIfTI"):
        find_cases(tmp_path)


def test_a_series_is_found_again_by_its_hash(study, dicom):
    digest = series_hash(dicom.uid("t2 space"))
    assert len(digest) == 12
    assert {path.name[0] for path in files_of_hash(study, digest)} == {"3"}
    assert files_of_hash(study, series_hash("1.2.3")) == ()
    assert files_of_hash(study / "gone", digest) == ()
