"""A finished cross-validation on disk without a training: phantoms, and masks of known badness."""

import numpy as np

from voxseg.data.layouts import find_cases
from voxseg.data.splits import kfold, write_split
from voxseg.engine.evaluate import evaluate, write_evaluation
from voxseg.engine.manifest import data_hashes, write_manifest
from voxseg.export.nifti import plain_geometry, write_map, write_mask
from voxseg.files import write_text

SHAPE = (17, 21, 13)
SPACING = (1.0, 1.5, 2.0)
NAMES = {0: "background", 1: "shell", 2: "core"}


def subject(bigger=0):
    """A body with a shell and a core that is off the middle, to the right, front and top."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:14, 4 : 16 + bigger, 2:11] = 1
    label[8:12, 9:15, 6:9] = 2
    image = np.array([5.0, 60.0, 100.0])[label]
    return image.astype(np.float32), label


def geometry():
    return plain_geometry(np.diag([*SPACING, 1.0]), SHAPE)


def write_data(folder, shifts):
    """Images and labels by case; predictions that are so many voxels off, in another folder."""
    for number, (case, shift) in enumerate(shifts.items()):
        image, label = subject(bigger=number % 3)
        write_map(folder / "data" / f"{case}.nii.gz", image, geometry())
        write_mask(folder / "data" / f"{case}_seg.nii.gz", label, geometry())
        mask = folder / "cv" / "predictions" / f"{case}.nii.gz"
        write_mask(mask, np.roll(label, shift, axis=0), geometry())


def write_crossval(folder, shifts):
    """A run folder ``cv`` beside its ``data``, as ``voxseg crossval`` leaves it."""
    write_data(folder, shifts)
    run, data = folder / "cv", folder / "data"
    folds = kfold(tuple(shifts), 2, seed=0)
    write_split(run / "split.json", folds)
    write_text(run / "config.toml", '[model]\ndesign = "V3"\n[train]\nepochs = 4\n')
    write_evaluation(evaluate(run, data, names=NAMES), run)
    facts = {
        "kind": "crossval",
        "folds": 2,
        "device": {"type": "cpu", "threads": 1},
        "data_folder": str(data),
        "label_folder": None,
        "data": data_hashes(find_cases(data).cases),
        "finished": True,
    }
    write_manifest(run / "manifest.json", facts)
    for number in range(2):
        own = {"kind": "train", "steps": 40 + number, "seconds": 90.0}
        write_manifest(run / f"fold-{number}" / "manifest.json", own)
    return run
