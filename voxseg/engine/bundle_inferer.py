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
        passes_spacing: Whether the network takes the voxel size as its third input.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        outside: float | None = None,
        spacing_mm: Sequence[float] = (),
        passes_spacing: bool = False,
    ) -> None:
        super().__init__()
        self._passes_spacing = passes_spacing
        self._spacing = list(spacing_mm)
        self._settings = SupervoxelSettings(**settings)
        self._outside = outside

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the network's logits (B, N, *S).

        Args:
            inputs: (B, C, *S), prepared; MONAI's tensor, whose affine tells the voxel size.
            network: takes the image and (B, *S) int64 supervoxels, and (3,) float32 voxel sizes if
                it was told to pass them.
            *args: further arguments of the network.
            **kwargs: further arguments of the network.

        Raises:
            ValueError: voxel sizes are to be passed, and images of the batch differ in them.
        """
        spacings = [self._spacing or _voxel_size(image) for image in inputs]
        maps = [self._divide(*each) for each in zip(inputs, spacings, strict=True)]
        given = [torch.from_numpy(np.stack(maps)).to(inputs.device)]
        if self._passes_spacing:
            if not np.allclose(spacings, spacings[0]):
                raise ValueError(
                    "images with voxels of different sizes cannot share a batch: set the "
                    "dataloader's batch_size to 1"
                )
            given.append(torch.tensor(spacings[0], dtype=torch.float32, device=inputs.device))
        logits: Tensor = network(torch.as_tensor(inputs), *given, *args, **kwargs)
        return logits

    def _divide(self, image: Any, spacing: Sequence[float]) -> np.ndarray:
        values: np.ndarray = image.cpu().numpy()
        mask = None if self._outside is None else values[0] != self._outside
        regions = cached_supervoxels(np.asarray(values), spacing, self._settings, mask=mask)
        return regions.astype(np.int64)


def _voxel_size(image: Any) -> list[float]:
    sizes: list[float] = torch.linalg.norm(image.affine[:3, :3].double(), dim=0).tolist()
    return sizes
