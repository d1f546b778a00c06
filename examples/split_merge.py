"""Give a strided network of your own scores for every pixel, with split-merge pooling (SMP)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxseg.layers import SMP

generator = torch.Generator().manual_seed(0)


def thin_lines(count: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (count, 1, 64, 64) of lines, and labels with 1 on the lines."""
    label = torch.zeros(count, 64, 64, dtype=torch.int64)
    for picture in label:
        for row, column in torch.randint(64, (3, 2), generator=generator).tolist():
            picture[row, :] = 1
            picture[:, column] = 1
    return label[:, None] + 0.3 * torch.randn(count, 1, 64, 64, generator=generator), label


def intersection_over_union(scores: Tensor, label: Tensor) -> float:
    """Compare the lines found with those drawn."""
    found, drawn = scores.argmax(1) == 1, label == 1
    return ((found & drawn).sum() / (found | drawn).sum()).item()


torch.manual_seed(0)
strided = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 2, 3, padding=1),
)
split = SMP(strided, in_channels=1)  # a copy: the same parameters, nothing left out
optimiser = torch.optim.Adam([*strided.parameters(), *split.parameters()], lr=1e-2)
for _ in range(100):
    image, label = thin_lines(8)
    resized = functional.interpolate(strided(image), scale_factor=4.0, mode="bilinear")
    # One pixel of each window, drawn anew each time: a step costs what the strided network's does.
    offsets = split.draw_offsets(generator)
    sampled = split.sampled(image, offsets)
    labels = split.sample_labels(label, offsets, ignore=-1)
    loss = functional.cross_entropy(resized, label)
    loss = loss + functional.cross_entropy(sampled, labels, ignore_index=-1)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

strided.eval()
split.eval()
image, label = thin_lines(16)
with torch.no_grad():
    resized = functional.interpolate(strided(image), scale_factor=4.0, mode="bilinear")
    exact = split(image)
    # Sub-grids one after the other, as far as 6 MB of activations allow: the same answer.
    frugal = split(image, memory_budget=6_000_000)
print(f"strided and resized: IoU {intersection_over_union(resized, label):.2f}")
print(f"split and merged: IoU {intersection_over_union(exact, label):.2f}")
print(f"within 6 MB it differs by at most {(exact - frugal).abs().max().item():.1e}")
