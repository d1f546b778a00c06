"""Keep shallow volumes out of a bfloat16 kernel of CPUs that is wrong for them.

oneDNN's gradient of the weights of a 3D convolution reads memory that nobody wrote where the volume
has fewer layers than the kernel (seen with torch 2.13 on AVX512-BF16: two layers under a kernel of
three, three or four under five). It is NaN now and then, and different on every run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS: tuple[Callable[..., Any], ...] = (torch.conv3d, torch.conv_transpose3d)


class ShallowInFloat32(TorchFunctionMode):
    """Within it, 3D convolutions with fewer layers than their kernel are done in float32.

    Only where gradients are wanted; the volumes are small, so that it costs next to nothing.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, autocast or not."""
        given = dict(kwargs or {})
        if func not in _CONVOLUTIONS or not torch.is_grad_enabled():
            return func(*args, **given)
        image, weight = args[:2]
        if image.shape[2] >= weight.shape[2]:
            return func(*args, **given)
        exact = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
        with torch.autocast("cpu", enabled=False):
            return func(*exact, **given)
