"""Atrous spatial pyramid pooling, and the global branch that stands beside it.

Source: Chen, Papandreou, Schroff and Adam, *Rethinking Atrous Convolution for Semantic Image
Segmentation* (DeepLabv3), 2017, arXiv:1706.05587; ASPP+: Xie, Zhou and Wu, *Vortex Pooling:
Improving Context Representation in Semantic Segmentation*, 2018, arXiv:1804.06242, section 4.1.

Departures:

- The rates are those of output stride 8 and do not depend on the size of the map; where a rate goes
  beyond the map, its outer taps read zeros, as in the original.
- The global branch's map has one value a channel, so its vector is repeated, which is what bilinear
  upsampling from one value comes to.
- Trained on a single image, the global branch normalises with its running statistics: one value has
  no variance, and normalised by itself it would be the same for every image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

RATES = (12, 24, 36)
"""Dilations of the 3x3 convolutions at output stride 8; half as much at 16."""
CHANNELS = 256
"""Filters of each branch."""


def unbiased_convolution(
    in_channels: int, out_channels: int, kernel: int, dilation: int = 1
) -> nn.Conv2d:
    """Build a 2D convolution without bias that keeps the map's size, with He-normal weights."""
    if kernel not in (1, 3):
        raise ValueError(f"kernel must be 1 or 3, got {kernel}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, got {dilation}")
    layer = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        bias=False,
    )
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def check_pyramid(
    in_channels: int, channels: int, dilations: Sequence[int], first_kernel: int
) -> None:
    """Raise ValueError unless these describe the branches of a pyramid."""
    if in_channels < 1 or channels < 1:
        raise ValueError(
            f"in_channels and channels must be at least 1, got {in_channels}, {channels}"
        )
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations must be numbers of at least 1, got {tuple(dilations)}")
    if first_kernel not in (1, 3):
        raise ValueError(f"first_kernel must be 1 (ASPP) or 3 (ASPP+), got {first_kernel}")


class ConvNormReLU(nn.Module):
    """A convolution without bias, batch normalisation and ReLU.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv = unbiased_convolution(in_channels, out_channels, kernel, dilation)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return a map as large as ``features``."""
        return functional.relu(self.norm(self.conv(features)), inplace=True)


class GlobalBranch(nn.Module):
    """What the whole map is like, at every position of it: mean, 1x1 convolution, norm, ReLU.

    A batch of one image trains, see the module's departures. A norm that joins the batches of
    several processes takes one image a process as it is.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int = CHANNELS) -> None:
        super().__init__()
        self.conv = unbiased_convolution(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the global vector, repeated over a map as large as ``features``."""
        vector = self._normalised(self.conv(features.mean((2, 3), keepdim=True)))
        return functional.relu(vector).expand(-1, -1, *features.shape[2:])

    def _normalised(self, vector: Tensor) -> Tensor:
        norm = self.norm
        # Only the plain layer is alone with its one value: synchronised ones see other processes'.
        if norm.training and len(vector) == 1 and isinstance(norm, nn.BatchNorm2d):
            return functional.batch_norm(
                vector, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        normalised: Tensor = norm(vector)
        return normalised


class ASPP(nn.Module):
    """Parallel convolutions of growing dilation over one map, concatenated.

    A first convolution of dilation 1 (1x1; 3x3 in ASPP+), one 3x3 convolution for each rate, and
    the global branch. With 2048 channels in and the defaults these are 15,206,912 parameters,
    ASPP+ has 19,401,216.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W), any H and W.

    Args:
        in_channels: channels of the map.
        channels: filters of each branch.
        rates: dilations of the 3x3 convolutions.
        first_kernel: 1, or 3 for ASPP+.
        global_branch: whether the global branch is there.

    Attributes:
        out_channels: ``channels`` times the number of branches.
        reach: cells on each side that an answer reads, the global branch aside.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int = CHANNELS,
        rates: Sequence[int] = RATES,
        first_kernel: int = 1,
        global_branch: bool = True,
    ) -> None:
        super().__init__()
        check_pyramid(in_channels, channels, rates, first_kernel)
        self.branches = nn.ModuleList([ConvNormReLU(in_channels, channels, first_kernel)])
        self.branches.extend(ConvNormReLU(in_channels, channels, 3, rate) for rate in rates)
        self.image = GlobalBranch(in_channels, channels) if global_branch else None
        self.out_channels = channels * (len(self.branches) + global_branch)
        self.reach = max(rates)

    def forward(self, features: Tensor) -> Tensor:
        """Return the branches' answers, the global one last."""
        answers = [branch(features) for branch in self.branches]
        if self.image is not None:
            answers.append(self.image(features))
        return torch.cat(answers, 1)
