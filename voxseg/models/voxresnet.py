"""VoxResNet, full and reduced, with the designs of a supervoxel-pooled last layer.

Source: Chen, Dou, Yu and Heng, *VoxResNet: Deep Voxelwise Residual Networks for Volumetric Brain
Segmentation*, 2016, arXiv:1608.05895; Reduced (/f) and the designs: Schuurmans, Berman and
Blaschko, *Efficient semantic image segmentation with superpixel pooling*, 2018, arXiv:1806.02705,
section 3.2.

Departures:

- Reduced (/f): its Figure 4 is a picture that no text repeats. Here it is the trunk up to VoxRes3
  (one stage), one deconvolution and one 3x3x3 classifier, all widths divided by f; ``stages`` and
  ``width_divisor`` are both options, so that the figure can be met whichever way it is read.
- Full, ``fusion="features"``: the deconvolved taps all get the width of the first stage, are
  summed and feed one classifier, so that V0, V2 and V3 differ in the last layer only. The
  auxiliary heads, one a tap, exist for deep supervision and do nothing at inference.
- Full, ``fusion="scores"``: the classical sum of four class-score heads; V2 to V4 then change each
  of the heads.
- Design V4 is ours: V3 with supervoxels that know of each other (``layers/superpixel_tokens``).
- ``fusion="decoder"`` is ours: a coarse-to-fine decoder in place of the deconvolutions, for widths
  that grow with depth (``widths``), where 10x10x10 kernels would cost most of the time.
- A ReLU follows the deconvolutions, so that supervoxels pool an activation. Classifier weights
  start from N(0, 0.01), all others from He's normal distribution.
- One input channel a modality; the original feeds every modality twice.
- The paper's Figure 6 counts 2304 parameters for a 3x3x3 layer from 64 channels to 4 classes; that
  layer has 6912 (and 4 biases).
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.decoder import CoarseToFine, pointwise
from voxseg.layers.superpixel import (
    Design,
    Reduce,
    Scores,
    SuperpixelClassifier,
    needed,
    pool_scores,
    voxel_classifier,
)
from voxseg.layers.voxres import Deconvolution, Norm, Stride, VoxResTrunk, normalisation

Fusion = Literal["features", "scores", "decoder"]

FUSIONS: tuple[Fusion, ...] = ("features", "scores", "decoder")
WIDTHS = (32, 64, 64, 64, 64)
"""Channels of the stem and of each stage; the paper has three stages."""


class VoxResNet(nn.Module):
    """A residual network for volumes (or images) of any size, with pooled designs V0 to V4.

    V0 is the base network. V1 pools its class scores over supervoxels. V2 classifies supervoxels
    instead of voxels. V3 adds both. V4 adds supervoxels that exchange what they hold first.
    Parameters that two designs share have the same names in both, see
    ``voxseg.models.load_shared_weights``.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes, background included.
        spatial_dims: 2 or 3.
        stages: strided stages, 1 to 4; 3 is the full network, 1 the reduced one.
        width_divisor: f; divides every width.
        design: ``V0``, ``V1``, ``V2``, ``V3`` or ``V4``.
        reduce: pooling over supervoxels, ``max`` or ``mean``.
        fusion: ``features``, ``scores`` or ``decoder``, see the module's departures. One tap alone
            (one stage) is the same in the first two.
        norm: ``batch``, ``instance`` or ``group``.
        strides: stride of each stage, one number or one for each axis (for anisotropic voxels);
            2 everywhere if not given.
        widths: channels of the stem and of each stage before division by f;
            32, 64, 64, ... if not given.
        pooled_scores: what V1 pools, ``logits`` or ``softmax``.
        token_width: of V4, numbers that stand for a supervoxel.
        token_blocks: of V4, how often supervoxels exchange what they hold.

    Attributes:
        receptive_field: voxels that one voxel of the deepest tap sees, by axis. The supervoxel
            branch sees its whole supervoxel besides, that of V4 all of them.
        tap_receptive_fields: the same for every tap; 5, 23, 59 and 131 in the full network.
        output_stride: 1: features of full resolution are classified.
        feature_channels: F, channels of ``features``.
        needs_superpixels: whether ``forward`` wants superpixels.
        needs_places: whether it wants to know where they lie.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of one of the papers, or open in them
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int = 3,
        stages: int = 3,
        width_divisor: int = 1,
        design: Design = "V0",
        reduce: Reduce = "max",
        fusion: Fusion = "features",
        norm: Norm = "batch",
        strides: Sequence[Stride] | None = None,
        widths: Sequence[int] | None = None,
        pooled_scores: Scores = "logits",
        token_width: int = 32,
        token_blocks: int = 2,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(
                f"in_channels and num_classes must be at least 1, got {in_channels}, {num_classes}"
            )
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {FUSIONS}, got {fusion!r}")
        if pooled_scores not in ("logits", "softmax"):
            raise ValueError(f"pooled_scores must be 'logits' or 'softmax', got {pooled_scores!r}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.spatial_dims = spatial_dims
        self.design: Design = design
        self.reduce: Reduce = reduce
        self.fusion: Fusion = fusion
        self.pooled_scores: Scores = pooled_scores
        self.needs_superpixels = design != "V0"
        self.needs_places = design == "V4"
        self.token_width = token_width

        divided = _divided_widths(stages, width_divisor, widths)
        self.trunk = VoxResTrunk(spatial_dims, in_channels, divided, strides or (2,) * stages, norm)
        self.tap_receptive_fields = self.trunk.receptive_fields
        self.output_stride = 1
        self.receptive_field = self.trunk.receptive_fields[-1]
        # The reduced network reads its one stage alone, all others every tap.
        reads_one = stages == 1 and fusion != "decoder"
        self.taps = (1,) if reads_one else tuple(range(stages + 1))
        if fusion == "decoder":
            self.decoder = CoarseToFine(spatial_dims, divided, norm)
            self.last_norm = normalisation(norm, spatial_dims, divided[0])
            outputs = [divided[0]]
        else:
            outputs = [divided[tap] if fusion == "scores" else divided[1] for tap in self.taps]
            self.deconvs = nn.ModuleList(
                Deconvolution(spatial_dims, divided[tap], output, self.trunk.strides[tap])
                for tap, output in zip(self.taps, outputs, strict=True)
            )
        self.head_channels = outputs if fusion == "scores" else outputs[:1]
        self.feature_channels = sum(self.head_channels)
        self.heads = nn.ModuleList(
            SuperpixelClassifier(
                spatial_dims,
                channels,
                num_classes,
                design,
                reduce,
                token_width=token_width,
                token_blocks=token_blocks,
            )
            for channels in self.head_channels
        )
        if fusion == "decoder":
            auxiliary: list[nn.Module] = [
                pointwise(spatial_dims, w, num_classes) for w in divided[1:]
            ]
        elif fusion == "features" and len(self.taps) > 1:
            auxiliary = [voxel_classifier(spatial_dims, w, num_classes) for w in outputs]
        else:
            auxiliary = []
        self.auxiliary = nn.ModuleList(auxiliary)

    @property
    def reach(self) -> tuple[int, ...] | None:
        """Voxels on each side that the logits of a voxel depend on, by axis.

        Its supervoxel aside. None with instance or group norm, which look at the whole image.
        """
        if any(isinstance(module, nn.GroupNorm) for module in self.modules()):
            return None
        radii = [[f // 2 for f in fields] for fields in self.tap_receptive_fields]
        strides = self.trunk.strides
        deepest, finest = len(strides) - 1, 0
        if self.fusion == "decoder":
            for level in range(deepest - 1, finest - 1, -1):
                mixed = 2 * (finest < level)  # a VoxRes module, two convolutions
                for axis, (coarse, step) in enumerate(
                    zip(strides[level + 1], strides[level], strict=True)
                ):
                    below = radii[level + 1][axis] + coarse
                    radii[level][axis] = max(radii[level][axis], below) + mixed * step
            found = radii[finest]
        else:
            # A deconvolution's voxel reads the taps that are at most one stride away.
            taps = [
                [r + s for r, s in zip(radii[tap], strides[tap], strict=True)] for tap in self.taps
            ]
            found = [max(axis) for axis in zip(*taps, strict=True)]
        return tuple(radius + 1 for radius in found)  # the classifier is 3 voxels wide

    def forward(
        self,
        x: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Return class logits for every voxel.

        Args:
            x: (B, in_channels, *S) floating point; any size.
            superpixels: (B, *S) integers below ``count``, negative = in no superpixel; V0 ignores
                them. In no superpixel V2 answers with its bias, the others with the voxel branch.
            count: K, the same for the whole batch.
            places: of V4, (B, K, D + 1) in mm, see ``voxseg.ops.superpixel_places``; by default
                those of ``superpixels`` in an image of 1 mm voxels.

        Returns:
            (B, num_classes, *S). V1: pooled logits of the voxel's superpixel.

        Raises:
            ValueError: the image has other channels or axes than the network, or a pooled design
                gets no superpixels.
        """
        return self.classify(self.features(x), superpixels, count, places=places)

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer reads, (B, feature_channels, *S), at full resolution."""
        taps = self._taps(x)
        size = x.shape[2:]
        if self.fusion == "decoder":
            return self._finest(self.decoder(taps), size)
        if self.fusion == "scores":
            upsampled = [up(tap, size) for up, tap in zip(self.deconvs, taps, strict=True)]
            return functional.relu(torch.cat(upsampled, 1), inplace=True)
        fused: Tensor = self.deconvs[0](taps[0], size)
        for up, tap in zip(list(self.deconvs)[1:], taps[1:], strict=True):
            fused += up(tap, size)
        return functional.relu(fused, inplace=True)

    def classify(
        self,
        features: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        pooled: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Return class logits (B, num_classes, *S) from the ``features`` of a whole image.

        ``forward(x, ...)`` equals ``classify(features(x), ...)``; apart from each other they let
        a volume that was seen part by part be pooled over whole supervoxels. ``pooled`` is then
        what ``exchange`` makes of all that the supervoxels' parts ``to_pool`` together come to,
        while ``features`` and ``superpixels`` are only a part of the image.
        """
        logits = _sum(self._head_scores(features, superpixels, count, pooled, places))
        return self._pooled(logits, superpixels, count, pooled)

    def to_pool(self, features: Tensor) -> Tensor:
        """Return what this design pools over supervoxels, (B, P, *S): V1's scores, or features."""
        if self.design != "V1":
            return features
        logits = _sum(self._head_scores(features, None, None))
        return logits.softmax(1) if self.pooled_scores == "softmax" else logits

    def exchange(self, pooled: Tensor, places: Tensor | None = None) -> Tensor:
        """Let supervoxels exchange: what ``classify`` takes for a whole image's pooled values.

        Args:
            pooled: (B, P, K), of ``to_pool``.
            places: (B, K, D + 1); needed by V4 alone.

        Returns:
            Of V4 class scores of every supervoxel, a set for each head,
            (B, heads * num_classes, K); of other designs ``pooled`` itself.
        """
        if not self.needs_places:
            return pooled
        parts = torch.split(pooled, self.head_channels, 1)
        heads = cast("list[SuperpixelClassifier]", list(self.heads))
        return torch.cat([h.exchange(p, places) for h, p in zip(heads, parts, strict=True)], 1)

    def supervise(
        self,
        x: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward`` and one auxiliary answer for each tap, for training.

        Every answer is (B, num_classes, *S); with ``fusion="decoder"`` each level but the finest
        answers at its own resolution. One tap alone has no auxiliary answer.
        """
        if self.fusion == "decoder":
            levels = self.decoder(self._taps(x))
            features = self._finest(levels, x.shape[2:])
            pairs = zip(self.auxiliary, levels[1:], strict=True)
            main = self.classify(features, superpixels, count, places=places)
            return main, [head(f) for head, f in pairs]
        if self.fusion == "scores":
            scores = self._head_scores(self.features(x), superpixels, count, places=places)
            main = self._pooled(_sum(scores), superpixels, count)
            return main, scores if len(scores) > 1 else []
        size = x.shape[2:]
        upsampled = [up(tap, size) for up, tap in zip(self.deconvs, self._taps(x), strict=True)]
        fused = functional.relu(_sum(upsampled))
        main = self.classify(fused, superpixels, count, places=places)
        # Not strict: one tap alone has no auxiliary head.
        heads = zip(self.auxiliary, upsampled, strict=False)
        return main, [head(functional.relu(tap)) for head, tap in heads]

    def _finest(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Normalise the finest level and cut off what the image was filled up with."""
        features: Tensor = levels[0]
        for axis, length in enumerate(size, start=2):
            features = features.narrow(axis, 0, length)
        return functional.relu(self.last_norm(features), inplace=True)

    def _taps(self, x: Tensor) -> list[Tensor]:
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, and {self.spatial_dims} spatial axes), "
                f"got {tuple(x.shape)}"
            )
        taps = self.trunk(x)
        return [taps[tap] for tap in self.taps]

    def _head_scores(
        self,
        features: Tensor,
        superpixels: Tensor | None,
        count: int | None,
        pooled: Tensor | None = None,
        places: Tensor | None = None,
    ) -> list[Tensor]:
        parts = torch.split(features, self.head_channels, 1)
        answers: Sequence[Tensor | None] = [None] * len(parts)
        if pooled is not None and self.design != "V1":
            scored = [self.num_classes] * len(parts)
            answers = torch.split(pooled, scored if self.needs_places else self.head_channels, 1)
        return [
            head(part, superpixels, count, answer, places)
            for head, part, answer in zip(self.heads, parts, answers, strict=True)
        ]

    def _pooled(
        self,
        logits: Tensor,
        superpixels: Tensor | None,
        count: int | None,
        pooled: Tensor | None = None,
    ) -> Tensor:
        if self.design != "V1":
            return logits
        superpixels, count = needed(superpixels, count)
        return pool_scores(
            logits,
            superpixels,
            count,
            reduce=self.reduce,
            scores=self.pooled_scores,
            pooled=pooled,
        )


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _divided_widths(stages: int, divisor: int, widths: Sequence[int] | None) -> tuple[int, ...]:
    if not 1 <= stages < len(WIDTHS):
        raise ValueError(f"stages must be 1 to {len(WIDTHS) - 1}, got {stages}")
    full = tuple(widths) if widths is not None else WIDTHS[: stages + 1]
    if len(full) != stages + 1:
        raise ValueError(f"widths needs {stages + 1} numbers for {stages} stages, got {full}")
    if divisor < 1 or any(width < 1 or width % divisor for width in full):
        raise ValueError(f"width_divisor must divide every width of {full}, got {divisor}")
    return tuple(width // divisor for width in full)
