"""Algorithms that repeat bit by bit, on demand."""

import warnings

import pytest
import torch

from voxseg.engine.device import deterministic


def test_deterministic_names_what_has_no_such_form_and_restores(recwarn):
    said = []
    message = (
        "upsample_trilinear3d_backward_out_cuda does not have a deterministic implementation, but "
        "you set 'torch.use_deterministic_algorithms(True, warn_only=True)'."
    )
    before = torch.are_deterministic_algorithms_enabled()
    with deterministic(True, said.append):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        for _ in range(2):
            warnings.warn(message, UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert torch.are_deterministic_algorithms_enabled() == before
    (line,) = said
    assert line.startswith("upsample_trilinear3d_backward_out_cuda has no deterministic form")
    assert [str(w.message) for w in recwarn] == ["something else"]


def test_deterministic_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), deterministic(True, print):
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False, print):
        assert not torch.are_deterministic_algorithms_enabled()
