"""Networks as programs of ``torch.export``: for batches and volumes of any size, without voxseg.

A program takes an image (B, C, *S) float32 and, of a network with pooled designs, superpixels
(B, *S) int64, negative where there is none; it answers with class logits (B, N, *S). How many
superpixels there are it finds out itself. One of design V4 also takes the spacing (D,) float32, the
size of a voxel in mm along each axis, from which it finds out where its superpixels lie.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxseg.errors import VoxsegError
from voxseg.files import replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SPACING = "spacing"
INPUTS = ("image", "superpixels", SPACING)
"""As many of them as a network needs, in this order."""
OUTPUT = "logits"
TOLERANCE = 1e-4
"""Share of a mask's voxels that may differ from the original's, unless another is asked for."""


def export_program(
    network: "nn.Module",
    shape: Sequence[int],
    *,
    channels: int,
    num_superpixels: int | None = None,
    needs_places: bool = False,
) -> "torch.export.ExportedProgram":
    """Trace a network into a program of standard operations.

    Args:
        network: in evaluation mode, on the CPU, in float32; ``forward(image)``, or
            ``forward(image, superpixels, count)`` where superpixels are pooled; with ``places=``
            where it needs them.
        shape: spatial size of the example that is traced; no two axes alike, none a multiple of the
            network's stride, so that nothing in the program depends on them.
        channels: C.
        num_superpixels: of the example; None for a network without superpixels.
        needs_places: whether the network asks where superpixels lie.

    Raises:
        VoxsegError: torch cannot write this network as a program.
    """
    import torch
    from torch.fx.experimental import _config

    from voxseg.ops.scatter import SCATTER_FORM

    image = torch.zeros(2, channels, *shape)
    free = torch.export.Dim.DYNAMIC
    axes: tuple[dict[int, Any] | None, ...] = (
        {0: free, **{2 + a: free for a in range(len(shape))}},
    )
    example: tuple[Tensor, ...] = (image,)
    if num_superpixels is not None:
        network = _counting(network)
        voxels = torch.arange(2 * math.prod(shape)).view(2, *shape)
        example += (voxels % num_superpixels,)
        axes += (dict.fromkeys(range(len(shape) + 1), free),)
        if needs_places:
            example += (torch.ones(len(shape)),)
            axes += (None,)
    switches: Any = _config  # which torch's types lack
    with quiet(), torch.no_grad(), switches.patch(backed_size_oblivious=True):
        try:
            program: torch.export.ExportedProgram = torch.export.export(
                network, example, dynamic_shapes=axes
            )
            program = program.run_decompositions(dict(SCATTER_FORM))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise VoxsegError(
                f"torch.export cannot write this network as a program ({reason}); use "
                "'voxseg predict' for it"
            ) from None
    for node in program.graph.nodes:  # names of files and folders of this machine
        node.meta.pop("stack_trace", None)
        node.meta.pop("nn_module_stack", None)
    # What the tracer takes for conditions are sizes at which a faster way would also be right.
    program._guards_code = []
    return program


def write_program(program: "torch.export.ExportedProgram", path: Path) -> None:
    """Write a program for ``torch.export.load``, whole or not at all."""
    import torch

    with replacing(path) as temporary, quiet():
        torch.export.save(program, temporary)


def _counting(network: "nn.Module") -> "nn.Module":
    """Let a network count its superpixels, and place them where it is given a spacing.

    The answer is ``forward(image, superpixels)`` or ``forward(image, superpixels, spacing)``.
    """
    import torch
    from torch import nn

    from voxseg.ops.superpixel_places import superpixel_places

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self, image: "Tensor", superpixels: "Tensor", spacing: "Tensor | None" = None
        ) -> "Tensor":
            count: Any = superpixels.max().clamp_min(0).item() + 1  # a symbol: int() wants a number
            check: Any = torch._check  # has no types
            check(count >= 1)
            check(count < 2**31 - 1)
            known = {}
            if spacing is not None:
                known["places"] = superpixel_places(superpixels, count, spacing)
            logits: Tensor = self.network(image, superpixels, count, **known)
            return logits

    return Counting().eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporters from talking of their own future and of packages that nobody needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
