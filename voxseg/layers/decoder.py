"""A coarse-to-fine decoder: each tap of a trunk meets what the deeper ones found.

Source: Ronneberger, Fischer and Brox, *U-Net*, 2015, arXiv:1505.04597; any trunk with taps stands
for its contracting path.

Departures: taps and upsampled features are added, not concatenated; upsampling is linear
interpolation after a 1x1x1 convolution, which costs little at full resolution; a VoxRes module
(arXiv:1608.05895) mixes each level but the finest and the deepest.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.voxres import Norm, VoxRes

_POINTWISE: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def pointwise(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Conv2d | nn.Conv3d:
    """Build a biased 1x1x1 convolution with He-normal weights."""
    layer = _POINTWISE[spatial_dims](in_channels, out_channels, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class CoarseToFine(nn.Module):
    """Walk from the deepest tap to the finest: project, upsample, add the tap, mix.

    Shape: taps (B, widths[i], *S_i), finest first -> features (B, widths[i], *S_i), finest first.

    Args:
        spatial_dims: 2 or 3.
        widths: channels of each tap, finest first.
        norm: normalisation in the VoxRes modules.
    """

    def __init__(self, spatial_dims: int, widths: Sequence[int], norm: Norm = "batch") -> None:
        super().__init__()
        self._mode = _LINEAR[spatial_dims]
        self.lateral = nn.ModuleList(pointwise(spatial_dims, w, w) for w in widths)
        self.project = nn.ModuleList(
            pointwise(spatial_dims, deep, fine) for fine, deep in pairwise(widths)
        )
        self.mix = nn.ModuleList(VoxRes(spatial_dims, w, norm) for w in widths[1:-1])

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Return the features of every level, finest first."""
        features = self.lateral[-1](taps[-1])
        levels = [features]
        for level in range(len(taps) - 2, -1, -1):
            size = taps[level].shape[2:]
            up = functional.interpolate(
                self.project[level](features), size=size, mode=self._mode, align_corners=False
            )
            features = torch.add(self.lateral[level](taps[level]), up)
            if level:
                features = self.mix[level - 1](features)
            levels.append(features)
        return levels[::-1]
