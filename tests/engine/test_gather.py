import numpy as np
import pytest

from voxseg.engine import gather
from voxseg.engine.gather import Gathered, OnDisk, Wanted
from voxseg.errors import VoxsegError

SHAPE = (7, 5, 6)


def members(count, rng):
    raw = rng.random((count, 3, *SHAPE)).astype(np.float32)
    return raw / raw.sum(1, keepdims=True)


def fill(gathered, shares):
    for one in shares:
        gathered.start()
        for rows in (slice(0, 4), slice(4, 7)):
            gathered.add((rows, slice(0, 5), slice(0, 6)), one[:, rows])
    gathered.finish()
    return gathered


@pytest.mark.parametrize("on_disk", [False, True])
def test_members_are_averaged_in_memory_and_on_disk(on_disk, rng, tmp_path):
    shares = members(3, rng)
    wanted = Wanted(entropy=True, folder=tmp_path / "new" if on_disk else None)
    gathered = fill(Gathered(3, SHAPE, wanted), shares)
    mean = gathered.probabilities
    assert isinstance(mean, OnDisk) is on_disk
    np.testing.assert_allclose(mean[1], shares.mean(0)[1], rtol=1e-6)
    np.testing.assert_allclose(mean[:, 2:4], shares.mean(0)[:, 2:4], rtol=1e-6)
    np.testing.assert_array_equal(gathered.classes, shares.mean(0).argmax(0))
    assert len(mean) == 3
    assert gathered.members.count == 3
    assert gathered.members.disagreement(mean).max() > 0
    gathered.close()


def test_classes_alone_are_kept_of_one_member(rng):
    shares = members(1, rng)
    gathered = fill(Gathered(3, SHAPE, Wanted(probabilities=False)), shares)
    assert gathered.probabilities is None
    assert gathered.classes.dtype == np.uint8
    np.testing.assert_array_equal(gathered.classes, shares[0].argmax(0))
    assert gathered.members.voxels[0][0] == (shares[0].argmax(0) == 0).sum()


def test_the_file_on_disk_has_no_name(rng, tmp_path):
    gathered = fill(Gathered(3, SHAPE, Wanted(folder=tmp_path)), members(2, rng))
    # Whatever ends the process, there is nothing to clean up.
    assert list(tmp_path.iterdir()) == []
    gathered.close()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(gather.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(VoxsegError, match=r"cannot keep 0\.0 GB .* No space left"):
        OnDisk((3, *SHAPE), tmp_path)


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "here").write_text("text")
    with pytest.raises(VoxsegError, match="choose another output"):
        OnDisk((3, *SHAPE), tmp_path / "here")
