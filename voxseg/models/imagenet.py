"""ImageNet weights in torchvision's layout, from a file on disk.

Source: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015,
arXiv:1409.0575; the layout is that of the state dicts torchvision publishes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from voxseg.errors import DataError
from voxseg.models.shared import LoadReport, read_torch_file

_RGB = 3
_COUNTER = "num_batches_tracked"
_MOST_NAMED = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; only tensors are read from the file.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a file of ImageNet weights")
    content = read_torch_file(path)
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DataError(
            f"{path} holds more than named tensors; give a state dict in torchvision's layout"
        )
    return dict(content)


def load_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    path: Path,
    *,
    kind: str,
    stem: str,
    left_out: Sequence[str] = (),
) -> LoadReport:
    """Load all weights of a file into a network of its layout.

    A network of one channel gets the sum of the file's three input channels, so that a grey image
    gives what its copies in red, green and blue would. Nothing is changed unless everything fits.

    Args:
        network: with torchvision's names.
        weights: the file's, shaped as the network's.
        path: the file, for messages.
        kind: what the network is, for messages: "ResNet-18".
        stem: name of the first convolution's weight.
        left_out: names in the file that the network has no place for.

    Returns:
        What was loaded, is missing (counters of batches alone), and was left out.

    Raises:
        DataError: the file is of another network.
    """
    own = network.state_dict()
    state = {name: value for name, value in weights.items() if name not in left_out}
    # Files from before 2018 do not count their batches, and nothing here reads the count.
    missing = [n for n in own if n not in state and not n.endswith(_COUNTER)]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        raise DataError(
            f"{path} is not a {kind} in torchvision's layout: "
            + "; ".join(
                f"{what} {_some(names)}"
                for what, names in (("it lacks", missing), ("it also has", unknown))
                if names
            )
            + "; give the file of this network"
        )
    first = state[stem]
    if own[stem].shape[1] == 1 and first.ndim == own[stem].ndim and first.shape[1] == _RGB:
        state[stem] = first.sum(1, keepdim=True)
    differing = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if value.shape != own[name].shape
    ]
    if differing:
        raise DataError(
            f"{path} is of a {kind} with other widths, input channels or axes: "
            f"{_some(differing)}; ImageNet weights fit images of 3 channels, or 1"
        )
    network.load_state_dict(state, strict=False)
    return LoadReport(
        loaded=tuple(name for name in own if name in state),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in weights if name in left_out),
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
