"""Load trained ENets of others: e-lab's, converted from Torch, and davidtvs/PyTorch-ENet's.

Source: the networks of arXiv:1606.02147 as their files name them. e-lab's published model in the
layout that bermanmaxim/Enet-PyTorch's converter writes (arXiv:1806.02705 starts from it): every
module by its number. davidtvs/PyTorch-ENet: every module by a name.

e-lab's dropout scales what it keeps in evaluation, PyTorch's in training; the scale goes into the
norm before it, after which both networks are the same in training and in evaluation.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from voxseg.errors import DataError, VoxsegError
from voxseg.models.enet import ENet
from voxseg.models.shared import LoadReport, load_shared_weights, read_torch_file

_OWN = re.compile(r"(?P<stage>(?:trunk|decoder)\.stage\d)\.(?P<block>\d+)\.(?P<rest>.+)")
# Number of the first block of each stage in e-lab's layout.
_FIRST = {
    "trunk.stage1": 4,
    "trunk.stage2": 9,
    "trunk.stage3": 18,
    "decoder.stage4": 26,
    "decoder.stage5": 29,
}
_DILATED = ("regular", "dilated", "asymmetric", "dilated") * 2
# Name of each block in davidtvs's layout, without its place in the stage.
_PORT = {
    "trunk.stage1": ("downsample", *("regular",) * 4),
    "trunk.stage2": ("downsample", *_DILATED),
    "trunk.stage3": _DILATED,
    "decoder.stage4": ("upsample", "regular", "regular"),
    "decoder.stage5": ("upsample", "regular"),
}
_ELAB_OTHERS = {
    "trunk.initial.conv": "0.0",
    "trunk.initial.norm": "2",
    "trunk.initial.activation": "3",
    "pixel": "31",
}
_PORT_OTHERS = {
    "trunk.initial.conv": "initial_block.main_branch",
    "trunk.initial.norm": "initial_block.batch_norm",
    "trunk.initial.activation": "initial_block.out_activation",
    "pixel": "transposed_conv",
}
_UPSAMPLING = ("ext_tconv1", "ext_tconv1_bnorm", "ext_tconv1_activation")
_COUNTER = ".num_batches_tracked"  # files from before PyTorch 0.4.1 have none
_MOST_NAMED = 3
_FAMILIES = {"released": "e-lab", "script": "e-lab", "port": "davidtvs"}


def load_published_weights(model: ENet, path: Path, *, drop_unlabelled: bool = False) -> LoadReport:
    """Copy the weights of a file that others trained into ``model``.

    The encoder's classifier and the superpixel branch are in no such file and stay as they are.

    Args:
        model: an ENet of the file's version, in any design.
        path: a state dict in e-lab's converted layout or in davidtvs/PyTorch-ENet's, or a
            checkpoint that has it as ``state_dict``. Nothing but tensors is read from it.
        drop_unlabelled: leave out the file's first class, which is unlabelled in the published
            network; ``model`` then has one class less than the file.

    Returns:
        The names that were loaded and missing, of ``model``'s state dict.

    Raises:
        DataError: the file is of something else, of another version or of another size.
    """
    content = _read(path)
    family = _family(content)
    if family is None:
        raise DataError(
            f"{path} does not hold an ENet that voxseg knows; give a state dict in e-lab's "
            "converted layout or of davidtvs/PyTorch-ENet"
        )
    if family != _FAMILIES[model.version]:
        wanted = "version='port'" if family == "davidtvs" else "version='released'"
        raise DataError(
            f"{path} holds an ENet in {family}'s layout, but this network is "
            f"version='{model.version}'; build it with {wanted}"
        )
    names = published_names(model)
    _compare(path, model, content, names)
    found = {own: content[other] for own, other in names.items() if other in content}
    if family == "e-lab":
        _scale_dropout(model, found)
    if drop_unlabelled:
        _drop_first(found)
    try:
        return load_shared_weights(model, found)
    except VoxsegError as error:
        raise DataError(f"{path}: {error}") from None


def published_names(model: ENet) -> dict[str, str]:
    """Name every tensor of ``model`` that a published file has as that file names it."""
    layout, others = _elab, _ELAB_OTHERS
    if model.version == "port":
        layout, others = _port, _PORT_OTHERS
    names = {}
    for own in model.state_dict():
        match = _OWN.fullmatch(own)
        if match:
            names[own] = layout(match["stage"], int(match["block"]), match["rest"])
            continue
        module, _, value = own.rpartition(".")
        if module in others:
            names[own] = f"{others[module]}.{value}"
    return names


def _elab(stage: str, place: int, rest: str) -> str:
    """Name a tensor of a block by numbers: sum 0 with residual 0 and shortcut 1, activation 2."""
    number = _FIRST[stage] + place
    part, _, inner = rest.partition(".")
    if part == "residual":
        return f"{number}.0.0.{inner}"
    if part == "shortcut":
        layer, _, value = inner.partition(".")
        return f"{number}.0.1.{int(layer) + 1}.{value}"
    return f"{number}.2.{inner}"


def _port(stage: str, place: int, rest: str) -> str:
    """Name a tensor of a block by the role of its layer, each with its norm and activation."""
    kind = _PORT[stage][place]
    prefix = f"{kind}{stage[-1]}_{place}"
    part, _, inner = rest.partition(".")
    if part == "shortcut":
        return f"{prefix}.main_conv1.{inner}"
    if part == "activation":
        return f"{prefix}.out_activation.{inner}"
    layer, _, value = inner.partition(".")
    index = int(layer)
    if index < 3:
        return f"{prefix}.ext_conv1.{index}.{value}"
    if kind == "upsample":
        if index < 6:
            return f"{prefix}.{_UPSAMPLING[index - 3]}.{value}"
        return f"{prefix}.ext_conv2.{index - 6}.{value}"
    middle = 9 if kind == "asymmetric" else 6
    if index < middle:
        return f"{prefix}.ext_conv2.{index - 3}.{value}"
    return f"{prefix}.ext_conv3.{index - middle}.{value}"


def _read(path: Path) -> dict[str, Tensor]:
    content = read_torch_file(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DataError(f"{path} holds other things than tensors by name; give a state dict")
    # Networks that ran on several GPUs at once have this before every name.
    return {name.removeprefix("module."): value for name, value in content.items()}


def _family(content: Mapping[str, Tensor]) -> str | None:
    if "initial_block.main_branch.weight" in content:
        return "davidtvs"
    if {"0.0.weight", "4.0.0.0.weight"} <= set(content):
        return "e-lab"
    return None


def _compare(
    path: Path, model: ENet, content: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    """Refuse a file that lacks a tensor or has one more: it is of another version."""
    wanted = set(names.values())
    if model.pixel is None:  # V2 has no use for the last layer
        last = (_PORT_OTHERS if model.version == "port" else _ELAB_OTHERS)["pixel"]
        wanted |= {name for name in content if name.startswith(f"{last}.")}
    for what, other in (("lacks", wanted - set(content)), ("has also", set(content) - wanted)):
        named = sorted(name for name in other if not name.endswith(_COUNTER))
        if named:
            more = len(named) - _MOST_NAMED
            raise DataError(
                f"{path} {what} "
                + ", ".join(named[:_MOST_NAMED])
                + (f" and {more} more" if more > 0 else "")
                + f": it is not of ENet's version='{model.version}'; build the network in the "
                "version that was trained"
            )


def _scale_dropout(model: ENet, found: dict[str, Tensor]) -> None:
    """Multiply the norm before each dropout by the share that it keeps."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout2d):
            stem, _, layer = name.rpartition(".")
            for value in ("weight", "bias"):
                norm = f"{stem}.{int(layer) - 1}.{value}"
                found[norm] = found[norm] * (1 - module.p)


def _drop_first(found: dict[str, Tensor]) -> None:
    """Leave out the first class of the last layer, whose weights are (16, classes, k, k)."""
    for name, axis in (("pixel.weight", 1), ("pixel.bias", 0)):
        if name in found:
            found[name] = found[name].narrow(axis, 1, found[name].shape[axis] - 1)
