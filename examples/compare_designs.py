"""Does pooling over supervoxels help? Cross-validate with and without it, and compare.

The data are synthetic: two nested ellipsoids of tissue under strong noise. Give a folder to keep
everything, a page about each run included: ``python examples/compare_designs.py FOLDER``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import voxseg
from voxseg.export.nifti import plain_geometry, write_map, write_mask

SHAPE = (32, 28, 24)
CASES = 8


def write_subject(folder: Path, name: str, rng: np.random.Generator) -> None:
    """Write one image and its label map side by side."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    stretch, shift = rng.uniform(0.9, 1.2, 3), rng.uniform(-0.15, 0.15, 3)
    squares = [((a - s) * k) ** 2 for a, s, k in zip(axes, shift, stretch, strict=True)]
    radius = np.sqrt(np.sum(squares, axis=0))
    label = (radius < 0.8).astype(np.uint8) + (radius < 0.45)
    values = np.array([1.0, 2.0, 3.0])[label] + rng.standard_normal(SHAPE)
    geometry = plain_geometry(np.eye(4), SHAPE)
    write_mask(folder / f"{name}_seg.nii.gz", label.astype(np.uint8), geometry)
    write_map(folder / f"{name}.nii.gz", values, geometry)


def main(folder: Path) -> None:
    """Write the data, cross-validate V0 and V3 on the same folds, print the verdict."""
    rng = np.random.default_rng(0)
    for number in range(CASES):
        write_subject(folder / "data", f"case-{number}", rng)
    voxseg.split(folder / "data", folder / "split.json", folds=2)
    for design in ("V0", "V3"):
        result = voxseg.crossval(
            folder / "data",
            folder / design,
            split=folder / "split.json",
            settings={
                "model": {"design": design, "stages": 1, "width_divisor": 8, "reduce": "mean"},
                "supervoxels": {"size_mm": 4.0, "sigma_mm": 1.5},
                "train": {
                    "steps_per_epoch": 25,
                    "patch_voxels": (24, 24, 24),
                    "learning_rate": 1e-2,
                    "ema_decay": 0.9,
                },
            },
            epochs=3,
            jobs=2,
            device="cpu",
            report=folder / f"{design}.html",
        )
        print(f"{design}: mean foreground Dice {result.evaluation.summary.foreground_dice:.3f}")
    comparison = voxseg.compare([folder / "V0", folder / "V3"], folder / "difference")
    for row in comparison.rows:
        print(f"{row.name:16} {row.test.difference:+.3f}  {row.verdict}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
