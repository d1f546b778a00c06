"""Overlap and surface metrics, supervoxel quality."""
