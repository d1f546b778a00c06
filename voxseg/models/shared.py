"""Parameters that two networks share: counting them, and fine-tuning one network from another.

Source: Schuurmans, Berman and Blaschko, 2018, arXiv:1806.02705, section 3.2.1: supervoxel networks
are fine-tuned from the baseline network.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxseg.errors import DataError, VoxsegError

_AUXILIARY = "auxiliary."
_MOST_NAMED = 3
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    KeyError,
    IndexError,
)


@dataclass(frozen=True)
class LoadReport:
    """What ``load_shared_weights`` did, as names of the state dict."""

    loaded: tuple[str, ...]
    """Taken from the checkpoint."""
    missing: tuple[str, ...]
    """Of the network, not in the checkpoint: left as they were initialised."""
    unexpected: tuple[str, ...]
    """In the checkpoint, not of the network: not used."""


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers a network learns."""

    inference: int
    """Parameters that an answer depends on."""
    auxiliary: int
    """Parameters of heads that only deep supervision uses."""


def read_torch_file(path: Path) -> Any:
    """Read what ``torch.save`` wrote, tensors and plain values only, to the CPU.

    Raises:
        DataError: the file is damaged, or holds anything that would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(
            f"{path} cannot be read as weights ({reason}); give a state dict saved by torch.save"
        ) from None


def load_shared_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Copy every parameter and statistic that ``model`` and ``state_dict`` both have.

    Nothing is copied unless all of them fit.

    Args:
        model: the network to change, for example a V3.
        state_dict: another network's, for example its baseline's.

    Returns:
        The names that were loaded, missing and unexpected, in the order of the state dicts.

    Raises:
        VoxsegError: a shared name has another shape, or no name is shared.
    """
    own = model.state_dict()
    shared = [name for name in own if name in state_dict]
    if not shared:
        raise VoxsegError(
            "the checkpoint shares no parameter with this network: it is of another model; "
            "train without it or name a checkpoint of the same model"
        )
    differing = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(own[name].shape)}"
        for name in shared
        if state_dict[name].shape != own[name].shape
    ]
    if differing:
        more = len(differing) - _MOST_NAMED
        raise VoxsegError(
            "the checkpoint is of a network with other channels, classes, widths or depth: "
            + ", ".join(differing[:_MOST_NAMED])
            + (f" and {more} more" if more > 0 else "")
            + "; use the options that it was trained with"
        )
    model.load_state_dict({name: state_dict[name] for name in shared}, strict=False)
    return LoadReport(
        loaded=tuple(shared),
        missing=tuple(name for name in own if name not in state_dict),
        unexpected=tuple(name for name in state_dict if name not in own),
    )


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters of ``model``, its auxiliary heads apart; works on the meta device."""
    inference = auxiliary = 0
    for name, parameter in model.named_parameters():
        if name.startswith(_AUXILIARY):
            auxiliary += parameter.numel()
        else:
            inference += parameter.numel()
    return ParameterCount(inference, auxiliary)
