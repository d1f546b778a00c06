"""Add a supervoxel branch to a network of your own, as in V3: voxel scores + supervoxel scores."""

import torch
from torch import Tensor, nn

from voxseg.layers import SuperpixelBranch
from voxseg.ops import block_partition


class SmallNet(nn.Module):
    """Two convolutions; the last layer is a voxel branch plus a supervoxel branch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.voxels = nn.Conv3d(8, num_classes, 3, padding=1)
        self.supervoxels = SuperpixelBranch(8, num_classes, reduce="max", bias=False)

    def forward(self, image: Tensor, superpixels: Tensor, count: int) -> Tensor:
        """Return class scores (B, num_classes, X, Y, Z)."""
        features = self.features(image)
        scores: Tensor = self.voxels(features)
        return scores + self.supervoxels(features, superpixels, count)


torch.manual_seed(0)
size = (16, 20, 12)
label = torch.zeros(2, *size, dtype=torch.int64)
label[:, 4:12, 4:16, 4:8] = 1
image = label[:, None] + 0.5 * torch.randn(2, 1, *size)

# Cubes of 4 mm; `voxseg.ops.slic` gives supervoxels that follow edges. Both images share them here.
blocks = torch.from_numpy(block_partition(size, size_mm=4.0))
superpixels = blocks.expand(2, *size).contiguous()
count = int(blocks.max()) + 1

network = SmallNet(num_classes=2)
optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
for step in range(30):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(network(image, superpixels, count), label)
    loss.backward()
    optimiser.step()
    if step % 10 == 9:
        print(f"step {step + 1}: cross-entropy {loss.item():.3f}")

agree = (network(image, superpixels, count).argmax(1) == label).float().mean()
print(f"{agree:.1%} of the voxels have the right class")
