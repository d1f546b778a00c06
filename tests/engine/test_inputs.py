"""Cases of several inputs, and names that say nothing."""

import hashlib

import pytest

from voxseg.data.cases import Case
from voxseg.data.dicom_series import series_hash
from voxseg.engine.inputs import Inputs, find_inputs, without_names
from voxseg.errors import DataError, UsageError


def names(*places, **options):
    return [case.case_id for case in find_inputs(Inputs(places=places, **options))]


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path, dicom):
    places = [tmp_path / part for part in ("a/x/t1", "b/x/t1", "c/flair")]
    for place in places:
        dicom.write_series(place, SeriesInstanceUID=dicom.uid(place))
    assert names(*places) == ["a_x_t1", "b_x_t1", "flair"]
    assert names(places[0]) == ["t1"]


def test_the_same_folder_twice_is_refused(tmp_path, dicom):
    dicom.write_series(tmp_path / "t1")
    with pytest.raises(UsageError, match="would both be written as"):
        names(tmp_path / "t1", tmp_path / "t1")


def test_hashed_names_say_nothing_and_are_the_same_everywhere(tmp_path, dicom, make_subjects):
    dicom.write_series(tmp_path / "Doe_Jane")
    dicom.write_series(tmp_path / "elsewhere")
    wanted = series_hash(dicom.uid("series"))
    assert names(tmp_path / "Doe_Jane", hash_names=True) == [wanted]
    assert names(tmp_path / "elsewhere", hash_names=True) == [wanted]
    data = make_subjects(tmp_path / "data", 2)
    expected = hashlib.sha256(b"case0.nii.gz").hexdigest()[:12]
    found = names(data, hash_names=True)
    assert found[0] == expected
    assert len(set(found)) == 2


def test_series_left_aside_are_said(tmp_path, dicom):
    dicom.write_series(tmp_path / "Doe" / "t1")
    dicom.write_series(
        tmp_path / "Doe" / "scout", SeriesInstanceUID=dicom.uid("scout"), SeriesNumber=1,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )  # fmt: skip
    said = []
    find_inputs(Inputs(places=(tmp_path / "Doe",)), said.append)
    find_inputs(Inputs(places=(tmp_path / "Doe",), hash_names=True), said.append)
    aside = "left aside: series 1 't1 mprage' (MR, 9 slices of 14x11), a localizer"
    assert said == [f"{tmp_path / 'Doe'}: {aside}", aside]


def test_a_choice_where_there_is_no_dicom_is_refused(tmp_path, make_subjects):
    data = make_subjects(tmp_path / "data", 1)
    with pytest.raises(UsageError, match="--series is about DICOM"):
        names(data, series="3")


def test_a_broken_series_alone_is_refused_at_once_and_among_others_later(tmp_path, dicom):
    dicom.write_series(tmp_path / "good")
    files = dicom.write_series(tmp_path / "bad", SeriesInstanceUID=dicom.uid("bad"))
    files[4].unlink()
    with pytest.raises(DataError, match="lacks 1 slice"):
        names(tmp_path / "bad")
    assert names(tmp_path / "bad", tmp_path / "good") == ["bad", "good"]


def test_dicom_beside_nifti_is_said_to_be_left_aside(tmp_path, dicom, make_subjects):
    data = make_subjects(tmp_path / "data", 1)
    dicom.write_series(data / "source")
    (data / "case0.seg.dcm").write_bytes((data / "source" / "IM000").read_bytes())
    said = []
    (case,) = find_inputs(Inputs(places=(data,)), said.append)
    assert case.case_id == "case0"
    assert said == [f"{data}: left aside: 9 DICOM files, for there are NIfTI volumes"]


def test_errors_lose_the_names(tmp_path):
    place = tmp_path / "Doe_Jane"
    case = Case("0123456789ab", (place / "t1" / "DOE.001", place / "t1" / "DOE.002"), None)
    error = f"{place}/t1/DOE.002 is damaged; look into {place}/t1 or {place}, not /"
    told = without_names(error, case, [place])
    assert told == "0123456789ab is damaged; look into 0123456789ab or 0123456789ab, not /"
