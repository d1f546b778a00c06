"""What a MONAI Bundle of a pooled design calls: it computes the supervoxels of an image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor

from voxseg.data.superpixels import SupervoxelSettings, cached_supervoxels


class SupervoxelInferer(Inferer):
    """Run a network that takes an image and its supervoxels on whole volumes.

    Args:
        settings: of the supervoxels, as in the run's configuration.
        outside: What the image holds outside of its foreground, which supervoxels leave out; None
            divides all of it.
        spacing_mm: Voxel size of the prepared image; empty for what its affine says.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        outside: float | None = None,
        spacing_mm: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self._spacing = list(spacing_mm)
        self._settings = SupervoxelSettings(**settings)
        self._outside = outside

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the network's logits (B, N, *S).

        Args:
            inputs: (B, C, *S), prepared; MONAI's tensor, whose affine tells the voxel size.
            network: takes the image and (B, *S) int64 supervoxels.
            *args: further arguments of the network.
            **kwargs: further arguments of the network.
        """
        maps = [self._divide(image) for image in inputs]
        superpixels = torch.from_numpy(np.stack(maps)).to(inputs.device)
        logits: Tensor = network(torch.as_tensor(inputs), superpixels, *args, **kwargs)
        return logits

    def _divide(self, image: Any) -> np.ndarray:
        sizes: list[float] = torch.linalg.norm(image.affine[:3, :3].double(), dim=0).tolist()
        spacing = self._spacing or sizes
        values: np.ndarray = image.cpu().numpy()
        mask = None if self._outside is None else values[0] != self._outside
        regions = cached_supervoxels(np.asarray(values), spacing, self._settings, mask=mask)
        return regions.astype(np.int64)
