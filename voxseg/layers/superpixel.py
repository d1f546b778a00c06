"""Superpixel branch: the last layer of a network, pooled over superpixels.

Source: Schuurmans, Berman and Blaschko, *Efficient semantic image segmentation with superpixel
pooling*, 2018, arXiv:1806.02705, section 3.2 (the designs V1, V2 and V3). V4 is voxseg's own, see
``superpixel_tokens``.

Departures: V1 pools the class logits, and log-probabilities of the softmax as an option (the paper
does not say which scores); the superpixel part of V3 has no bias of its own and starts from zero,
so that a network fine-tuned from its V0 starts with V0's answer. Voxels of a negative label belong
to no superpixel: V1, V3 and V4 answer them with the voxel branch, V2 with its bias.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from voxseg.layers.superpixel_tokens import SuperpixelTokens
from voxseg.layers.voxres import convolution
from voxseg.ops import superpixel_pool, superpixel_unpool
from voxseg.ops.superpixel_places import superpixel_places

Design = Literal["V0", "V1", "V2", "V3", "V4"]
Reduce = Literal["max", "mean"]
Scores = Literal["logits", "softmax"]

DESIGNS: tuple[Design, ...] = ("V0", "V1", "V2", "V3", "V4")

_CLASSIFIER_STD = 0.01


def pool_scores(
    logits: Tensor,
    superpixels: Tensor,
    count: int,
    *,
    reduce: Reduce = "max",
    scores: Scores = "logits",
    pooled: Tensor | None = None,
) -> Tensor:
    """Give every voxel the pooled class scores of its superpixel (V1, Figure 5).

    The argmax over channels is V1's segmentation; the scores themselves can be trained.

    Args:
        logits: (B, C, *S) class scores of a voxel-wise network.
        superpixels: (B, *S) integers below ``count``; negative = in no superpixel.
        count: K, the same for the whole batch.
        reduce: how the scores of one superpixel become one.
        scores: pool the logits, or the softmax over C. The order of classes can differ, because
            the softmax weighs a voxel's logits against each other before voxels are compared.
        pooled: (B, C, K), the pooled logits or softmax, when superpixels go beyond these voxels.

    Returns:
        (B, C, *S): pooled logits, or the logarithm of pooled softmax. In no superpixel: the
        voxel's own.
    """
    if pooled is None:
        values = logits.softmax(1) if scores == "softmax" else logits
        pooled = superpixel_pool(values, superpixels, count, reduce=reduce)
    if scores == "softmax":
        pooled = pooled.clamp_min(torch.finfo(pooled.dtype).tiny).log()
        logits = logits.log_softmax(1)
    outside = superpixels.unsqueeze(1) < 0
    return torch.where(outside, logits, superpixel_unpool(pooled, superpixels))


class SuperpixelBranch(nn.Module):
    """Pool features over superpixels, map each superpixel linearly, unpool.

    The fully connected layer of section 3.2.1, also drawn there as a 1x1x1 convolution. Usable
    behind any feature map, 2D or 3D.

    Args:
        in_channels: F, channels of the features.
        out_channels: channels of the answer.
        reduce: ``max``, which the paper found better, or ``mean``.
        bias: add a bias to every voxel, those of a negative label as well.

    Shape: features (B, F, *S), superpixels (B, *S) -> (B, out_channels, *S).
    """

    def __init__(
        self, in_channels: int, out_channels: int, reduce: Reduce = "max", *, bias: bool = True
    ) -> None:
        super().__init__()
        if reduce not in ("max", "mean"):
            raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
        self.reduce: Reduce = reduce
        self.linear = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        nn.init.normal_(self.linear.weight, std=_CLASSIFIER_STD)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self, features: Tensor, superpixels: Tensor, count: int, pooled: Tensor | None = None
    ) -> Tensor:
        """Return one answer a superpixel, spread over its voxels.

        Args:
            features: (B, F, *S) floating point.
            superpixels: (B, *S) integers below ``count``; negative = in no superpixel.
            count: K, the same for the whole batch; more than there are superpixels does no harm.
            pooled: (B, F, K), when the superpixels go beyond these features.

        Returns:
            (B, out_channels, *S). In no superpixel: the bias, or zero without one.
        """
        if pooled is None:
            pooled = superpixel_pool(features, superpixels, count, reduce=self.reduce)
        layout = _layout(features)  # a sum with a voxel branch is faster in one layout
        answer = superpixel_unpool(self.linear(pooled), superpixels, memory_format=layout)
        if self.bias is None:
            return answer
        return answer + self.bias.view(-1, *(1,) * (features.ndim - 2))


class SuperpixelClassifier(nn.Module):
    """The last layer of a segmentation network: voxel branch, superpixel branch, or their sum.

    V0 and V1 are the 3x3x3 convolution of the base network (V1 pools its scores afterwards, see
    ``pool_scores``), V2 replaces it by a ``SuperpixelBranch``, V3 adds the two (Figure 6). V4 adds
    ``SuperpixelTokens`` instead, whose superpixels know of each other.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: F, channels of the features.
        num_classes: channels of the answer.
        design: ``V0`` to ``V4``.
        reduce: pooling over superpixels, ``max`` or ``mean``.
        token_width: of V4, numbers of a token.
        token_blocks: of V4, how often tokens exchange.

    Shape: features (B, F, *S), superpixels (B, *S) -> (B, num_classes, *S).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_classes: int,
        design: Design = "V0",
        reduce: Reduce = "max",
        *,
        token_width: int = 32,
        token_blocks: int = 2,
    ) -> None:
        super().__init__()
        if design not in DESIGNS:
            raise ValueError(f"design must be one of {DESIGNS}, got {design!r}")
        self.reduce: Reduce = reduce
        self.voxel: nn.Module | None = None
        self.superpixel: SuperpixelBranch | None = None
        self.tokens: SuperpixelTokens | None = None
        if design != "V2":
            self.voxel = voxel_classifier(spatial_dims, in_channels, num_classes)
        if design in ("V2", "V3"):
            alone = design == "V2"
            self.superpixel = SuperpixelBranch(in_channels, num_classes, reduce, bias=alone)
        if design == "V3" and self.superpixel is not None:
            nn.init.zeros_(self.superpixel.linear.weight)
        if design == "V4":
            self.tokens = SuperpixelTokens(
                spatial_dims, in_channels, num_classes, width=token_width, blocks=token_blocks
            )

    def forward(
        self,
        features: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        pooled: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Return class logits.

        Args:
            features: (B, F, *S) floating point.
            superpixels: (B, *S) integers below ``count``; negative = in no superpixel.
            count: K, the same for the whole batch.
            pooled: what ``exchange`` made of the pooled features, when the superpixels go beyond
                these features.
            places: of V4, (B, K, D + 1), see ``superpixel_places``; by default those of
                ``superpixels`` with voxels of 1 mm.
        """
        answers: list[Tensor] = []
        if self.voxel is not None:
            answers.append(self.voxel(features))
        if self.superpixel is not None:
            superpixels, count = needed(superpixels, count)
            answers.append(self.superpixel(features, superpixels, count, pooled))
        if self.tokens is not None:
            superpixels, count = needed(superpixels, count)
            if pooled is None:
                pooled = superpixel_pool(features, superpixels, count, reduce=self.reduce)
                if places is None:
                    places = superpixel_places(superpixels, count)
                pooled = self.tokens(pooled, places)
            answers.append(superpixel_unpool(pooled, superpixels, memory_format=_layout(features)))
        return answers[0] if len(answers) == 1 else answers[0] + answers[1]

    def exchange(self, pooled: Tensor, places: Tensor | None) -> Tensor:
        """Return what ``forward`` takes for pooled features (B, F, K): of V4, tokens' scores."""
        if self.tokens is None:
            return pooled
        if places is None:
            raise ValueError("the design V4 needs the places of its superpixels")
        scores: Tensor = self.tokens(pooled, places)
        return scores


def _layout(features: Tensor) -> torch.memory_format:
    for layout in (torch.channels_last, torch.channels_last_3d):
        dims = 4 if layout is torch.channels_last else 5
        if features.ndim == dims and features.is_contiguous(memory_format=layout):
            return layout
    return torch.contiguous_format


def needed(superpixels: Tensor | None, count: int | None) -> tuple[Tensor, int]:
    """Return both arguments, or say that a pooled design cannot do without them."""
    if superpixels is None or count is None:
        raise ValueError("the designs V1 to V4 need superpixels (B, *S) and their count")
    return superpixels, count


def voxel_classifier(spatial_dims: int, in_channels: int, num_classes: int) -> nn.Module:
    """Build the 3x3x3 class-score convolution, its weights drawn from N(0, 0.01)."""
    layer = convolution(spatial_dims, in_channels, num_classes)
    nn.init.normal_(layer.weight, std=_CLASSIFIER_STD)
    return layer
