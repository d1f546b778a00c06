"""CUDA twins: what is launched, and how. The kernels themselves are in the folder ``cuda``."""
