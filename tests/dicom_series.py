"""DICOM series made for tests: a phantom that looks the same from no two sides."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SECRETS = ("Doe^Jane", "PID-4711", "19600203", "ACC-0815", "Ward7 Hospital", "Dr^Who")
SHAPE = (14, 11, 9)  # columns, rows, slices
SPACING = (0.9, 1.1, 2.5)  # mm
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def uid(*words):
    """A UID that is the same for the same words."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def oblique(spacing=SPACING, origin=(12.5, -33.25, 70.125)):
    """Affine in RAS of slices that lie along no axis."""
    a, b = np.radians(20), np.radians(-13)
    turn_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    turn_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    affine = np.eye(4)
    # Columns run to the left and rows to the back, as scanners store a head.
    affine[:3, :3] = np.array(turn_z) @ turn_x @ np.diag([-1, -1, 1]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def axial(spacing=SPACING, origin=(60.0, 40.0, -20.0)):
    """Affine in RAS of plain axial slices."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = origin
    return affine


def left_handed():
    """Slices stored from the head down: against row x column."""
    affine = oblique()
    affine[:3, 3] += affine[:3, 2] * (SHAPE[2] - 1)
    affine[:3, 2] *= -1
    return affine


def coronal():
    """Rows along the body, slices from back to front."""
    affine = np.zeros((4, 4))
    affine[:, 0], affine[:, 1] = (-0.9, 0, 0, 0), (0, 0, -1.1, 0)
    affine[:, 2], affine[:, 3] = (0, 2.5, 0, 0), (30, -50, 40, 1)
    return affine


def phantom(shape=SHAPE):
    """(columns, rows, slices) int16: a ramp and a block off the middle."""
    grid = np.indices(shape)
    array = (grid[0] + 10 * grid[1] + 50 * grid[2]).astype(np.int16)
    array[2:5, 6:9, 1:3] = 900
    return array


def dataset(rows, columns, **changes):
    """One image without pixels; a change to None leaves the attribute out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": MRImageStorage, "PatientName": SECRETS[0], "PatientID": SECRETS[1],
        "PatientBirthDate": SECRETS[2], "PatientSex": "F", "AccessionNumber": SECRETS[3],
        "InstitutionName": SECRETS[4], "ReferringPhysicianName": SECRETS[5], "StudyID": "1",
        "StudyDate": "20240506", "SeriesDate": "20240506", "ContentDate": "20240506",
        "StudyTime": "101112", "SeriesTime": "101112", "ContentTime": "101112",
        "StudyInstanceUID": uid("study"), "SeriesInstanceUID": uid("series"),
        "FrameOfReferenceUID": uid("frame"), "PositionReferenceIndicator": "",
        "Modality": "MR", "Manufacturer": "Phantoms", "SeriesNumber": 3, "InstanceNumber": 1,
        "SeriesDescription": "t1 mprage", "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "ScanningSequence": "GR", "SequenceVariant": "NONE", "ScanOptions": "",
        "MRAcquisitionType": "3D", "EchoTime": "3", "EchoTrainLength": 1, "RepetitionTime": "8",
        "Laterality": "", "PatientPosition": "HFS", "Rows": rows, "Columns": columns,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
    }  # fmt: skip
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(found, keyword, value)
    return found


def decimals(values):
    return [f"{value:.10g}"[:16] for value in values]


def write_series(folder, array=None, affine=None, *, shuffle=True, name="IM{:03d}", **changes):
    """Write a file for each slice of ``array`` (columns, rows, slices), places by ``affine`` (RAS).

    ``changes`` are attributes of every file, or functions of the slice's number. File names are in
    no order. Returns the files in the order of the array.
    """
    array = phantom() if array is None else array
    lps = LPS @ (oblique() if affine is None else affine)
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    depth = array.shape[2]
    numbers = np.random.default_rng(5).permutation(depth) if shuffle else np.arange(depth)
    files = []
    for k in range(depth):
        own = {key: one(k) if callable(one) else one for key, one in changes.items()}
        pixels = np.ascontiguousarray(array[:, :, k].T)
        found = dataset(*pixels.shape, **place_of(lps, lengths, k) | own)
        key = own.get("SOPInstanceUID", uid(found.SeriesInstanceUID, k))
        found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = key
        found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
        if "InstanceNumber" not in own:
            found.InstanceNumber = int(numbers[k]) + 1
        if "PixelData" not in own:
            found.PixelData = pixels.astype("<i2").tobytes()
        path = folder / name.format(int(numbers[k]))
        found.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def place_of(lps, lengths, k):
    directions = lps[:3, :2] / lengths[:2]
    return {
        "ImagePositionPatient": decimals(lps[:3, 3] + k * lps[:3, 2]),
        "ImageOrientationPatient": decimals(directions.T.ravel()),
        "PixelSpacing": decimals(lengths[[1, 0]]),
        "SliceThickness": f"{lengths[2]:.6g}",
    }


def write_multiframe(path, array=None, affine=None, *, order=None, **changes):
    """Write an Enhanced MR image: all slices in one file, frames in ``order``."""
    from pydicom.dataset import Dataset
    from pydicom.uid import EnhancedMRImageStorage

    array = phantom() if array is None else array
    lps = LPS @ (oblique() if affine is None else affine)
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    order = range(array.shape[2]) if order is None else order
    found = dataset(
        array.shape[1], array.shape[0], SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=len(list(order)), SliceThickness=None, **changes,
    )  # fmt: skip

    def group(**values):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    frames = []
    for k in order:
        place = place_of(lps, lengths, k)
        frames.append(group(
            PlanePositionSequence=[group(ImagePositionPatient=place["ImagePositionPatient"])],
            PixelValueTransformationSequence=[
                group(RescaleSlope=2 + k, RescaleIntercept=-7, RescaleType="US")
            ],
            FrameContentSequence=[group(
                StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1]
            )],
        ))  # fmt: skip
    place = place_of(lps, lengths, 0)
    found.SharedFunctionalGroupsSequence = [group(
        PlaneOrientationSequence=[
            group(ImageOrientationPatient=place["ImageOrientationPatient"])
        ],
        PixelMeasuresSequence=[
            group(PixelSpacing=place["PixelSpacing"], SliceThickness=place["SliceThickness"])
        ],
    )]  # fmt: skip
    found.PerFrameFunctionalGroupsSequence = frames
    stacked = np.stack([array[:, :, k].T for k in order])
    found.PixelData = stacked.astype("<i2").tobytes()
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = uid("multiframe")
    found.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)
    return path


def write_dicomdir(path):
    """Write the table of contents that lies on discs."""
    from pydicom.uid import MediaStorageDirectoryStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = uid("directory")
    found = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    found.FileSetID = "DISC"
    found.DirectoryRecordSequence = []
    found.SeriesInstanceUID = uid("series")  # as of a record
    found.save_as(path, enforce_file_format=True)


def read(path):
    return pydicom.dcmread(path)
