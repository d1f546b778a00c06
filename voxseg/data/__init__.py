"""Volumes, folder layouts, splits, supervoxel maps and transforms."""
