"""A head with three letters in it: an L at the left, an A in front, an S on top.

No turn and no mirror image of it looks like itself, so that whatever swaps two axes or sides on its
way from file to file is found out. Each part has an intensity of its own, and the network that
segments it is set by hand to tell these apart: it makes no mistake.
"""

import math
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, to_tables
from voxseg.engine.network import build_network

LABELS = {"head": 1, "L": 2, "A": 5, "S": 9}
INTENSITIES = {0: 0, 1: 100, 2: 160, 5: 200, 9: 240}
SHAPE = (34, 41, 37)
SPACING = (1.1, 0.9, 1.3)
MOST_MM = 0.01
"""How far a centroid may move."""

_LETTERS = {
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "S": (".####", "#....", "#....", ".###.", "....#", "....#", "####."),
}
# First voxel of each letter, and the axes along which it is read: across it, then up.
_PLACES = {"L": ((6, 17, 14), (1, 2)), "A": ((13, 32, 11), (0, 2)), "S": ((16, 15, 29), (0, 1))}


@dataclass(frozen=True)
class Place:
    """Where a label lies, and how much of it there is."""

    centroid: tuple[float, float, float]
    """In mm to the right, front and top."""
    mm3: float


@dataclass(frozen=True)
class Case:
    """One orientation of the phantom on its way through the program."""

    name: str
    image: Path
    mask: Path
    """What ``voxseg predict`` wrote for it."""
    truth: dict[int, Place]


def phantom():
    """Label map (X, Y, Z), axes to the right, front and top, and its affine."""
    axes = [np.linspace(-1.15, 1.15, n) for n in SHAPE]
    radius = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    label = np.where(radius < 1, LABELS["head"], 0).astype(np.uint8)
    for letter, rows in _LETTERS.items():
        start, (across, up) = _PLACES[letter]
        for line, text in enumerate(reversed(rows)):
            for column, sign in enumerate(text):
                at = [slice(s, s + 2) for s in start]  # each letter is two voxels thick
                at[across] = start[across] + column
                at[up] = start[up] + line
                if sign == "#":
                    assert (label[tuple(at)] == LABELS["head"]).all(), f"{letter} leaves the head"
                    label[tuple(at)] = LABELS[letter]
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-20.25, -17.5, 8.125]
    return label, affine


def orientations():
    """Every way that a grid can lie: name -> axes, flips, whether it is oblique."""
    found = {}
    for flips in product((False, True), repeat=3):
        found[_code((0, 1, 2), flips)] = ((0, 1, 2), flips, False)
    for axes in permutations(range(3)):
        flips = (axes[0] == 1, axes[1] == 2, axes[2] == 0)
        found[_code(axes, flips)] = (axes, flips, False)
    found["oblique"] = ((0, 1, 2), (False, False, False), True)
    found["oblique-left-handed"] = ((2, 0, 1), (True, False, False), True)
    return found


def turned(label, affine, axes, flips, is_oblique):
    """Store the same body along other axes, or turn it, in world coordinates, by two angles."""
    matrix = _turn() @ affine if is_oblique else affine
    label = label.transpose(axes)
    matrix = matrix[:, [*axes, 3]].copy()
    for axis, is_flipped in enumerate(flips):
        if is_flipped:
            matrix[:3, 3] += (label.shape[axis] - 1) * matrix[:3, axis]
            matrix[:3, axis] *= -1
            label = np.flip(label, axis)
    return np.ascontiguousarray(label), matrix


def places(label, affine):
    """Where each label of an array is, by its affine."""
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    found = {}
    for value in np.unique(label[label > 0]):
        voxels = np.argwhere(label == value)
        centroid = affine[:3, :3] @ voxels.mean(0) + affine[:3, 3]
        found[int(value)] = Place(tuple(map(float, centroid)), len(voxels) * voxel)
    return found


def write_images(folder):
    """Write the phantom in all orientations; name -> file and where its labels truly are."""
    label, affine = phantom()
    folder.mkdir(parents=True)
    found = {}
    for name, (axes, flips, is_oblique) in orientations().items():
        stored, matrix = turned(label, affine, axes, flips, is_oblique)
        values = np.zeros(stored.shape, np.int16)
        for value, intensity in INTENSITIES.items():
            values[stored == value] = intensity
        image = nib.Nifti1Image(values, matrix)
        image.header.set_xyzt_units("mm")
        path = folder / f"{name}.nii.gz"
        nib.save(image, path)
        found[name] = path, places(stored, matrix)
    return found


def write_network(run):
    """Write a run whose network gives every voxel the class with the nearest intensity.

    Its logits are 2 c x - c^2, which is largest where (x - c)^2 is smallest.
    """
    names = {0: "background", **{value: f"letter {name}" if len(name) == 1 else name
                                 for name, value in LABELS.items()}}  # fmt: skip
    config = build({
        "labels": {"values": list(names), "names": list(names.values())},
        "data": {"normalise": "none"},
        "model": {
            "network": "pixelnet", "trunk": "voxresnet", "taps": ["conv1b"], "width_divisor": 32,
            "hidden": [], "dropout": 0.0,
        },
        "train": {"precision": "float32"},
    })  # fmt: skip
    network = build_network(config.model, 1, len(names), 3)
    weights = network.state_dict()
    for layer in ("trunk.conv1a", "trunk.conv1b"):  # each hands on what it sees in its middle
        weights[f"{layer}.weight"].zero_()
        weights[f"{layer}.weight"][..., 1, 1, 1] = 1
        weights[f"{layer}.bias"].zero_()
    centres = torch.tensor([INTENSITIES[value] for value in names], dtype=torch.float32)
    weights["mlp.0.weight"][:, 0] = 2 * centres
    weights["mlp.0.bias"][:] = -(centres**2)
    content = {"model": weights, "config": to_tables(config), "in_channels": 1, "spatial_dims": 3}
    save_checkpoint(run / "checkpoints" / "best.pt", content)
    return run


def _code(axes, flips):
    letters = (("R", "L"), ("A", "P"), ("S", "I"))
    return "".join(letters[axis][is_flipped] for axis, is_flipped in zip(axes, flips, strict=True))


def _turn():
    """20 degrees about the axis to the top, then 12 about the one to the right; in mm."""
    first, second = math.radians(20), math.radians(12)
    about_top = np.array([[math.cos(first), -math.sin(first), 0],
                          [math.sin(first), math.cos(first), 0], [0, 0, 1]])  # fmt: skip
    about_right = np.array([[1, 0, 0], [0, math.cos(second), -math.sin(second)],
                            [0, math.sin(second), math.cos(second)]])  # fmt: skip
    turn = np.eye(4)
    turn[:3, :3] = about_right @ about_top
    return turn
