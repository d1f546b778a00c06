"""Requests to stop that come while a library waits and Python runs no signal handler."""

import signal
import subprocess
import sys
import time

import pytest

from voxseg.engine.stop import stop_on_signals

# The store waits in C++ for a key that nobody sets.
BLOCKED = """
import sys
from datetime import timedelta
import torch.distributed as dist
from voxseg.engine.stop import stop_on_signals
store = dist.TCPStore("127.0.0.1", 0, is_master=True)
with stop_on_signals(float(sys.argv[1])):
    print("waiting", flush=True)
    store.wait(["never"], timedelta(seconds=60))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "signals"), [("1", 1), ("50", 2)])
def test_a_process_that_is_blocked_is_ended(limit, signals):
    words = [sys.executable, "-c", BLOCKED, limit]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"waiting\n"
            for _ in range(signals):
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 128 + signal.SIGTERM
        finally:
            process.kill()
        assert b"waiting for the other processes" in process.stderr.read()


def test_a_process_that_comes_to_its_next_step_lives_on():
    with stop_on_signals(0.2) as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    time.sleep(0.5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
