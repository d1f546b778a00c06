"""Let a small network of your own see far: vortex pooling between its features and its scores."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers import VortexPooling

generator = torch.Generator().manual_seed(0)
steps = torch.arange(64.0)


def faint_discs(count: int) -> tuple[Tensor, Tensor]:
    """Return images (count, 1, 64, 64) whose noise is twice as strong as the disc in them."""
    centres = 16 + 32 * torch.rand(count, 2, 1, 1, generator=generator)
    radii = 10 + 6 * torch.rand(count, 1, 1, generator=generator)
    squared = (steps[:, None] - centres[:, 0]) ** 2 + (steps - centres[:, 1]) ** 2
    label = (squared < radii**2).long()
    noise = torch.randn(count, 1, 64, 64, generator=generator)
    return 0.5 * label[:, None] + noise, label


def dice(scores: Tensor, label: Tensor) -> float:
    """Compare the discs found with those drawn."""
    found, drawn = scores.argmax(1) == 1, label == 1
    return (2 * (found & drawn).sum() / (found.sum() + drawn.sum())).item()


def features() -> list[nn.Module]:
    """Build what both networks begin with."""
    return [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]


torch.manual_seed(0)
plain = nn.Sequential(*features(), nn.Conv2d(8, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 2, 1))
# 3x3 convolutions over single cells and over means of 3x3, 9x9 and 27x27, and the whole map's mean.
context = VortexPooling(8, channels=8)
far = nn.Sequential(*features(), context, nn.Conv2d(context.out_channels, 2, 1))

optimiser = torch.optim.Adam([*plain.parameters(), *far.parameters()], lr=1e-2)
for _ in range(60):
    image, label = faint_discs(8)
    loss = functional.cross_entropy(plain(image), label)
    loss = loss + functional.cross_entropy(far(image), label)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

plain.eval()
far.eval()
image, label = faint_discs(16)
with torch.no_grad():
    print(f"3x3 convolutions: Dice {dice(plain(image), label):.2f}")
    print(f"vortex pooling: Dice {dice(far(image), label):.2f}")
