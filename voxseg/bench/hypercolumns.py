"""Training on hypercolumns of some pixels against all: time and peak memory of a step.

What the paper claims (arXiv:1609.06694, Table 4, an image of 224 x 224, conv-{1_2, 3_3, 5_3} and
three layers of 4,096): 465 MB and 24.5 updates a second with 2,000 pixels, 3,914 MB and 1.4 with
all. A step is forward pass, cross-entropy and gradients of all parameters; both have the same
network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from voxseg.bench.peers import Asked, Size, photograph, product, rows_of
from voxseg.bench.report import Row
from voxseg.layers.depth_first import LiveBytes
from voxseg.models import PixelNet, build_pixelnet
from voxseg.models.vgg import WIDTHS

TAPS = ("1_2", "3_3", "5_3")
_CONTEXT = 60
_MARGIN = 1.25
"""Free memory must exceed what tensors need by this."""
_LEAST_RATIO = 5


@dataclass(frozen=True, kw_only=True)
class HypercolumnBench:
    """What is measured."""

    images: int = 5
    """Of a step; halved until all their pixels fit into memory."""
    pixels: int = 2000
    """Of each image."""
    size: Size = (224, 224)
    hidden: tuple[int, ...] = (4096, 4096)
    widths: tuple[int, ...] = WIDTHS


TINY = HypercolumnBench(
    images=2, pixels=100, size=(48, 64), hidden=(64, 64), widths=(8, 8, 16, 16, 16, 16)
)
"""Small sizes: a smoke test, not a result."""


def run_hypercolumns(
    bench: HypercolumnBench,
    device: torch.device,
    rounds: int,
    seed: int,
    most_bytes: float,
    notify: Callable[[str], None],
) -> list[Row]:
    """Measure a training step with all pixels, and with some.

    Args:
        bench: sizes.
        device: where.
        rounds: timed steps.
        seed: of image, labels and pixels.
        most_bytes: free memory of the device.
        notify: told when fewer images are measured.
    """
    images = bench.images
    needed = _dense_bytes(bench, images)
    while _MARGIN * needed > most_bytes and images > 1:
        notify(
            f"{images} images take all pixels {needed / 1e9:.0f} GB, and {most_bytes / 1e9:.0f} GB "
            "are free: half as many are measured"
        )
        images //= 2
        needed = _dense_bytes(bench, images)
    network = _network(bench).to(device).train()
    image = photograph(bench.size, seed, images).to(device)
    generator = torch.Generator().manual_seed(seed)
    pixels = bench.size[0] * bench.size[1]
    label = torch.randint(_CONTEXT, (images, pixels), generator=generator).to(device)
    drawn = torch.stack([torch.randperm(pixels, generator=generator) for _ in range(images)])
    points = drawn[:, : bench.pixels].to(device)

    def dense() -> None:
        _step(network, network(image).flatten(2), label)

    def sparse() -> None:
        _step(network, network.sampled(image, points), label.gather(1, points))

    some = f"{bench.pixels:,} pixels of each image"
    calls = {"hypercolumns of all pixels": dense, some: sparse}
    asked = {some: Asked(ms=1 / _LEAST_RATIO, memory=1 / _LEAST_RATIO)}
    what = f"{images} of {product(bench.size)}, {len(bench.hidden) + 1} layers, training"
    with torch.enable_grad():
        return rows_of(what, calls, asked, rounds, device)


def _network(bench: HypercolumnBench) -> PixelNet:
    return build_pixelnet(3, _CONTEXT, taps=TAPS, hidden=bench.hidden, widths=bench.widths)


def _step(network: PixelNet, logits: Tensor, label: Tensor) -> None:
    """Fill in the gradients of one step."""
    network.zero_grad(set_to_none=True)
    torch.autograd.backward(functional.cross_entropy(logits, label))


def _dense_bytes(bench: HypercolumnBench, images: int) -> int:
    """What lives at once in a step with all pixels, by a step without numbers."""
    with torch.device("meta"):
        network = _network(bench).train()
        image = torch.empty(images, 3, *bench.size)
        label = torch.zeros(images, bench.size[0] * bench.size[1], dtype=torch.int64)
    with torch.enable_grad(), LiveBytes("meta") as memory:
        _step(network, network(image).flatten(2), label)
    peak: int = memory.peak
    return peak
