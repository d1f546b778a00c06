"""ENet, and ENet with a superpixel branch at its end.

Source: Paszke, Chaurasia, Kim and Culurciello, *ENet: A Deep Neural Network Architecture for
Real-Time Semantic Segmentation*, 2016, arXiv:1606.02147; the branch: Schuurmans, Berman and
Blaschko, *Efficient semantic image segmentation with superpixel pooling*, 2018, arXiv:1806.02705,
section 3.3 and Figure 10.

Departures:

- Three networks go by the name ENet, see ``VERSIONS``. The default is the one that the authors
  published for Cityscapes, from which the superpixel paper starts; their training scripts have
  ReLU in the decoder, and the port to PyTorch that most people use differs in ten more details.
- ``design``: Figure 10 is V3. V1 and V2 of the same paper's section 3.2 are offered besides.
- The branch has a bias as fully connected layers do, 16 K + K parameters for K classes, and starts
  from zero, so that a network fine-tuned from ENet starts with ENet's answer. Pixels of a negative
  label belong to no superpixel: V1 answers them with the pixel's scores, V2 and V3 as if the
  pooled features were zero.
- The paper does not say how superpixels of full resolution pool a map of half of it. Here each
  pixel of the image counts, with the features of the map's pixel that it lies in: no superpixel is
  too thin to have features, and an image may be seen part by part. Taking every second label
  is the same where superpixels consist of the map's pixels.
- An image that 8 does not divide is filled up with its last pixels and the answer cut.
- Weights start from PyTorch's defaults, which are Torch's, except the branch's.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers.enet import INITIAL, WIDTHS, Details, ENetDecoder, ENetEncoder, doubling
from voxseg.layers.superpixel import (
    Design,
    Reduce,
    Scores,
    SuperpixelBranch,
    needed,
    pool_scores,
)
from voxseg.layers.voxres import fill_grid

Version = Literal["released", "script", "port"]

VERSIONS: dict[Version, Details] = {
    "released": Details(),
    "script": Details(decoder_prelu=False),
    "port": Details(
        eps=1e-5,
        bias=False,
        slope_per_channel=False,
        narrow_output=False,
        active_expansion=True,
        split_asymmetric=True,
        pool_kernel=3,
        up_kernel=2,
        last_kernel=3,
        decoder_prelu=False,
        decoder_dropout=0.1,
    ),
}
"""``released``: e-lab's network for Cityscapes; ``script``: what e-lab's training scripts build;
``port``: davidtvs/PyTorch-ENet."""


class ENet(nn.Module):
    """A fast encoder and decoder for images of any size, with pooled designs V0 to V3.

    V0 is ENet. V1 pools its class scores over superpixels. V2 classifies superpixels instead of
    pixels. V3 adds both (Figure 10). Parameters that two designs share have the same names in
    both, see ``voxseg.models.load_shared_weights``.

    Training is in two steps: first the encoder, with a loss on ``encoder_logits``; then the whole
    network, with a loss on ``forward`` (or on both, see ``supervise``). Class weights are in
    ``voxseg.tasks.class_weights``.

    Args:
        in_channels: channels of the image, 1 to 15.
        num_classes: number of classes; the published network has 20, with unlabelled as the first.
        spatial_dims: 2.
        design: ``V0``, ``V1``, ``V2`` or ``V3``.
        reduce: pooling over superpixels, ``max`` or ``mean``.
        version: ``released``, ``script`` or ``port``, see ``VERSIONS``.
        pooled_scores: what V1 pools, ``logits`` or ``softmax``.

    Attributes:
        receptive_field: pixels that one pixel of the encoder's output sees, by axis.
        output_stride: 1: the last layer classifies every pixel.
        reach: pixels on each side that the logits of a pixel depend on, by axis; its superpixel
            aside.
        feature_channels: F, channels of ``features``.
        needs_superpixels: whether ``forward`` wants superpixels.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int = 2,
        design: Design = "V0",
        reduce: Reduce = "max",
        version: Version = "released",
        pooled_scores: Scores = "logits",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        for name, value, allowed in (
            ("spatial_dims", spatial_dims, (2,)),
            ("design", design, ("V0", "V1", "V2", "V3")),
            ("reduce", reduce, ("max", "mean")),
            ("version", version, tuple(VERSIONS)),
            ("pooled_scores", pooled_scores, ("logits", "softmax")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.spatial_dims = spatial_dims
        self.design: Design = design
        self.reduce: Reduce = reduce
        self.version: Version = version
        self.pooled_scores: Scores = pooled_scores
        self.needs_superpixels = design != "V0"

        details = VERSIONS[version]
        self.trunk = ENetEncoder(in_channels, details)
        self.decoder = ENetDecoder(details)
        left, right = self.trunk.field
        self.receptive_field = (left + 1 + right,) * 2
        # The decoder undoes all strides but the first, and the last layer doubles its map.
        self.output_stride = self.trunk.strides[0][0] // 2
        before, after = self.decoder.field
        # An odd pixel lies one behind the start of its map's pixel; a kernel of 3 reads the next.
        self.reach = (max(left + before + 1, right + after + details.last_kernel - 2),) * 2
        self.pixel: nn.ConvTranspose2d | None = None
        self.superpixel: SuperpixelBranch | None = None
        if design != "V2":
            kernel, bias = details.last_kernel, details.bias
            self.pixel = doubling(INITIAL, num_classes, kernel, bias=bias)
        if design in ("V2", "V3"):
            self.superpixel = SuperpixelBranch(INITIAL, num_classes, reduce)
        if design == "V3" and self.superpixel is not None:
            nn.init.zeros_(self.superpixel.linear.weight)
        self._pooled = 0 if self.superpixel is None else INITIAL
        self.feature_channels = self._pooled + (0 if self.pixel is None else num_classes)
        self.auxiliary = nn.ModuleList([nn.Conv2d(WIDTHS[-1], num_classes, 1)])

    def forward(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits for every pixel.

        Args:
            x: (B, in_channels, H, W) floating point; any size.
            superpixels: (B, H, W) integers below ``count``, negative = in no superpixel; V0
                ignores them.
            count: K, the same for the whole batch.

        Returns:
            (B, num_classes, H, W). V1: pooled logits of the pixel's superpixel.

        Raises:
            ValueError: the image has other channels or axes than the network, or a pooled design
                gets no superpixels.
        """
        return self.classify(self.features(x), superpixels, count)

    def encoder_logits(self, x: Tensor) -> Tensor:
        """Return class logits from the encoder alone, for the first step of training.

        Returns:
            (B, num_classes, H' / 8, W' / 8), H' and W' filled up to multiples of 8.
        """
        logits: Tensor = self.auxiliary[0](self._encode(x)[0])
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return what ``classify`` reads, (B, feature_channels, H, W).

        V2: the decoder's 16 maps; V0 and V1: the logits made of them; V3: both, maps first.
        """
        return self._decode(*self._encode(x), x.shape[2:])

    def classify(
        self,
        features: Tensor,
        superpixels: Tensor | None = None,
        count: int | None = None,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """Return class logits (B, num_classes, H, W) from the ``features`` of a whole image.

        ``forward(x, ...)`` equals ``classify(features(x), ...)``; apart from each other they let
        an image that was seen part by part be pooled over whole superpixels. ``pooled`` (B, P, K)
        is what the superpixels' parts ``to_pool`` together come to, when ``features`` and
        ``superpixels`` are only a part of the image.
        """
        if not self.needs_superpixels:
            return features
        superpixels, count = needed(superpixels, count)
        if self.superpixel is None:
            return pool_scores(
                features,
                superpixels,
                count,
                reduce=self.reduce,
                scores=self.pooled_scores,
                pooled=pooled,
            )
        maps = features[:, : self._pooled]
        answer: Tensor = self.superpixel(maps, superpixels, count, pooled)
        return answer if self.pixel is None else features[:, self._pooled :] + answer

    def to_pool(self, features: Tensor) -> Tensor:
        """Return what this design pools over superpixels, (B, P, H, W): V1's scores, or maps."""
        if self.superpixel is not None:
            return features[:, : self._pooled]
        return features.softmax(1) if self.pooled_scores == "softmax" else features

    def supervise(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward`` and, in a list, those of ``encoder_logits``."""
        deepest, indices = self._encode(x)
        features = self._decode(deepest, indices, x.shape[2:])
        return self.classify(features, superpixels, count), [self.auxiliary[0](deepest)]

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"the image must be (B, {self.in_channels}, and {self.spatial_dims} spatial axes), "
                f"got {tuple(x.shape)}"
            )
        encoded: tuple[Tensor, list[Tensor]] = self.trunk(fill_grid(x, self.trunk.strides[-1]))
        return encoded

    def _decode(self, deepest: Tensor, indices: list[Tensor], size: torch.Size) -> Tensor:
        maps = self.decoder(deepest, indices)
        parts = []
        if self.superpixel is not None:
            parts.append(functional.interpolate(maps, scale_factor=2, mode="nearest"))
        if self.pixel is not None:
            parts.append(self.pixel(maps))
        cut = [part[:, :, : size[0], : size[1]] for part in parts]
        return cut[0] if len(cut) == 1 else torch.cat(cut, 1)


class EncoderENet(nn.Module):
    """ENet's encoder with a classifier, the network of the first step of training.

    Its parameters have the names that they have in ``ENet``, so that the second step starts from
    them; see ``voxseg.models.load_shared_weights``.

    Args:
        in_channels: channels of the image, 1 to 15.
        num_classes: number of classes.
        version: see ``VERSIONS``.

    Attributes:
        receptive_field: pixels that one pixel of its output sees, by axis.
        reach: None: its scores are resized over the whole image.
        needs_superpixels: False.

    Raises:
        ValueError: an option is outside its range.
    """

    needs_superpixels = False
    reach: tuple[int, ...] | None = None

    def __init__(
        self, in_channels: int, num_classes: int, *, version: Version = "released"
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.spatial_dims = 2
        self.trunk = ENetEncoder(in_channels, VERSIONS[version])
        left, right = self.trunk.field
        self.receptive_field = (left + 1 + right,) * 2
        self.auxiliary = nn.ModuleList([nn.Conv2d(WIDTHS[-1], num_classes, 1)])

    def forward(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes, H, W), the encoder's resized to the image."""
        coarse = self.coarse_logits(x)
        size = [length * self.trunk.strides[-1][0] for length in coarse.shape[2:]]
        logits = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
        return logits[..., : x.shape[2], : x.shape[3]]

    def coarse_logits(self, x: Tensor) -> Tensor:
        """Return class logits (B, num_classes, H' / 8, W' / 8), filled up to multiples of 8."""
        deepest, _ = self.trunk(fill_grid(x, self.trunk.strides[-1]))
        logits: Tensor = self.auxiliary[0](deepest)
        return logits

    def supervise(
        self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of ``forward``, and no auxiliary answer."""
        return self(x), []
