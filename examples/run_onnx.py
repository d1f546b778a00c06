"""Segment a volume with a network that ``voxseg export onnx`` wrote: no torch, no voxseg.

It needs numpy, nibabel and onnxruntime alone, and may be copied into other programs:
``python run_onnx.py NETWORK.onnx VOLUME MASK [--supervoxels MAP]``. NETWORK.onnx.json lies beside
the network and says how an image is prepared. The designs V1 to V4 also take a map of supervoxels,
which ``voxseg supervoxels VOLUME -o MAP --run RUN`` writes. Where volumes are resampled, the map is
brought to the network's voxels by the nearest one, so that the mask is near that of ``voxseg
predict``, not the same.

Without arguments it shows itself at work: voxseg trains a small network on synthetic volumes and
exports it, and the masks of both are compared.
"""

import argparse
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime


def segment(network: Path, volume: Path, mask: Path, supervoxels: Path | None = None) -> None:
    """Write the mask of a volume, on its own grid."""
    about = json.loads(network.with_name(f"{network.name}.json").read_text(encoding="utf-8"))
    if about["schema"] != "voxseg.network/1":
        raise SystemExit(f"{network} is described as {about['schema']}, not voxseg.network/1")
    how = about["preprocessing"]
    source = nib.load(volume)
    turn = nib.io_orientation(source.affine)  # to the axis order RAS+
    image = channels(source, how["image_channels"])
    image = np.stack([turned(one, turn) for one in image])
    ras_shape = image.shape[1:]
    ras_mm = np.linalg.norm(source.affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    shape = working_shape(ras_shape, ras_mm, how)
    image = np.stack([resampled(one, shape) for one in image])

    inside = foreground(image[0], how)
    box = [bounds(inside, axis) for axis in range(3)]
    margin = how["margin_voxels"]
    crop = [(max(0, a - margin), min(n, b + margin)) for (a, b), n in zip(box, shape, strict=True)]
    cut = tuple(slice(a, b) for a, b in crop)
    inputs = {"image": prepared(image, inside, box, how)[(slice(None), *cut)][None]}
    if about["supervoxels"] is not None:
        if supervoxels is None:
            raise SystemExit("this network pools supervoxels: give a map with --supervoxels")
        regions = turned(np.asarray(nib.load(supervoxels).dataobj).reshape(source.shape[:3]), turn)
        inputs["superpixels"] = nearest(regions, shape)[cut][None].astype(np.int64) - 1
    if any(one["name"] == "spacing" for one in about["inputs"]):  # it places its supervoxels
        inputs["spacing"] = np.array(how["spacing_mm"] or ras_mm, np.float32)

    size = inputs["image"].shape[2:]
    if all(n <= least for n, least in zip(size, about["smallest_voxels"], strict=True)):
        raise SystemExit(f"the volume's foreground of {size} voxels is too small for this network")
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    scores = session.run(None, inputs)[0][0]

    classes = restored(scores, crop, shape, ras_shape)
    values = np.array([one["value"] for one in about["postprocessing"]["classes"]])
    label = turned_back(values[classes], turn)
    header = source.header.copy()
    kind = np.result_type(*(np.min_scalar_type(value) for value in values))
    header.set_data_dtype(kind)
    header.set_slope_inter(1, 0)
    nib.save(type(source)(label.astype(kind), source.affine, header), mask)


def channels(source: nib.Nifti1Image, count: int) -> np.ndarray:
    """(C, X, Y, Z) float32 of a file whose fourth axis, if there is one, holds the channels."""
    array = np.asarray(source.dataobj, np.float32)
    array = np.moveaxis(array.reshape(*array.shape[:3], -1), -1, 0)
    if len(array) != count:
        raise SystemExit(f"the volume has {len(array)} channels, and the network takes {count}")
    return array


def turned(array: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Permute and flip axes to RAS+."""
    return nib.apply_orientation(array, turn)


def turned_back(array: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Undo ``turned``."""
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    return nib.apply_orientation(array, nib.orientations.ornt_transform(ras, turn))


def working_shape(shape: tuple[int, ...], ras_mm: np.ndarray, how: dict) -> tuple[int, ...]:
    """Size of the grid that the network was trained on, over the same box."""
    if not how["spacing_mm"]:
        return shape
    sizes = zip(shape, ras_mm, how["spacing_mm"], strict=True)
    return tuple(max(1, round(n * old / new)) for n, old, new in sizes)


def foreground(array: np.ndarray, how: dict) -> np.ndarray:
    """Which voxels are anatomy."""
    nonzero = array != 0
    if how["foreground"] == "all":
        return np.ones(array.shape, bool)
    if how["foreground"] == "auto" and nonzero.mean() > 1 - how["auto_zero_share"]:
        return np.ones(array.shape, bool)
    return nonzero


def bounds(inside: np.ndarray, axis: int) -> tuple[int, int]:
    """First voxel of the foreground along an axis, and the one after its last."""
    used = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(used[0]), int(used[-1]) + 1


def prepared(image: np.ndarray, inside: np.ndarray, box: list, how: dict) -> np.ndarray:
    """Scale each channel by its foreground, and add the position in it if the network wants it."""
    parts = [scaled(one, inside, how) for one in image]
    if how["coordinates"]:
        lines = [
            (np.arange(n) - (a + b - 1) / 2) / max((b - 1 - a) / 2, 0.5)
            for (a, b), n in zip(box, inside.shape, strict=True)
        ]
        parts += np.meshgrid(*lines, indexing="ij")
    return np.stack(parts).astype(np.float32)


def scaled(values: np.ndarray, inside: np.ndarray, how: dict) -> np.ndarray:
    """Clip and scale one channel."""
    if how["normalise"] == "none":
        return values
    low, high = -np.inf, np.inf
    if how["clip_percentiles"]:
        found = np.percentile(values[inside], how["clip_percentiles"])
        low, high = found if found[0] < found[1] else (low, high)
    values = np.where(inside, np.clip(values, low, high), np.minimum(values, high))
    part = values[inside]
    if how["normalise"] == "median":
        return values / np.median(part)
    values = (values - part.mean(dtype=np.float64)) / part.std(dtype=np.float64)
    return np.where(inside, values, how["outside"])


def weights(size: int, target_size: int, targets: np.ndarray, part: tuple[int, int]) -> np.ndarray:
    """Linear interpolation along one axis: (targets, voxels of ``part``) of a grid of ``size``.

    Both grids cover the same box. Where the target is coarser, the kernel is as much wider.
    """
    ratio = size / target_size
    width = max(ratio, 1.0)
    centres = (targets + 0.5) * ratio - 0.5
    taps = 2 * int(np.ceil(width))
    voxels = np.floor(centres)[:, None].astype(int) + np.arange(taps) - taps // 2 + 1
    offsets = (voxels - centres[:, None]) / width
    kernel = np.maximum(1 - np.abs(offsets), 0)
    kernel /= kernel.sum(1, keepdims=True)
    if width > 1:  # sampling a wide kernel moves its centre of mass: move it back
        middle = (kernel * offsets).sum(1, keepdims=True)
        spread = (kernel * (offsets - middle) ** 2).sum(1, keepdims=True)
        kernel = kernel - middle * kernel * (offsets - middle) / spread
    matrix = np.zeros((len(targets), part[1] - part[0]))
    rows = np.broadcast_to(np.arange(len(targets))[:, None], voxels.shape)
    np.add.at(matrix, (rows, np.clip(voxels, part[0], part[1] - 1) - part[0]), kernel)
    return matrix.astype(np.float32)


def along(axis: int, matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Multiply one axis of ``values`` by a matrix."""
    return np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)


def resampled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate an image to a grid of ``shape`` over the same box."""
    for axis, (size, target) in enumerate(zip(values.shape, shape, strict=True)):
        if size != target:
            values = along(axis, weights(size, target, np.arange(target), (0, size)), values)
    return values


def nearest(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Take the nearest label at each voxel of a grid of ``shape``."""
    for axis, (size, target) in enumerate(zip(labels.shape, shape, strict=True)):
        if size != target:
            labels = np.take(labels, (2 * np.arange(target) + 1) * size // (2 * target), axis)
    return labels


def restored(
    scores: np.ndarray, crop: list, shape: tuple[int, ...], target: tuple[int, ...]
) -> np.ndarray:
    """Index of the best class on the volume's grid; outside of the crop it is 0."""
    classes = np.zeros(target, np.uint8 if len(scores) <= 256 else np.int32)
    if shape == target:
        classes[tuple(slice(a, b) for a, b in crop)] = scores.argmax(0)
        return classes
    shares = np.exp(scores - scores.max(0))
    shares /= shares.sum(0)
    region = []
    for axis, (part, size, wanted) in enumerate(zip(crop, shape, target, strict=True)):
        centres = (np.arange(wanted) + 0.5) * size / wanted
        covered = np.flatnonzero((centres >= part[0]) & (centres < part[1]))
        region.append(slice(covered[0], covered[-1] + 1))
        shares = along(axis + 1, weights(size, wanted, covered, part), shares)
    classes[tuple(region)] = shares.argmax(0)
    return classes


def demonstrate(folder: Path) -> None:
    """Train and export a small network with voxseg, and compare the masks of both."""
    import voxseg
    from voxseg.export.nifti import plain_geometry, write_map, write_mask

    rng = np.random.default_rng(0)
    geometry = plain_geometry(np.diag([-1.0, 1.0, 1.2, 1.0]), (36, 32, 28))
    for number in range(4):
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (36, 32, 28)), indexing="ij")
        radius = np.sqrt(
            sum((a - s) ** 2 for a, s in zip(axes, rng.uniform(-0.2, 0.2, 3), strict=True))
        )
        label = (radius < 0.7).astype(np.uint8) + (radius < 0.4)
        image = 100.0 + 50 * label + 10 * rng.standard_normal(label.shape)
        write_map(folder / "images" / f"s{number}.nii.gz", image, geometry)
        write_mask(folder / "labels" / f"s{number}.nii.gz", label, geometry)
    settings = {
        "model": {"design": "V3"},
        "supervoxels": {"size_mm": 5.0},
        "train": {"epochs": 2, "steps_per_epoch": 10, "patch_voxels": (24, 24, 24),
                  "learning_rate": 1e-2, "precision": "float32"},
    }  # fmt: skip
    run, volume = folder / "run", folder / "images" / "s0.nii.gz"
    voxseg.train(folder / "images", run, labels=folder / "labels", settings=settings, device="cpu")
    voxseg.export_onnx(run, folder / "network.onnx", case=volume)
    voxseg.supervoxels(volume, folder / "map.nii.gz", run=run)
    segment(folder / "network.onnx", volume, folder / "mask.nii.gz", folder / "map.nii.gz")
    voxseg.predict(run, volume, folder / "own.nii.gz", device="cpu")
    mask, own = (np.asarray(nib.load(folder / f"{n}.nii.gz").dataobj) for n in ("mask", "own"))
    print(f"{100 * (mask != own).mean():.3f}% of the voxels differ from voxseg's mask")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Segment a volume with an exported network.")
    for name in ("network", "volume", "mask"):
        parser.add_argument(name, type=Path, nargs="?")
    parser.add_argument("--supervoxels", type=Path, help="for the designs V1 to V4")
    given = parser.parse_args()
    if given.mask is not None:
        segment(given.network, given.volume, given.mask, given.supervoxels)
    elif given.network is not None:
        parser.error("give NETWORK, VOLUME and MASK, or nothing for a demonstration")
    else:
        with tempfile.TemporaryDirectory() as temporary:
            demonstrate(Path(temporary))
