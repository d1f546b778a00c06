"""What this folder's own kernels begin with."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def prelude():
    """The text that ``nvrtc.source`` puts in front of every kernel file."""
    return (Path(__file__).parents[2] / "cuda" / "prelude.cuh").read_text()
