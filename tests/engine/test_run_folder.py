"""One process a run folder; what is in it is not lost by mistake."""

import signal
import subprocess
import sys

import pytest

from voxseg.engine.run_folder import open_run
from voxseg.errors import UsageError

HOLD = """
import sys, time
from pathlib import Path
from voxseg.engine.run_folder import open_run
with open_run(Path(sys.argv[1]), resume=True, overwrite=False):
    print("held", flush=True)
    time.sleep(600)
"""


def take(run, **changes):
    with open_run(run, **{"resume": False, "overwrite": False, **changes}):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock on Windows")
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            (run / "log.jsonl").write_text("an unfinished run's")
            for changes in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(UsageError, match="another voxseg process is working in"):
                    take(run, **changes)
            assert (run / "log.jsonl").exists()
        finally:
            # Killed without a chance to clean up.
            holder.send_signal(signal.SIGKILL)
    take(run, resume=True)


def test_the_lock_is_no_content(tmp_path):
    run = tmp_path / "run"
    take(run)
    take(run)
    (run / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="already holds files"):
        take(run)
    take(run, overwrite=True)
    assert (run / "mine.txt").exists()


def test_what_is_no_folder_or_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        take(tmp_path / "file")
    with pytest.raises(UsageError, match=r"cannot make .*choose another -o"):
        take(tmp_path / "file" / "run")


def test_overwriting_leaves_nothing_that_predict_would_take_for_the_new_runs(tmp_path):
    run = tmp_path / "run"
    names = ("postprocessing.json", "metrics-postprocessed.csv", "calibration.json", "config.toml")
    run.mkdir()
    for name in (*names, "mine.txt"):
        (run / name).write_text("earlier")
    take(run, overwrite=True)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "mine.txt"]
