"""Fixtures shared by all tests."""

import contextlib
import json
import os
from pathlib import Path

# Before torch is imported, and for processes that tests start: a second thread gains nothing on
# arrays this small, and where threads spin while they wait, it costs minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that share out the tests get the size of a terminal, and tables would be made for it.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)

import numpy as np
import pytest
import torch

from . import forms as _forms
from .cuda_on_cpu import device as _pretended
from .cuda_on_cpu.host import cuda_on_cpu as cuda_on_cpu
from .report_page import read_page as read_page
from .viewer_page import read_viewer as read_viewer

_CUDA_MISSING = "no CUDA device; set VOXSEG_REQUIRE_CUDA=1 to make this a failure"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """Each device that ops are tested on; CUDA skips with a reason when absent."""
    if request.param == "cuda":
        return request.getfixturevalue("cuda_device")
    return torch.device("cpu")


@pytest.fixture
def cuda_device():
    """A CUDA device, or one that is pretended; see ``cuda_on_cpu/device.py``.

    For what is about nothing else; such tests carry the mark ``cuda``.
    """
    if torch.cuda.is_available() or os.environ.get("VOXSEG_REQUIRE_CUDA") == "1":
        _need_cuda()
        yield torch.device("cuda")
        return
    if not _pretended.is_possible():
        pytest.skip(_CUDA_MISSING)
    with _pretended.pretended() as device:
        yield device


@pytest.fixture
def pretence():
    """The module that pretends a CUDA device, for tests of what no real one tells."""
    if not _pretended.is_possible():
        pytest.skip("this build of torch has CUDA itself")
    return _pretended


@pytest.fixture
def real_cuda_device():
    """A CUDA device, for what no pretended one does; such tests carry the mark ``cuda``."""
    _need_cuda()
    return torch.device("cuda")


def _need_cuda():
    if not torch.cuda.is_available():
        if os.environ.get("VOXSEG_REQUIRE_CUDA") == "1":
            pytest.fail("VOXSEG_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip(_CUDA_MISSING)


@pytest.fixture(scope="session", autouse=True)
def _room_for_a_device():
    """Let torch count the pretended device before it counts devices."""
    if _pretended.is_possible():
        with contextlib.suppress(pytest.skip.Exception):
            _pretended.library()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Neither fill nor clear the user's cache, nor that of a process beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    return np.random.default_rng(0)


@pytest.fixture
def generator():
    """A seeded torch generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data that VOXSEG_DATA names; tests that use it skip without it."""
    folder = os.environ.get("VOXSEG_DATA")
    if not folder:
        pytest.skip("VOXSEG_DATA is unset: it names a folder of real data that is not shipped")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"VOXSEG_DATA={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def validate():
    """Check a document, text or plain values, against the schema that it names; return it."""
    return _forms.check_document


@pytest.fixture(scope="session")
def forms():
    """What tests do with documents: parse strictly, validate, damage."""
    return _forms


@pytest.fixture
def finish_run(tmp_path):
    """Write a cross-validation without a training: case -> how many voxels its mask is off."""
    # Only here: the tests of the kernels run where nibabel is missing.
    from .report_runs import write_crossval

    return lambda shifts: write_crossval(tmp_path, shifts)


@pytest.fixture
def finished_run(finish_run):
    """Five cases, each more voxels off than the last."""
    return finish_run({f"case{n}": n for n in range(5)})


@pytest.fixture(scope="session")
def photographs():
    """Streets to score: their classes, truths and objects, and how to write a folder of them."""
    from . import photographs as made

    return made


@pytest.fixture(scope="session")
def dicom():
    """DICOM series to read: how to write them, and a phantom that is in them."""
    # Only here: DICOM is an extra.
    pytest.importorskip("pydicom", reason="DICOM is an extra, and pydicom is missing")
    from . import dicom_series as made

    return made


@pytest.fixture(scope="session")
def head():
    """A head with letters that no flip leaves alike, on grids of every orientation."""
    # Only here: the tests of the kernels run where nibabel is missing.
    from . import oriented_head

    return oriented_head


@pytest.fixture(scope="session")
def phantom():
    """A head with letters in every orientation, and a network that knows them by heart."""
    # Only here: the tests of the kernels run where nibabel is missing.
    from . import phantom as made

    return made


@pytest.fixture
def save_pictures(rng):
    """Write a photograph (3 x 4 pixels) under each name; under a name with ``: VALUES``, a mask.

    Masks are grey PNGs whose pixels are the values in turn.
    """

    # Only here: the tests of the kernels run where few packages are.
    from PIL import Image

    def write(root, *names):
        for entry in names:
            name, _, values = entry.partition(":")
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if values:
                pixels = np.resize([int(value) for value in values.split()], (3, 4))
                is_wide = pixels.max() > 255
                Image.fromarray(pixels.astype(np.uint16 if is_wide else np.uint8)).save(path)
            else:
                Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)).save(path)
        return root

    return write


@pytest.fixture
def coco(tmp_path, save_pictures):
    """COCO's folders with four photographs of 3 x 4 pixels; see ``write_coco``."""
    return write_coco(tmp_path / "coco", save_pictures)


def write_coco(root, save_pictures):
    """Write a small COCO: a person under a dog, a crowd under a tv, a zebra alone, nothing.

    Masks of photographs 1 and 2 are what their polygons, runs and packed runs say; 3 and 4 hold
    no class of VOC.
    """
    names = [f"{number:012d}.jpg" for number in range(1, 5)]
    save_pictures(root, *(f"train2017/{name}" for name in names))
    kinds = {1: "person", 18: "dog", 24: "zebra", 72: "tv"}
    regions = (
        (1, 1, 0, [[0, 0, 3, 0, 3, 2, 0, 2]]),  # two rows of three pixels
        (1, 18, 0, {"size": [3, 4], "counts": [6, 1, 5]}),  # column 2, row 0
        (2, 1, 1, {"size": [3, 4], "counts": "039"}),  # the first column
        (2, 72, 0, {"size": [3, 4], "counts": [1, 1, 10]}),  # column 0, row 1
        (3, 24, 0, [[0, 0, 3, 0, 3, 2, 0, 2]]),
    )
    content = {
        "images": [
            {"id": number, "file_name": name, "height": 3, "width": 4}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "iscrowd": crowd,
                "segmentation": region,
            }
            for number, (image, kind, crowd, region) in enumerate(regions)
        ],
        "categories": [{"id": kind, "name": name} for kind, name in kinds.items()],
    }
    folder = root / "annotations"
    folder.mkdir()
    (folder / "instances_train2017.json").write_text(json.dumps(content))
    return root
