"""The plan of a label map: its voxels sorted by superpixel, tile by tile, for pooling on a GPU.

Source: the op is that of Schuurmans, Berman, Blaschko, arXiv:1806.02705; the plan is voxseg's own.

A tile has 2048 voxels. What one superpixel has in one tile is a *row*: a stretch of the tile's
sorted voxels. Kernels reduce rows first and then the rows of each superpixel, in a fixed order. A
plan is made once per label map, with torch alone, and found again by the tensor itself: as long as
the same tensor is used and not written to, it costs nothing more. It weighs 2 bytes a voxel and
some 10 bytes a row; while it is made, it takes about 60 bytes a voxel.
"""

import math
import os
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

TILE_BITS = 11
TILE_VOXELS = 2**TILE_BITS
_MOST_VOXELS = 2**31 - 1
_COHERENT = 8
"""A map with fewer voxels a row than this is more noise than regions; tiles do not pay."""
_BYTES_PER_VOXEL = 60
"""Peak memory while a plan is made."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Two-level index of the voxels of every superpixel; all tensors are on the labels' device."""

    offsets: Tensor
    """(tiles * 2048,) int16: voxels of each tile, by superpixel and then position; the rest last.

    The 11 bits of an offset are z, y and x in the tile.
    """
    base: Tensor
    """(tiles + 1,) int32: first row of each tile, and the number of rows."""
    start: Tensor
    """(rows,) int16: where a row begins among its tile's offsets."""
    stop: Tensor
    """(rows,) int16: where it ends."""
    rows: Tensor
    """(rows,) int32: rows by superpixel, in the order of their tiles."""
    first: Tensor
    """(B * K + 1,) int32: where the rows of each superpixel begin in ``rows``."""
    sizes: Tensor
    """(B, K) int64: voxels of each superpixel."""
    shape: tuple[int, int, int]
    """(depth, height, width) of one image; axes that are missing are 1."""
    bits: tuple[int, int, int]
    """Logarithm of the tile's size along each axis; they add up to 11."""

    @property
    def tensors(self) -> list[Tensor]:
        """All that lies on the device."""
        return [self.offsets, self.base, self.start, self.stop, self.rows, self.first, self.sizes]

    @property
    def tiles_per_image(self) -> int:
        """How many tiles cover one image."""
        return math.prod(-(-n // 2**bits) for n, bits in zip(self.shape, self.bits, strict=True))

    @property
    def is_coherent(self) -> bool:
        """Whether rows are long enough for tiles to be worth it."""
        return self.rows.numel() * _COHERENT <= self.offsets.numel()


@dataclass(frozen=True, eq=False)
class SuperpixelPlan:
    """A checked label map with all that pooling needs to know about it."""

    superpixels: Tensor
    """(B, *S) int32; not to be written to."""
    count: int
    """K."""
    tiles: Tiles | None
    """Of a map on a GPU; the CPU needs none."""


def superpixel_plan(superpixels: Tensor, count: int) -> SuperpixelPlan:
    """Check a label map and prepare it for pooling again and again.

    Pass the plan in place of the labels to ``superpixel_pool`` and ``superpixel_unpool``. They make
    plans for themselves when they meet a label tensor on a GPU repeatedly; by hand it pays before a
    CUDA graph is captured, or when equal labels come in ever new tensors.

    Args:
        superpixels: (B, *S) integer with 1, 2 or 3 spatial axes, on any device. Negative labels
            belong to no superpixel.
        count: K.

    Raises:
        TypeError: labels are not integer.
        ValueError: a label is ``count`` or more, or the shape or count is out of range.
        torch.OutOfMemoryError: the GPU cannot hold the plan; the sentence says how much it takes.
    """
    check_labels(superpixels, count)
    beyond = superpixels >= count
    if beyond.any():
        place = tuple(beyond.nonzero()[0].tolist())
        raise ValueError(
            f"superpixels[{', '.join(map(str, place))}] is {int(superpixels[place])}, but count is "
            f"{count}: labels must be below it"
        )
    labels = narrow(superpixels)
    if labels.is_inference():
        with torch.inference_mode(mode=False):  # or nothing would be found again
            labels = labels.clone()
    tiles = find_tiles(labels, count) if labels.device.type == "cuda" and not plain() else None
    return SuperpixelPlan(labels, count, tiles)


def check_labels(superpixels: Tensor, count: int) -> None:
    """Refuse what is no label map, in one sentence."""
    check_integer(superpixels)
    if superpixels.ndim not in (2, 3, 4):
        raise ValueError(
            f"superpixels must be (B, *S) with 1 to 3 spatial axes, got {tuple(superpixels.shape)}"
        )
    if not 0 <= count < 2**31 - 1:
        raise ValueError(f"count must be in [0, 2**31 - 1), got {count}")


def check_integer(superpixels: Tensor) -> None:
    """Refuse labels that are no integers."""
    is_integer = not (superpixels.is_floating_point() or superpixels.is_complex())
    if not is_integer or superpixels.dtype == torch.bool:
        raise TypeError(f"superpixels must be integer, got {superpixels.dtype}")


def check_size(voxels: int) -> None:
    """Refuse an image whose voxels the kernels cannot number."""
    if voxels > _MOST_VOXELS:
        raise ValueError(
            f"an image of {voxels} voxels is too large for the GPU's pooling (2**31 - 1 at most); "
            "pool it in parts"
        )


def plain() -> bool:
    """Whether ``VOXSEG_KERNELS=torch`` asks for plain torch in place of CUDA kernels."""
    return os.environ.get("VOXSEG_KERNELS") == "torch"


def make_tiles(superpixels: Tensor, count: int) -> Tiles:
    """Sort the voxels of every tile; see ``Tiles``. Waits for the GPU twice.

    Args:
        superpixels: (B, *S) int32 on any device; labels outside [0, count) are left out.
        count: K.
    """
    batch = superpixels.shape[0]
    shape = _three(tuple(superpixels.shape[1:]))
    voxels = math.prod(shape)
    check_size(voxels)
    try:
        return _sorted_tiles(superpixels.reshape(batch, *shape), count)
    except torch.OutOfMemoryError as error:
        need = _BYTES_PER_VOXEL * batch * voxels / 1e9
        raise torch.OutOfMemoryError(
            f"no memory for the plan of {batch * voxels} labels on {superpixels.device}, which "
            f"takes about {need:.1f} GB; free some, or pool fewer images at once"
        ) from error


def _sorted_tiles(labels: Tensor, count: int) -> Tiles:
    batch, device = labels.shape[0], labels.device
    shape = (labels.shape[1], labels.shape[2], labels.shape[3])
    bits = _tile_bits(shape)
    flat = _in_tiles(labels, count, bits)
    tiles = flat.shape[0]
    number = torch.arange(tiles, device=device)[:, None]
    # Half as many bits sort in half the time.
    kind = torch.int32 if tiles * (count + 1) < 2**31 else torch.int64
    keys = flat.to(kind) + number.to(kind) * (count + 1)
    keys, order = keys.view(-1).sort(stable=True)
    offsets = (order & (TILE_VOXELS - 1)).to(torch.int16)
    del order, flat
    label = keys.view(tiles, TILE_VOXELS) - number * (count + 1)
    is_labelled = label < count
    is_edge = is_labelled.clone()
    is_edge[:, 1:] &= label[:, 1:] != label[:, :-1]
    begin = is_edge.view(-1).nonzero()[:, 0]
    tile = begin >> TILE_BITS
    edges = torch.arange(tiles + 1, device=device) * TILE_VOXELS
    base = torch.searchsorted(begin, edges)
    start = begin & (TILE_VOXELS - 1)
    # A row ends where the next one of its tile begins, the last one where labels end.
    stop = is_labelled.sum(1)[tile]
    inner = tile[1:] == tile[:-1]
    stop[:-1] = torch.where(inner, start[1:], stop[:-1])
    per_image = tiles // batch if batch else 1
    owner = label.view(-1)[begin] + tile // per_image * count
    rows = owner.argsort(stable=True)
    slots = torch.arange(batch * count + 1, device=device)
    first = torch.searchsorted(owner[rows], slots)
    sizes = torch.zeros(batch * count, dtype=torch.int64, device=device)
    sizes.scatter_add_(0, owner, stop - start)
    return Tiles(
        offsets=offsets,
        base=base.int(),
        start=start.to(torch.int16),
        stop=stop.to(torch.int16),
        rows=rows.int(),
        first=first.int(),
        sizes=sizes.view(batch, count),
        shape=shape,
        bits=bits,
    )


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    depth, height, width = (1,) * (3 - len(shape)) + shape
    return depth, height, width


def _tile_bits(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """8 x 8 x 32 voxels; 32 x 64 and 2048 in flat and thin images."""
    if shape[0] > 1:
        return 3, 3, 5
    return (0, 5, 6) if shape[1] > 1 else (0, 0, 11)


def _in_tiles(labels: Tensor, count: int, bits: tuple[int, int, int]) -> Tensor:
    """Bring (B, D, H, W) labels into the order of tiles, (tiles, 2048); ``count`` fills up."""
    batch, *shape = labels.shape
    size = [2**b for b in bits]
    cut = [-(-n // s) for n, s in zip(shape, size, strict=True)]
    padded = labels.new_full((batch, *(n * s for n, s in zip(cut, size, strict=True))), count)
    inside = torch.where((labels < 0) | (labels >= count), count, labels)
    padded[:, : shape[0], : shape[1], : shape[2]] = inside
    split = padded.view(batch, cut[0], size[0], cut[1], size[1], cut[2], size[2])
    return split.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, TILE_VOXELS)


@dataclass(frozen=True)
class _Ready:
    """When what a stream of a GPU makes is there, for the other streams."""

    stream: int
    event: torch.cuda.Event


@dataclass
class _Known:
    """What is remembered about a label tensor, for as long as it lives."""

    tensor: weakref.ref[Tensor]
    version: int
    narrow: Tensor | None = None
    narrow_ready: _Ready | None = None
    tiles: Tiles | None = None
    tiles_ready: _Ready | None = None
    count: int = -1
    times: int = 0


_known: dict[int, _Known] = {}


def _remember(tensor: Tensor) -> _Known | None:
    """Find or open the entry of a tensor; None for one whose changes torch does not count."""
    if tensor.is_inference():
        return None
    key = id(tensor)
    entry = _known.get(key)
    if entry is None or entry.tensor() is not tensor or entry.version != tensor._version:
        entry = _Known(weakref.ref(tensor, lambda _: _known.pop(key, None)), tensor._version)
        _known[key] = entry
    return entry


def narrow(superpixels: Tensor) -> Tensor:
    """Narrow labels to int32; those that do not fit become -1 or 2**31 - 1, which are ignored.

    On a GPU they are made contiguous too, and the copy is kept with its source, so that both have
    one plan.
    """
    is_cuda = superpixels.device.type == "cuda"
    if superpixels.dtype == torch.int32 and (superpixels.is_contiguous() or not is_cuda):
        return superpixels
    keep = is_cuda and not torch.compiler.is_compiling()
    entry = _remember(superpixels) if keep else None
    if entry is not None and entry.narrow is not None:
        _await(entry.narrow_ready, [entry.narrow])
        return entry.narrow
    labels = superpixels
    if superpixels.dtype.itemsize > 4:
        labels = superpixels.clamp(-1, 2**31 - 1)
    labels = labels.to(torch.int32)
    labels = labels.contiguous() if is_cuda else labels
    # What a graph captures is filled when the graph runs, and is the graph's own.
    if entry is not None and not _is_capturing(superpixels):
        entry.narrow, entry.narrow_ready = labels, _mark(labels)
    return labels


def find_tiles(superpixels: Tensor, count: int) -> Tiles:
    """Give the tiles of a label map, made now if they are not known.

    Raises:
        RuntimeError: they would have to be made while a CUDA graph is captured.
    """
    entry = _remember(superpixels)
    if entry is not None and entry.tiles is not None and entry.count == count:
        _await(entry.tiles_ready, entry.tiles.tensors)
        return entry.tiles
    if _is_capturing(superpixels):
        raise RuntimeError(
            "a plan cannot be made while a CUDA graph is captured; call "
            "superpixel_plan(superpixels, count) before, and keep it"
        )
    tiles = make_tiles(superpixels, count)
    if entry is not None:
        entry.tiles, entry.tiles_ready, entry.count = tiles, _mark(superpixels), count
    return tiles


def find_tiles_if_worth_it(superpixels: Tensor, count: int) -> Tiles | None:
    """Give the tiles of a label map that is met again and whose regions are coherent.

    None at the first time, for one use does not pay for a plan, and while a graph is captured
    without one.
    """
    entry = _remember(superpixels)
    if entry is None:
        return None
    if entry.tiles is None or entry.count != count:
        entry.times += 1
        if entry.times == 1 or _is_capturing(superpixels):
            return None
    tiles = find_tiles(superpixels, count)
    return tiles if tiles.is_coherent else None


def _mark(tensor: Tensor) -> _Ready | None:
    """Mark what the current stream has been given to make on the device of ``tensor``."""
    if tensor.device.type != "cuda":
        return None
    stream = torch.cuda.current_stream(tensor.device)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
    event.record(stream)
    return _Ready(stream.cuda_stream, event)


def _await(ready: _Ready | None, tensors: list[Tensor]) -> None:
    """Let the current stream wait for what another one makes; nobody sees that it was kept.

    A graph needs no waiting: torch lets the device come to rest before it captures one.
    """
    if ready is None or _is_capturing(tensors[0]):
        return
    stream = torch.cuda.current_stream(tensors[0].device)
    if stream.cuda_stream == ready.stream:
        return
    stream.wait_event(ready.event)
    for tensor in tensors:
        tensor.record_stream(stream)


def _is_capturing(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
