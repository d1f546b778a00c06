"""Medical volumetric segmentation with supervoxel-pooled networks."""

__version__ = "0.1.0"
