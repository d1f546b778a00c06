"""x."""

from pathlib import Path
import numpy as np


def write_normals_png(path: Path, normals: np.ndarray) -> Path:
    """x."""
    raise NotImplementedError


def write_normals_npz(path: Path, normals: np.ndarray) -> Path:
    """x."""
    np.savez(path, normal=normals.transpose(1, 2, 0).astype(np.float16))
    return path
