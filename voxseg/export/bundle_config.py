"""The configuration of a MONAI Bundle: what ``configs/inference.json`` holds.

Everything is said with MONAI's own transforms and short expressions, so that ``monai.bundle run``
and MONAI Label need no code of ours. The keys that MONAI Label reads are ``device``,
``bundle_root``, ``network_def``, ``preprocessing``, ``inferer`` and ``postprocessing``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from voxseg.export.torch_program import SPACING

SCRIPT = "models/model.ts"
"""TorchScript, which MONAI Label looks for."""
PROGRAM = "models/model.pt2"
INFERER = "voxseg.engine.bundle_inferer.SupervoxelInferer"

_CASES = (
    "$[sorted(glob.glob(os.path.join(path, '*.nii*'))) if os.path.isdir(path) else path "
    "for path in sorted(glob.glob(os.path.join(@dataset_dir, '*'))) "
    "if os.path.isdir(path) or '.nii' in path]"
)

# MONAI's evaluator would do the same, and needs pytorch-ignite.
_ANSWER = (
    "$lambda batch: [@postprocessing(case) for case in monai.data.decollate_batch("
    "{**batch, 'pred': @inferer(batch['image'].to(@device), @network)})]"
)
_RUN = "$torch.no_grad()(lambda: [len(@answer(batch)) for batch in @dataloader])()"

# Linear interpolation between grids over one box of the world, as a matrix for each axis; where the
# grid gets coarser the kernel is as much wider. MONAI's Spacingd neither keeps the box nor widens
# anything, and fails in MONAI Label, which puts "image_path" beside the image.
_RESAMPLE = {
    "kernel": "$lambda offsets: (lambda tent: tent / tent.sum(1, keepdims=True))"
    "(np.maximum(1 - np.abs(offsets), 0))",
    "centred": "$lambda offsets, kernel: (lambda middle: kernel - middle * kernel * "
    "(offsets - middle) / (kernel * (offsets - middle) ** 2).sum(1, keepdims=True))"
    "((kernel * offsets).sum(1, keepdims=True))",
    "offsets": "$lambda size, target, places: (places - "
    "((np.arange(target) + 0.5) * (size / target) - 0.5)[:, None]) / max(size / target, 1.0)",
    "taps": "$lambda size, target, places: (lambda offsets: @kernel(offsets) if target >= size "
    "else @centred(offsets, @kernel(offsets)))(@offsets(size, target, places))",
    "matrix": "$lambda size, target: (lambda places: np.dot(@taps(size, target, places), "
    "np.eye(size)[np.clip(places, 0, size - 1)]).astype(np.float32))"
    "(np.arange(-size // target - 1, size + size // target + 2))",
    "resample": "$lambda values, shape: functools.reduce(lambda array, axis: np.moveaxis("
    "np.tensordot(@matrix(array.shape[axis], shape[axis - 1]), array, (1, axis)), 0, axis) "
    "if array.shape[axis] != shape[axis - 1] else array, (1, 2, 3), values)",
    "cropped": "$lambda values, shape: functools.reduce(lambda array, axis: np.take(array, "
    "(2 * np.arange(shape[axis]) + 1) * array.shape[axis] // (2 * shape[axis]), axis), "
    "range(3), values.sum(0) > 0)",
    "restore": "$lambda values, shape: @resample(values, shape) * @cropped(values, shape)",
    "working_shape": "$lambda image: [max(1, round(n * old / new)) for n, old, new in "
    "zip(image.shape[1:], np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0), @spacing)]",
}
_TO_WORKING_GRID = {
    "_target_": "Lambdad",
    "keys": "image",
    "func": "$lambda image: monai.utils.convert_to_dst_type("
    "@resample(image.get_array(), @working_shape(image)), image)[0]",
}
# On its own after Invertd, for Lambdad does not use the inverse function that it is given.
_TO_FILE_GRID = {
    "_target_": "Lambdad",
    "keys": "pred",
    "func": "$lambda pred: (lambda out: out.meta.update(affine=out.meta['original_affine']) or out)"
    "(monai.utils.convert_to_dst_type(@restore(pred.get_array(), "
    "[int(n) for n in pred.meta['spatial_shape'][:3]]), pred)[0])",
}


def inference_config(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the configuration that prepares images, runs the network and saves masks.

    Args:
        facts: as ``voxseg.network`` describes them.
    """
    preparation = facts["preprocessing"]
    return {
        "imports": ["$import functools", "$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": _CASES,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": _network(facts),
        "network": "$@network_def.to(@device)",
        **_expressions(preparation),
        "preprocessing": _compose(_preparation(preparation)),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0,
        },
        "inferer": _inferer(facts),
        "postprocessing": _compose(_answer(facts)),
        "answer": _ANSWER,
        "run": [_RUN],
    }  # fmt: skip


def takes_spacing(facts: Mapping[str, Any]) -> bool:
    """Whether the network asks for the size of a voxel."""
    return any(one["name"] == SPACING for one in facts["inputs"])


def _compose(transforms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _network(facts: Mapping[str, Any]) -> str:
    if facts["supervoxels"] is not None:
        return f"$torch.export.load(@bundle_root + '/{PROGRAM}').module()"
    return f"$torch.jit.load(@bundle_root + '/{SCRIPT}', map_location=@device)"


def _inferer(facts: Mapping[str, Any]) -> dict[str, Any]:
    windows = facts["windows"]
    if facts["supervoxels"] is not None:
        outside = facts["preprocessing"]["outside"]
        asks = {"passes_spacing": True} if takes_spacing(facts) else {}
        return {
            "_target_": INFERER, "settings": facts["supervoxels"], "outside": outside,
            "spacing_mm": facts["preprocessing"]["spacing_mm"], **asks,
        }  # fmt: skip
    if windows is None:
        return {"_target_": "SimpleInferer"}
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": windows["size_voxels"],
        "sw_batch_size": 1,
        "overlap": windows["overlap"],
        "mode": {"gaussian": "gaussian", "even": "constant"}[windows["blend"]],
    }


def _expressions(preparation: Mapping[str, Any]) -> dict[str, str]:
    """Functions that the transforms use: which voxels are anatomy, and how they are scaled."""
    found = {"foreground": _foreground(preparation)}
    if preparation["spacing_mm"]:
        found |= _RESAMPLE | {"spacing": f"${preparation['spacing_mm']}"}
    if preparation["normalise"] == "none":
        return found
    found["limits"] = _limits(preparation["clip_percentiles"])
    # Values outside the foreground are clipped from above alone: 0 stays 0.
    clipped = "np.where(inside, np.clip(values, low, high), np.minimum(values, high))"
    if preparation["normalise"] == "zscore":
        scaled = (
            "(lambda part: np.where(inside, (values - part.mean(dtype=np.float64)) / "
            f"part.std(dtype=np.float64), {preparation['outside']}))(values[inside])"
        )
    else:
        scaled = "values / np.float32(np.median(values[inside]))"
    found["scale"] = (
        f"$lambda values, inside: (lambda values: {scaled})"
        f"((lambda low, high: {clipped})(*@limits(values[inside])))"
    )
    return found


def _foreground(preparation: Mapping[str, Any]) -> str:
    """Mark anatomy in the first channel of an image (C, X, Y, Z)."""
    mode = preparation["foreground"]
    if mode == "all":
        return "$lambda image: torch.ones_like(image[:1], dtype=torch.bool)"
    if mode == "nonzero":
        return "$lambda image: image[:1] != 0"
    share = 1 - preparation["auto_zero_share"]
    return f"$lambda image: (image[:1] != 0) | ((image[:1] != 0).double().mean() > {share})"


def _limits(percentiles: Sequence[float]) -> str:
    if not percentiles:
        return "$lambda values: (-np.inf, np.inf)"
    return (
        "$lambda values: (lambda low, high: (low, high) if low < high else (-np.inf, np.inf))"
        f"(*np.percentile(values, {list(percentiles)}))"
    )


def _preparation(preparation: Mapping[str, Any]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": preparation["orientation"],
         "labels": None},
    ]  # fmt: skip
    if preparation["spacing_mm"]:
        steps.append(_TO_WORKING_GRID)
    selected = "@foreground"
    if preparation["normalise"] != "none":
        steps.append(_lambda("np.stack([@scale(one, inside) for one in image.get_array()])"))
    if preparation["outside"] is not None:
        selected = f"$lambda image: image != {preparation['outside']}"
    steps.append(
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image",
         "select_fn": selected, "channel_indices": 0, "margin": preparation["margin_voxels"],
         "allow_smaller": True}
    )  # fmt: skip
    return steps


def _lambda(expression: str) -> dict[str, Any]:
    """Change the values of an image, and keep where it lies."""
    return {
        "_target_": "Lambdad",
        "keys": "image",
        "func": "$lambda image: (lambda inside: monai.utils.convert_to_dst_type("
        f"{expression}.astype(np.float32), image)[0])(@foreground(image)[0].numpy())",
    }


def _answer(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Back to the grid of the file: class shares, not classes, are interpolated."""
    values = [one["value"] for one in facts["postprocessing"]["classes"]]
    resampling = [_TO_FILE_GRID] if facts["preprocessing"]["spacing_mm"] else []
    dtype = _label_type(values)
    steps: list[dict[str, Any]] = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing",
         "orig_keys": "image", "nearest_interp": False, "to_tensor": True},
        *resampling,
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]  # fmt: skip
    if values != list(range(len(values))):
        steps.append(
            {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": list(range(len(values))),
             "target_labels": values, "dtype": f"$np.{dtype}"}
        )  # fmt: skip
    steps.append(
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir",
         "output_postfix": "seg", "output_dtype": f"$np.{dtype}", "separate_folder": False,
         "resample": False, "print_log": False}
    )  # fmt: skip
    return steps


def _label_type(values: Sequence[int]) -> str:
    """Smallest type that NIfTI and MONAI's writer take."""
    if min(values) < 0:
        return "int16" if min(values) >= -(2**15) and max(values) < 2**15 else "int32"
    return "uint8" if max(values) < 2**8 else "uint16" if max(values) < 2**16 else "int32"
