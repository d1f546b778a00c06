"""Seconds by stage: what lies in one another counts once."""

import threading

import pytest

from voxseg import stages
from voxseg.stages import measured, stage


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_a_stage_within_another_is_taken_off_it(clock):
    with measured() as seconds:
        clock(1)  # in no stage
        with stage("prepare"):
            clock(2)
            with stage("read"):
                clock(4)
            clock(8)
            with stage("read"):
                clock(16)
        clock(32)
    assert seconds == {"prepare": 10, "read": 20}


def test_a_stage_that_fails_is_counted_and_left(clock):
    @stage("all")
    def fail():
        clock(1)
        with stage("write"):
            clock(3)
            raise KeyError

    with measured() as seconds:
        with pytest.raises(KeyError):
            fail()
        clock(5)
    assert seconds == {"write": 3, "all": 1}


def test_a_decorated_function_is_counted_at_each_call(clock):
    @stage("read")
    def read(seconds):
        clock(seconds)
        return seconds

    assert read(7) == 7  # where nobody measures
    with measured() as seconds:
        assert (read(1), read(2)) == (1, 2)
    assert seconds == {"read": 3}


def test_the_inner_of_two_measures_counts(clock):
    with measured() as outer, stage("work"):
        clock(1)
        with measured() as inner, stage("work"):
            clock(2)
    assert inner == {"work": 2}
    assert outer == {"work": 3}


def test_other_threads_are_not_counted(clock):
    def work():
        with stage("work"):
            clock(5)

    with measured() as seconds:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seconds == {}
