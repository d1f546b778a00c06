"""CamVid as published, and in SegNet's form: where its files lie and what its colours mean.

Source: Brostow, Fauqueur, Cipolla, *Semantic object classes in video*, PRL 30(2), 2009: 701 stills,
32 classes painted in colours. SegNet (Badrinarayanan, Kendall, Cipolla, TPAMI 2017) trains on 11
classes that these are grouped into; what the grouping leaves out is void alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from voxseg.data.cases import Case, Dataset
from voxseg.data.label_sets import CAMVID, Colour
from voxseg.data.names import case_name, is_image_file
from voxseg.errors import DataError

ORIGINAL_IMAGES = "701_StillsRaw_full"
ORIGINAL_LABELS = "LabeledApproved_full"

_SEQUENCES = re.compile(r"^(0001TP|0006R0|0016E5|Seq05VD)_", re.IGNORECASE)
_GROUPS: dict[str, tuple[tuple[str, Colour], ...]] = {
    "sky": (("Sky", (128, 128, 128)),),
    "building": (
        ("Building", (128, 0, 0)), ("Archway", (192, 0, 128)), ("Bridge", (0, 128, 64)),
        ("Tunnel", (64, 0, 64)), ("Wall", (64, 192, 0)),
    ),
    "pole": (("Column_Pole", (192, 192, 128)), ("TrafficCone", (0, 0, 64))),
    "road": (
        ("Road", (128, 64, 128)), ("LaneMkgsDriv", (128, 0, 192)),
        ("LaneMkgsNonDriv", (192, 0, 64)),
    ),
    "pavement": (
        ("Sidewalk", (0, 0, 192)), ("ParkingBlock", (64, 192, 128)),
        ("RoadShoulder", (128, 128, 192)),
    ),
    "tree": (("Tree", (128, 128, 0)), ("VegetationMisc", (192, 192, 0))),
    "sign": (
        ("SignSymbol", (192, 128, 128)), ("Misc_Text", (128, 128, 64)),
        ("TrafficLight", (0, 64, 64)),
    ),
    "fence": (("Fence", (64, 64, 128)),),
    "car": (
        ("Car", (64, 0, 128)), ("SUVPickupTruck", (64, 128, 192)), ("Truck_Bus", (192, 128, 192)),
        ("Train", (192, 64, 128)), ("OtherMoving", (128, 64, 64)),
    ),
    "pedestrian": (
        ("Pedestrian", (64, 64, 0)), ("Child", (192, 128, 64)), ("CartLuggagePram", (64, 0, 192)),
        ("Animal", (64, 128, 64)),
    ),
    "bicyclist": (("Bicyclist", (0, 128, 192)), ("MotorcycleScooter", (192, 0, 192))),
}  # fmt: skip
_UNLABELLED = CAMVID.ignore[0]

CAMVID_COLOURS: dict[Colour, tuple[int, str]] = {
    (0, 0, 0): (_UNLABELLED, "Void"),
    **{
        colour: (value, name)
        for value, members in enumerate(_GROUPS[one.name] for one in CAMVID.classes)
        for name, colour in members
    },
}
"""SegNet's class value and the name of each of the 32 published colours."""


def find_camvid(root: Path, *, need_labels: bool) -> Dataset | None:
    """Find CamVid as published: ``701_StillsRaw_full`` and ``LabeledApproved_full`` (``NAME_L``).

    Returns:
        None if ``root`` is no such folder.

    Raises:
        DataError: A still lacks its label, and labels are needed.
    """
    images_at, labels_at = root / ORIGINAL_IMAGES, root / ORIGINAL_LABELS
    if not images_at.is_dir() or (need_labels and not labels_at.is_dir()):
        return None
    cases = []
    for image in sorted(path for path in images_at.iterdir() if is_image_file(path)):
        label = labels_at / f"{case_name(image)}_L.png"
        if label.is_file():
            cases.append(Case(case_name(image), (image,), label))
        elif need_labels:
            raise DataError(
                f"CamVid's still {image} lacks its label {label}; add it, or remove the still"
            )
        else:
            cases.append(Case(case_name(image), (image,), None))
    note = (
        "CamVid's 32 colours are grouped into SegNet's 11 classes (lane markings are road, trucks "
        "are cars, ...); void does not count"
    )
    return Dataset("CamVid", tuple(cases), CAMVID.names, notes=(note,), label_set=CAMVID)


def are_camvid_names(names: Sequence[str]) -> bool:
    """Tell whether all names are those of stills of CamVid's four drives."""
    return bool(names) and all(_SEQUENCES.match(name) for name in names)
