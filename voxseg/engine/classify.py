"""Which class a whole photograph is of: one network or several, from prepared case to shares."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from voxseg.data.class_crops import centre_crop
from voxseg.data.prepare import Prepared
from voxseg.engine.device import Compute
from voxseg.errors import UsageError
from voxseg.models import SUNetClassifier


def crop_pixels(size: Sequence[int]) -> tuple[int, int]:
    """Height and width of a crop, from ``train.patch_voxels``: one number stands for both.

    Raises:
        UsageError: there are three, or one is 0.
    """
    if len(size) > 2:
        raise UsageError(f"train.patch_voxels has {len(size)} numbers, but photographs two axes")
    if not all(size):
        raise UsageError("train.patch_voxels has a 0, but photographs differ; give a crop's size")
    return size[0], size[-1]


@torch.inference_mode()
def class_shares(
    networks: Sequence[SUNetClassifier],
    case: Prepared,
    compute: Compute,
    size: Sequence[int],
    *,
    flips: bool = False,
) -> np.ndarray:
    """Probability of each class of one photograph, from its centre.

    Args:
        networks: whose answers are averaged, in evaluation mode.
        case: a photograph, prepared.
        compute: device, precision, memory layout.
        size: of the crop, see ``centre_crop``.
        flips: average over the crop and its mirror image.

    Returns:
        (N,) float32.
    """
    image = torch.from_numpy(case.image[..., 0])
    crop = centre_crop(image, crop_pixels(size))[None].to(compute.device)
    crop = crop.contiguous(memory_format=compute.memory_format)
    views = [crop, crop.flip(3)] if flips else [crop]
    with compute.autocast():
        answers: list[Tensor] = [network(view) for network in networks for view in views]
    shares = torch.stack([one.float().softmax(1)[0] for one in answers]).mean(0)
    found: np.ndarray = shares.cpu().numpy()
    return found
