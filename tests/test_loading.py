"""The collector of garbage rests while modules are loaded, and is left as it was."""

import gc

import pytest

from voxseg.loading import loading


@loading()
def load():
    assert not gc.isenabled()
    raise ImportError


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_rests_and_is_left_as_it_was(was_on):
    if not was_on:
        gc.disable()
    try:
        with pytest.raises(ImportError):
            load()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
