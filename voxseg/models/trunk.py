"""What a hypercolumn head reads: a network whose layers have names, in two or three axes.

Source: Bansal, Chen, Russell, Gupta and Ramanan, *PixelNet*, 2016, arXiv:1609.06694, section 3;
VoxResNet's trunk is that of Chen, Dou, Yu and Heng, 2016, arXiv:1608.05895.

Departures: the paper knows VGG-16 alone (``voxseg.models.vgg``). VoxResNet's layers are read as
they are, without the ReLU that comes before its next convolution, as VoxResNet's own heads read
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from voxseg.layers.voxres import Norm, Stride, VoxResTrunk
from voxseg.models.cost import without_numbers

VOXRES_TAPS = ("conv1b", "voxres3", "voxres6", "voxres9", "voxres12")
"""VoxResNet's layer of full resolution, and the last of each stage; the paper has three stages."""
VOXRES_WIDTHS = (32, 64, 64, 64, 64)
_PROBE = 32


@dataclass(frozen=True)
class Tap:
    """One layer that is read."""

    channels: int
    stride: tuple[float, ...] | None
    """Pixels from one cell to the next, by axis; None: the map is stretched over the image."""
    field: tuple[int, ...] | None
    """Pixels of the image that a cell sees, by axis; None where nobody knows."""


class Trunk(Protocol):
    """A network (``nn.Module``) that gives the maps of several of its layers."""

    in_channels: int
    spatial_dims: int

    @property
    def taps(self) -> Mapping[str, Tap]:
        """The layers by name, in the order in which they are given."""

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return the maps (B, channels, *S') of every tap for images (B, in_channels, *S)."""


class VoxResTaps(VoxResTrunk):
    """VoxResNet's trunk up to the deepest layer that is read.

    Args:
        in_channels: channels of the image.
        taps: which of ``VOXRES_TAPS`` are read.
        spatial_dims: 2 or 3.
        width_divisor: f; divides every width.
        widths: channels of the stem and of each stage before the division; those of
            ``VOXRES_WIDTHS`` if not given.
        strides: stride of each stage, one number or one for each axis; 2 if not given.
        norm: ``batch``, ``instance`` or ``group``.

    Raises:
        ValueError: there is no such layer, or the widths do not fit the stages.
    """

    def __init__(
        self,
        in_channels: int,
        taps: Sequence[str] = VOXRES_TAPS[:4],
        *,
        spatial_dims: int = 3,
        width_divisor: int = 1,
        widths: Sequence[int] | None = None,
        strides: Sequence[Stride] | None = None,
        norm: Norm = "batch",
    ) -> None:
        names = chosen(taps, VOXRES_TAPS, "VoxResNet")
        stages = VOXRES_TAPS.index(names[-1])
        full = tuple(widths or VOXRES_WIDTHS)[: stages + 1]
        if len(full) <= stages or any(width < 1 or width % width_divisor for width in full):
            raise ValueError(
                f"widths must be {stages + 1} numbers that width_divisor {width_divisor} divides "
                f"to read {names[-1]}, got {full}"
            )
        steps = tuple(strides or (2,) * stages)[:stages]
        divided = tuple(width // width_divisor for width in full)
        super().__init__(spatial_dims, in_channels, divided, steps, norm)
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self._read = [VOXRES_TAPS.index(name) for name in names]

    @property
    def taps(self) -> dict[str, Tap]:
        """The layers that are read."""
        return {
            VOXRES_TAPS[i]: Tap(self.widths[i], self.strides[i], self.receptive_fields[i])
            for i in self._read
        }

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of the taps, finest first; they reach over an image's end."""
        maps = super().forward(checked(image, self.in_channels, self.spatial_dims))
        return [maps[i] for i in self._read]


class TappedNetwork(nn.Module):
    """Any network of one's own, whose layers are read while it answers.

    What the network itself gives is not used. A layer before a ReLU that works in place is read
    behind the ReLU.

    Args:
        network: takes an image (B, in_channels, *S).
        in_channels: channels of the image.
        taps: names of the layers, as in ``network.named_modules()``, in the order of the answer;
            each gives a map (B, channels, *S'), which is stretched over the image.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: there is no such layer, or it gives no map.
    """

    def __init__(
        self, network: nn.Module, in_channels: int, taps: Sequence[str], *, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self._names = chosen(taps, [name for name, _ in network.named_modules() if name], "")
        probe = torch.empty(1, in_channels, *(_PROBE,) * spatial_dims, device="meta")
        with torch.no_grad():
            maps = self._maps(without_numbers(network, torch.float32), probe)
        self._channels = [one.shape[1] for one in maps]

    @property
    def taps(self) -> dict[str, Tap]:
        """The layers that are read."""
        named = zip(self._names, self._channels, strict=True)
        return {name: Tap(channels, None, None) for name, channels in named}

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of the taps."""
        return self._maps(self.network, checked(image, self.in_channels, self.spatial_dims))

    def _maps(self, network: nn.Module, image: Tensor) -> list[Tensor]:
        found: dict[str, object] = {}
        # For this call only, so that a copy of the network is not read through the original.
        hooks = [
            network.get_submodule(name).register_forward_hook(partial(_keep, found, name))
            for name in self._names
        ]
        try:
            network(image)
        finally:
            for hook in hooks:
                hook.remove()
        maps = []
        for name in self._names:
            one = found.get(name)
            if not isinstance(one, Tensor) or one.ndim != image.ndim:
                raise ValueError(f"layer {name} gives no map of {self.spatial_dims} axes")
            maps.append(one)
        return maps


def _keep(
    found: dict[str, object], name: str, module: nn.Module, given: object, output: object
) -> None:
    """Take a layer's output, the first of several in one pass."""
    found.setdefault(name, output)


def chosen(names: Sequence[str], known: Sequence[str], network: str) -> tuple[str, ...]:
    """Check the names of taps; in the order of ``known`` where a network is named."""
    unknown = [name for name in names if name not in known]
    where = f"{network} has" if network else "there are"
    if unknown:
        raise ValueError(f"there is no layer {', '.join(unknown)}; {where} {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each layer must be named once, got {tuple(names)}; {where} {known}")
    return tuple(sorted(names, key=list(known).index)) if network else tuple(names)


def checked(image: Tensor, in_channels: int, spatial_dims: int) -> Tensor:
    """Refuse an image of other channels or axes."""
    if image.ndim != spatial_dims + 2 or image.shape[1] != in_channels:
        raise ValueError(
            f"the image must be (B, {in_channels}, and {spatial_dims} spatial axes), got "
            f"{tuple(image.shape)}"
        )
    return image
