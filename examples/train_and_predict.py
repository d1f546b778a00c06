"""Train a Reduced (/8) V3 network on a folder of NIfTI volumes and segment a new one.

The folder is synthetic: ellipsoids of three tissues. Give a folder to keep it and the results:
``python examples/train_and_predict.py FOLDER``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import voxseg
from voxseg.export.nifti import plain_geometry, write_map, write_mask

SHAPE = (36, 32, 28)
SPACING = (1.0, 1.0, 1.2)
NAMES = {1: "outer", 2: "middle", 3: "inner"}


def write_subject(folder: Path, name: str, rng: np.random.Generator) -> Path:
    """Write one image and its label map; return the image's path."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    stretch, shift = rng.uniform(0.9, 1.2, 3), rng.uniform(-0.1, 0.1, 3)
    squares = [((a - s) * k) ** 2 for a, s, k in zip(axes, shift, stretch, strict=True)]
    radius = np.sqrt(np.sum(squares, axis=0))
    label = (radius < 0.9).astype(np.uint8) + (radius < 0.65) + (radius < 0.4)
    values = np.array([0.0, 1.0, 2.0, 3.0])[label] + 0.25 * rng.standard_normal(SHAPE)
    geometry = plain_geometry(np.diag([*SPACING, 1.0]), SHAPE)
    write_mask(folder / "labels" / f"{name}.nii.gz", label.astype(np.uint8), geometry)
    return write_map(folder / "images" / f"{name}.nii.gz", values, geometry)


def main(folder: Path) -> None:
    """Write the data, train, predict a subject that was not trained on, score it."""
    rng = np.random.default_rng(0)
    for number in range(5):
        write_subject(folder / "training", f"subject-{number}", rng)
    unseen = write_subject(folder / "new", "subject-5", rng)

    settings = {
        "model": {"design": "V3", "stages": 1, "width_divisor": 8},
        "supervoxels": {"size_mm": 5.0},
        "train": {
            "epochs": 4,
            "steps_per_epoch": 15,
            "validate_every": 4,
            "patch_voxels": (24, 24, 24),
            "learning_rate": 1e-2,
            "ema_decay": 0.9,
        },
    }
    result = voxseg.train(
        folder / "training" / "images",
        folder / "run",
        labels=folder / "training" / "labels",
        settings=settings,
        device="cpu",
        say=print,
    )
    print(f"validation Dice {result.best_dice:.3f} after {result.steps} steps")

    (outcome,) = voxseg.predict(folder / "run", unseen, folder / "masks", device="cpu")
    print(f"{outcome.output}: {outcome.seconds:.1f} s, {outcome.memory}")
    evaluation = voxseg.evaluate(folder / "masks", folder / "new" / "labels")
    for value, name in NAMES.items():
        print(f"{name:6}  Dice {evaluation.scores[unseen.name.split('.')[0]][value].dice:.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
