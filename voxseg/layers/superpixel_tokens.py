"""Superpixels as tokens: each tells the others what it holds, over the whole image.

Source: voxseg's own design, named V4 after V1 to V3 of Schuurmans, Berman and Blaschko,
arXiv:1806.02705, section 3.2, whose pooled branch sees one superpixel at a time. The exchange is
the induced set attention of Lee et al., *Set Transformer*, 2019, arXiv:1810.00825, section 3.1
(Equations 8 and 9): K tokens meet through M inducing points, so that the price grows with K, not
with its square.

Departures from it: norms stand before each part of a block instead of behind it, as is common now,
and the inducing points are not normalised among themselves. Places enter as in Tancik et al.,
*Fourier Features Let Networks Learn High Frequency Functions*, 2020, arXiv:2006.10739, section 6,
with frequencies that double.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

REACH_MM = 100.0
"""Half the longest wave along an axis; a head's box reaches some 90 mm to each side."""
WAVES = 4
"""Frequencies of a coordinate: the shortest wave is 2 * REACH_MM / 2**(WAVES - 1), 25 mm."""

_LARGE = 10.0  # brings the logarithm of a volume in mm^3 to about 1
_FIRST_STD = 0.02


class SuperpixelTokens(nn.Module):
    """Make a token of every superpixel, let them exchange, and score each.

    Args:
        spatial_dims: D.
        in_channels: F, channels of the pooled features.
        out_channels: C, scores of a superpixel.
        width: numbers of a token.
        blocks: how often tokens exchange.
        heads: of attention; they divide ``width``.
        inducing: M, points through which they meet.

    Shape: pooled (B, F, K) and places (B, K, D + 1) -> (B, C, K). The last layer starts from zero,
    so that a network fine-tuned from another starts with its answer. What stands in slots without a
    superpixel (volume 0) is seen by no other and to be ignored. The answer does not depend on how
    superpixels are numbered, but for rounding.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 32,
        blocks: int = 2,
        heads: int = 4,
        inducing: int = 32,
    ) -> None:
        super().__init__()
        if min(width, blocks, heads, inducing) < 1 or width % heads:
            raise ValueError(
                "width, blocks, heads and inducing must be at least 1 and heads divide width, got "
                f"{width}, {blocks}, {heads}, {inducing}"
            )
        self.spatial_dims = spatial_dims
        self.of_features = nn.Linear(in_channels, width)
        self.of_place = nn.Linear(spatial_dims * (1 + 2 * WAVES) + 1, width, bias=False)
        self.blocks = nn.ModuleList(InducedBlock(width, heads, inducing) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, out_channels, bias=False)
        nn.init.zeros_(self.scores.weight)

    def forward(self, pooled: Tensor, places: Tensor) -> Tensor:
        """Return the scores of every superpixel.

        Args:
            pooled: (B, F, K) floating point.
            places: (B, K, D + 1) float32 in mm, see ``voxseg.ops.superpixel_places``.

        Raises:
            ValueError: the places are not those of these superpixels.
        """
        batch, _, count = pooled.shape
        if places.shape != (batch, count, self.spatial_dims + 1):
            raise ValueError(
                f"places must be {(batch, count, self.spatial_dims + 1)}, got {tuple(places.shape)}"
            )
        is_there = places[..., -1] > 0
        described = _describe(places.float()).to(pooled.dtype)
        tokens = self.of_features(pooled.transpose(1, 2)) + self.of_place(described)
        for block in self.blocks:
            tokens = block(tokens, is_there)
        scores: Tensor = self.scores(self.norm(tokens))
        return scores.transpose(1, 2)


class InducedBlock(nn.Module):
    """One exchange: inducing points listen to all tokens, tokens to the inducing points.

    Shape: tokens (B, K, W) and whether each is there (B, K) -> (B, K, W).

    Args:
        width: W.
        heads: of attention.
        inducing: M.
    """

    def __init__(self, width: int, heads: int, inducing: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.empty(inducing, width))
        nn.init.normal_(self.points, std=_FIRST_STD)
        self.before = nn.LayerNorm(width)
        self.gather = Attention(width, heads)
        self.between = nn.LayerNorm(width)
        self.hand_out = Attention(width, heads)
        self.after = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, is_there: Tensor) -> Tensor:
        """Return the tokens after the exchange."""
        heard = self.before(tokens)
        points = self.points.expand(tokens.shape[0], -1, -1)
        points = points + self.gather(points, heard, is_there)
        tokens = tokens + self.hand_out(heard, self.between(points))
        inner = functional.gelu(self.widen(self.after(tokens)))
        changed: Tensor = tokens + self.narrow(inner)
        return changed


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, in plain products: every run gives the same bits.

    Shape: queries (B, Q, W), sources (B, K, W) -> (B, Q, W).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        # No bias: it would add the same to all weights of a query, which softmax does not see.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, sources: Tensor, is_there: Tensor | None = None) -> Tensor:
        """Return what each query makes of the sources; those that are not there are not heard.

        Where none is there, all are: nobody uses that answer, and it must not be NaN.
        """
        query, key = self._split(self.query(queries)), self._split(self.key(sources))
        weights = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        if is_there is not None:
            heard = is_there | ~is_there.any(1, keepdim=True)
            weights = weights.masked_fill(~heard[:, None, None], -math.inf)
        mixed = weights.softmax(3) @ self._split(self.value(sources))
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer

    def _split(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        return tokens.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


def _describe(places: Tensor) -> Tensor:
    """Turn places (B, K, D + 1) in mm into numbers about 1: coordinates, their waves, size."""
    at, volume = places[..., :-1] / REACH_MM, places[..., -1:]
    rates = math.pi * 2.0 ** torch.arange(WAVES, device=places.device, dtype=places.dtype)
    angles = (at[..., None] * rates).flatten(2)
    return torch.cat([at, angles.sin(), angles.cos(), volume.log1p() / _LARGE], 2)
