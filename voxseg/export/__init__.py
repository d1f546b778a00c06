"""Outputs that other programs open."""
