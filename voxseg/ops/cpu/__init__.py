"""Numba twins of the ops."""
