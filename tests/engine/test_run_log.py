"""What a run notes, and what happens when it cannot."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from voxseg.engine.run_log import RunLog
from voxseg.errors import VoxsegError


def test_rows_and_events_are_noted_and_joined(tmp_path):
    for step in (1, 2):
        with RunLog(tmp_path, writes=True) as log:
            log.add({"step": step, "loss": 0.5 / step, "other": "words"})
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [0.5, 0.25]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_another_process_writes_nothing(tmp_path):
    with RunLog(tmp_path, writes=False) as log:
        log.add({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with RunLog(tmp_path, writes=True) as log, pytest.raises(VoxsegError) as caught:
        log.add({"step": 1, "loss": 0.5})
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'log.jsonl'}: No space left on device; free some space or "
        "choose another output, and go on with --resume"
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(VoxsegError, match=r"cannot write .*tensorboard"):
        RunLog(tmp_path, writes=True)
