"""Pool the features of a volume over supervoxels, and spread the result back over its voxels."""

import torch

from voxseg.ops import slic, superpixel_pool, superpixel_unpool

# A ball in a box, with noise; voxels of 1 x 1 x 2 mm.
generator = torch.Generator().manual_seed(0)
spacing = (1.0, 1.0, 2.0)
axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (48, 40, 24)), indexing="ij")
ball = (sum(axis**2 for axis in axes) < 0.5).float()
image = ball + 0.3 * torch.randn(ball.shape, generator=generator)

# Supervoxels of about 6 mm: (X, Y, Z) int32, numbered from 0.
superpixels = slic(image, size_mm=6.0, compactness=0.1, spacing=spacing)
count = int(superpixels.max()) + 1

# Features are (B, C, *S), superpixels (B, *S), a table of superpixels (B, C, count).
features = image[None, None].requires_grad_()
table = superpixel_pool(features, superpixels[None], count, reduce="mean")
smooth = superpixel_unpool(table, superpixels[None])

explained = 1 - ((image - smooth[0, 0]) ** 2).mean() / image.var()
print(f"{count} supervoxels for {image.numel()} voxels explain {explained:.0%} of the variance")

# Pooling is differentiable: a voxel's part in the mean of its supervoxel is 1 / size.
table.sum().backward()
assert features.grad is not None
print(f"the gradients of the table's sum add up to {features.grad.sum():.1f}: one per supervoxel")
