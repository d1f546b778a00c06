"""How good can supervoxels be? The oracle gives each one the majority label of its voxels."""

import numpy as np

from voxseg.metrics.superpixels import oracle_dice
from voxseg.ops import block_partition, slic

# Three nested tissues with noise, voxels of 1 x 1 x 1.5 mm.
rng = np.random.default_rng(0)
spacing = (1.0, 1.0, 1.5)
axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (60, 64, 40)), indexing="ij")
radius = np.sqrt(axes[0] ** 2 + (0.9 * axes[1]) ** 2 + (1.1 * axes[2]) ** 2)
radius += 0.06 * np.sin(9 * axes[0]) * np.cos(7 * axes[1])
label = np.digitize(radius, (0.35, 0.6, 0.85))
label = np.array([2, 3, 1, 0], dtype=np.int32)[label]
image = label + 0.4 * rng.standard_normal(label.shape)
brain = label > 0

print("size   kind   supervoxels   mean oracle Dice of classes 1 to 3")
for size_mm in (4.0, 6.0, 8.0, 12.0):
    maps = {
        "SLIC": slic(image, size_mm=size_mm, compactness=0.1, spacing=spacing, mask=brain),
        "BLOCK": block_partition(label.shape, size_mm=size_mm, spacing=spacing, mask=brain),
    }
    for kind, superpixels in maps.items():
        scores = oracle_dice(superpixels, label, (1, 2, 3))
        mean = np.mean(list(scores.values()))
        print(f"{size_mm:4.0f}   {kind:5}  {superpixels.max() + 1:11}   {mean:.3f}")
