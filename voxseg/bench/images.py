"""Networks for images against what they are made from: time and peak memory.

What the papers claim: ENet with superpixels takes 13 ms where ENet takes 11 (arXiv:1806.02705,
1024x512); split-merge pooling one sub-grid after the other needs no more time, and far less memory,
than the dilated network it equals (arXiv:2006.07742); vortex pooling costs hardly more than ASPP
(arXiv:1804.06242); and training on hypercolumns of some pixels takes a fraction of what all take
(arXiv:1609.06694, in ``voxseg.bench.hypercolumns``). Weights are random; everything is float32, and
inference has a batch of one.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from voxseg.bench.device import COMPACTNESS, device_info
from voxseg.bench.hypercolumns import TINY, HypercolumnBench, run_hypercolumns
from voxseg.bench.peers import Asked, Size, photograph, product, rows_of
from voxseg.bench.report import BenchResult, Row
from voxseg.bench.slic import ITERATIONS
from voxseg.layers import ASPP, VortexPooling
from voxseg.layers.vortex import average_pool
from voxseg.models import FCN, Context, Depth, ENet, SplitMergeFCN, build_deeplab
from voxseg.models.cost import live_bytes
from voxseg.models.deeplab import MULTI_GRID
from voxseg.ops import slic, superpixel_plan

Part = Literal["superpixels", "split-merge", "vortex", "hypercolumns"]
PARTS: tuple[Part, ...] = ("superpixels", "split-merge", "vortex", "hypercolumns")

_CITYSCAPES = 19
_UNLABELLED = 1
_VOC = 21
_MARGIN = 1.25
"""Free memory must exceed what tensors need by this: convolutions have scratch memory."""
_SHARE = 4
"""Depth-first inference gets this part of the dilated network's memory."""
_SPLIT_MERGE = "SMP, depth first"


@dataclass(frozen=True, kw_only=True)
class ImagesBench:
    """What is measured."""

    parts: tuple[Part, ...] = PARTS
    enet_size: Size = (512, 1024)
    """Height and width."""
    superpixels: int = 5000
    """That SLIC is asked for."""
    split_size: Size = (1024, 2048)
    """Halved until the dilated network fits into memory."""
    split_depth: Depth = 101
    """Of the ResNet below split-merge pooling."""
    map_size: Size = (65, 65)
    map_channels: int = 2048
    """Of the map that vortex pooling reads."""
    deeplab_size: Size = (513, 513)
    deeplab_depth: Depth = 101
    hypercolumns: HypercolumnBench = field(default_factory=HypercolumnBench)
    rounds: int = 5
    most_bytes: float = math.inf
    """Free memory of the device."""
    seed: int = 0


QUICK = ImagesBench(
    enet_size=(128, 256),
    superpixels=300,
    split_size=(64, 128),
    split_depth=18,
    map_size=(33, 33),
    map_channels=256,
    deeplab_size=(129, 129),
    deeplab_depth=18,
    hypercolumns=TINY,
    rounds=2,
)
"""Small sizes: a smoke test, not a result."""


def run_images_bench(
    bench: ImagesBench, device: torch.device, notify: Callable[[str], None] = lambda _: None
) -> BenchResult:
    """Measure networks for images and their peers.

    Args:
        bench: parts and sizes.
        device: where.
        notify: told what is being measured.

    Returns:
        A row a method: milliseconds and peak memory besides parameters and image, both also as
        multiples of those of the method that it stands against, and the multiples asked for at
        most. The peak is that of the allocator (``max_memory_allocated``) on CUDA, elsewhere that
        of the tensors that torch's operations make.
    """
    rows: list[Row] = []
    with torch.no_grad():
        for part in bench.parts:
            notify(f"{part} on {device}")
            if part == "superpixels":
                rows += _superpixels(bench, device)
            elif part == "split-merge":
                rows += _split_merge(bench, device, notify)
            elif part == "hypercolumns":
                rows += run_hypercolumns(
                    bench.hypercolumns, device, bench.rounds, bench.seed, bench.most_bytes, notify
                )
            else:
                rows += _modules(bench, device) + _deeplabs(bench, device)
    title = "Networks for images, float32: one image goes through, or some are trained on"
    return BenchResult(title, device_info(device), rows)


def dilated(network: FCN) -> nn.Module:
    """Turn the strides of an FCN32s into dilations, and leave its max-pooling out.

    Max-pooling's stride dilates like the others'. ``SplitMergeFCN`` gives the same answer.
    """
    backbone = copy.deepcopy(network.backbone)
    step = 1
    layers = [backbone.conv1, backbone.bn1, backbone.act, *backbone.stages, network.heads[0]]
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                stride, module.stride = module.stride[0], (1, 1)
                # A shortcut strides beside the 3x3 convolution that it is added to.
                if module.kernel_size[0] > 1:
                    radius = step * (module.kernel_size[0] // 2)
                    module.dilation, module.padding = (step, step), (radius, radius)
                    step *= stride
        if layer is backbone.act:
            step *= 2  # max-pooling
    return nn.Sequential(*layers)


def _superpixels(bench: ImagesBench, device: torch.device) -> list[Row]:
    """ENet, and its V3 with superpixels given and computed."""
    outputs = _CITYSCAPES + _UNLABELLED
    plain = ENet(3, outputs).to(device).eval()
    pooled = ENet(3, outputs, design="V3").to(device).eval()
    image = photograph(bench.enet_size, bench.seed).to(device)

    def divide() -> Tensor:
        return slic(
            image[0],
            n_segments=bench.superpixels,
            compactness=COMPACTNESS,
            spacing=(1.0, 1.0),
            iterations=ITERATIONS,
        )[None]

    def from_image() -> Tensor:
        labels = divide()
        answer: Tensor = pooled(image, labels, int(labels.max()) + 1)
        return answer

    labels = divide()
    plan = superpixel_plan(labels, int(labels.max()) + 1)
    calls = {
        "ENet": lambda: plain(image),
        "ENet + superpixels, given": lambda: pooled(image, plan.superpixels, plan.count),
        "ENet + superpixels, SLIC included": from_image,
    }
    asked = {"ENet + superpixels, given": Asked(ms=1.18)}
    size = f"{product(bench.enet_size)}, {plan.count} superpixels"
    return rows_of(size, calls, asked, bench.rounds, device)


def _split_merge(
    bench: ImagesBench, device: torch.device, notify: Callable[[str], None]
) -> list[Row]:
    """The dilated network at once, and split-merge pooling within a part of its memory."""
    network = FCN(3, _CITYSCAPES, depth=bench.split_depth)
    split = SplitMergeFCN(3, _CITYSCAPES, depth=bench.split_depth)
    split.network.load_state_dict(network.state_dict())
    whole = dilated(network).to(device).eval()
    split.to(device).eval()
    size = bench.split_size
    needed = live_bytes(whole, (1, 3, *size))
    while _MARGIN * needed > bench.most_bytes and min(size) > 1:
        notify(
            f"{product(size)} takes the dilated network {needed / 1e9:.0f} GB, and "
            f"{bench.most_bytes / 1e9:.0f} GB are free: half the size is measured"
        )
        size = (size[0] // 2, size[1] // 2)
        needed = live_bytes(whole, (1, 3, *size))
    image = photograph(size, bench.seed).to(device)
    budget = needed // _SHARE
    calls = {
        "dilated, at once": lambda: whole(image),
        _SPLIT_MERGE: lambda: split(image, memory_budget=budget),
    }
    asked = {_SPLIT_MERGE: Asked(ms=1.1, memory=round(1 / 3, 3))}
    where = f"{product(size)}, ResNet-{bench.split_depth}"
    return rows_of(where, calls, asked, bench.rounds, device)


def _modules(bench: ImagesBench, device: torch.device) -> list[Row]:
    """ASPP and Module B on a map of a backbone's last stage."""
    channels = bench.map_channels
    module_b = VortexPooling(channels)
    modules: dict[str, nn.Module] = {
        "ASPP": ASPP(channels),
        "ASPP+": ASPP(channels, first_kernel=3),
        "Module B, chained": module_b,
        "Module B, convolution first": VortexPooling(channels, border="extend", conv_first=True),
    }
    generator = torch.Generator().manual_seed(bench.seed)
    features = torch.rand((1, channels, *bench.map_size), generator=generator).to(device)
    calls: dict[str, Callable[[], object]] = {
        name: partial(module.to(device).eval(), features) for name, module in modules.items()
    }
    calls["Module B, plain average pooling"] = partial(_plain, module_b, features)
    asked = {name: Asked(ms=1.1) for name in ("Module B, chained", "Module B, convolution first")}
    size = f"{product(bench.map_size)} x {channels}"
    return rows_of(size, calls, asked, bench.rounds, device)


def _deeplabs(bench: ImagesBench, device: torch.device) -> list[Row]:
    """The same two modules in DeepLabv3."""
    contexts: dict[str, Context] = {
        "DeepLabv3, ASPP": "aspp",
        "DeepLabv3, vortex pooling": "vortex",
    }
    grid = MULTI_GRID if bench.deeplab_depth >= 50 else MULTI_GRID[:2]  # blocks in the last stage
    image = photograph(bench.deeplab_size, bench.seed).to(device)
    calls = {
        name: partial(
            build_deeplab(3, _VOC, depth=bench.deeplab_depth, context=context, multi_grid=grid)
            .to(device)
            .eval(),
            image,
        )
        for name, context in contexts.items()
    }
    size = f"{product(bench.deeplab_size)}, ResNet-{bench.deeplab_depth}"
    asked = {"DeepLabv3, vortex pooling": Asked(ms=1.1)}
    return rows_of(size, calls, asked, bench.rounds, device)


def _plain(module: VortexPooling, features: Tensor) -> Tensor:
    """Module B with each mean taken by itself."""
    maps = [average_pool(features, pool, module.border) for pool in module.pools]
    answers = [branch(pooled) for branch, pooled in zip(module.branches, maps, strict=True)]
    if module.image is not None:
        answers.append(module.image(features))
    return torch.cat(answers, 1)
