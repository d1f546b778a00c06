"""Items fetched in a thread: the same, in order, and nothing is left running."""

import os
import signal
import threading
import time

import pytest

from voxseg.engine.ahead import Ahead
from voxseg.engine.workers import Workers
from voxseg.errors import DataError, VoxsegError

MODULE = """
import os, signal, time
from voxseg.errors import DataError

def square(key):
    return key * key

def die_once(marker, key):
    if key == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return key

def fail(key):
    if key == 2:
        raise DataError("a.nii.gz is bad; mend it")
    return key

def sleep(key):
    time.sleep(1000 if key else 0)
    return key
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A module whose functions a worker finds."""
    (tmp_path / "ahead_items.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import ahead_items

    return ahead_items


def ahead(make, folder, count=2, keys=7, receive=lambda item: item, say=lambda _: None):
    workers = Workers(
        make, range(keys), count, describe=lambda key: f"making {key}", folder=folder, say=say
    )
    return Ahead(workers, receive)


def is_running():
    return any(thread.name == "voxseg-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 2])
def test_items_come_in_order_and_as_received(count, made, tmp_path):
    seen = []

    def receive(item):
        seen.append(threading.current_thread().name)
        return -item

    with ahead(made.square, tmp_path, count, receive=receive) as items:
        assert list(items) == [-key * key for key in range(7)]
    assert set(seen) == {"voxseg-ahead" if count else threading.main_thread().name}
    assert not is_running()


def test_items_are_fetched_before_they_are_asked_for(made, tmp_path):
    fetched = []
    with ahead(made.square, tmp_path, receive=lambda item: fetched.append(item) or item) as items:
        assert next(iter(items)) == 0
        until = time.monotonic() + 60
        while len(fetched) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert fetched == [0, 1, 4]  # one waits, and one more is in the thread's hand
    assert not is_running()


def test_errors_of_workers_and_of_the_thread_arrive(made, tmp_path):
    with ahead(made.fail, tmp_path) as items, pytest.raises(DataError, match="mend it") as caught:
        list(items)
    assert "Traceback" in str(caught.value.__cause__)

    def receive(item):
        raise VoxsegError("no memory")

    with (
        ahead(made.square, tmp_path, receive=receive) as items,
        pytest.raises(VoxsegError, match="no memory"),
    ):
        list(items)
    assert not is_running()


def test_a_dead_worker_is_started_again(made, tmp_path):
    from functools import partial

    said = []
    make = partial(made.die_once, tmp_path / "marker")
    with ahead(make, tmp_path, say=said.append) as items:
        assert list(items) == list(range(7))
    assert len(said) == 1


def test_what_is_left_early_leaves_nothing_behind(made, tmp_path):
    with ahead(made.sleep, tmp_path) as items:
        assert next(iter(items)) == 0
        pids = items._workers.pids
        start = time.monotonic()
    assert time.monotonic() - start < 4
    assert not is_running()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_is_held_up_is_killed(made, tmp_path, monkeypatch):
    monkeypatch.setattr("voxseg.engine.ahead._PATIENCE", 0.2)
    monkeypatch.setattr("voxseg.engine.workers._PATIENCE", 0.2)
    with ahead(made.sleep, tmp_path) as items:
        assert next(iter(items)) == 0
        pids = items._workers.pids
        os.kill(pids[1], signal.SIGSTOP)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
