"""From a network's answers on a batch to the loss, as each kind of network is trained."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from voxseg.data.patches import Batch
from voxseg.data.prepare import IGNORED, Prepared
from voxseg.engine.config import Config
from voxseg.engine.device import Compute
from voxseg.engine.lazy_cases import labels_of
from voxseg.engine.network import SegmentationNetwork
from voxseg.engine.optimise import auxiliary_weight
from voxseg.models import PixelNet, SplitMergeFCN, VoxResNet
from voxseg.tasks.boundaries import BoundaryLoss
from voxseg.tasks.class_weights import class_frequencies, class_weights
from voxseg.tasks.classification import ClassificationLoss
from voxseg.tasks.normals import NormalsLoss
from voxseg.tasks.pixels import draw_pixels, draw_valid
from voxseg.tasks.segmentation import SegmentationLoss

# They tell random numbers from others of the same step.
_OFFSETS = 0x5317
_PIXELS = 0x9E37


class Loss(Protocol):
    """What a task minimises."""

    def __call__(
        self, logits: Tensor, auxiliary: list[Tensor], label: Tensor, auxiliary_weight: float, /
    ) -> Tensor:
        """Mean loss of the batch; of several processes, the part of this one."""


class Supervision:
    """The loss of training steps.

    Args:
        config: task, loss, deep supervision, batch norm.
        compute: device, precision, memory layout, processes.
        weight: (N,) of the classes in cross-entropy; None weighs all alike.
    """

    def __init__(
        self,
        config: Config,
        compute: Compute,
        weight: Tensor | None = None,
    ) -> None:
        self._settings, self._compute = config.train, compute
        self._ignored = IGNORED if config.num_outputs <= IGNORED else None
        if weight is not None:
            weight = weight.to(compute.device)
        self._loss = _loss(config, compute, weight)

    def __call__(
        self, network: SegmentationNetwork, batch: Batch, step: int, progress: float
    ) -> Tensor:
        """Return the loss of one step, with gradients.

        Args:
            network: on ``compute``'s device; put into training mode.
            batch: on the CPU.
            step: of the whole run: split-merge pooling draws its offsets from it, PixelNet its
                pixels.
            progress: of the run, in [0, 1].
        """
        compute, settings = self._compute, self._settings
        device = compute.device
        image = batch.image.to(device, non_blocking=True)
        image = image.contiguous(memory_format=compute.memory_format)
        label = batch.label.to(device, non_blocking=True)
        if not label.is_floating_point():
            label = label.long()
        regions = batch.superpixels
        if regions is not None:
            regions = regions.to(device, non_blocking=True)
        network.train()
        if settings.freeze_batchnorm:
            freeze_norms(network)
        with compute.autocast():
            if isinstance(network, SplitMergeFCN):
                # The cost of the strided network, and the gradient of one sub-grid of the answer.
                key = [settings.seed, step, _OFFSETS]
                seed = int(np.random.default_rng(key).integers(2**63))
                offsets = network.draw_offsets(torch.Generator().manual_seed(seed))
                logits: Tensor = network.sampled(image, offsets)
                auxiliary: list[Tensor] = []
                label = network.sample_labels(label[:, 0], offsets, IGNORED)[:, None]
            elif isinstance(network, PixelNet) and settings.pixels:
                points = self._points(batch.label, step).to(compute.device)
                logits, auxiliary = network.sampled(image, points), []
                label = label.flatten(2).gather(2, points[:, None].expand(-1, label.shape[1], -1))
            elif isinstance(network, VoxResNet) and batch.places is not None:
                places = batch.places.to(device, non_blocking=True)
                logits, auxiliary = network.supervise(image, regions, batch.count, places)
            else:
                logits, auxiliary = network.supervise(image, regions, batch.count)
        weight = auxiliary_weight(settings, progress)
        loss: Tensor = self._loss(logits, auxiliary, label, weight)
        return loss

    def _points(self, label: Tensor, step: int) -> Tensor:
        """Draw the pixels of a step, by its number and the image's in the whole batch."""
        settings, ranks = self._settings, self._compute.ranks
        generators = [
            np.random.default_rng([settings.seed, step, ranks.rank + ranks.size * image, _PIXELS])
            for image in range(len(label))
        ]
        if label.is_floating_point():  # normals: all 0 where none is known
            return draw_valid((label != 0).any(1), settings.pixels, generators)
        return draw_pixels(
            label,
            settings.pixels,
            generators,
            sampling=settings.pixel_sampling,
            positive_share=settings.positive_share,
            ignored=self._ignored,
        )


def _loss(config: Config, compute: Compute, weight: Tensor | None) -> Loss:
    """Return what the task minimises."""
    if config.task.kind == "normals":
        return NormalsLoss(compute.ranks.add)
    if config.task.kind == "classification":
        return ClassificationLoss(compute.ranks.add)
    if config.task.kind == "boundaries":
        return BoundaryLoss(compute.ranks.add, config.task.balance)
    num_classes = len(config.labels.values)
    return SegmentationLoss(num_classes, config.train.loss, compute.ranks.add, weight=weight)


def freeze_norms(network: nn.Module) -> None:
    """Keep the statistics of batch norms, and their scales and shifts, as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)


def training_weights(config: Config, cases: Sequence[Prepared]) -> Tensor | None:
    """Weights of the classes by their share of the training pixels; None where all count alike."""
    if config.train.class_weights == "none":
        return None
    labels = (torch.from_numpy(label) for label in labels_of(cases))
    frequencies = class_frequencies(labels, len(config.labels.values))
    return class_weights(frequencies, config.train.class_weight_c)
