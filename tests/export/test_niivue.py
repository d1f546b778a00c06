"""The copy of niivue is the one that was published, and its licences go with it."""

import base64
import gzip
import hashlib
from importlib import resources

import pytest

from voxseg.errors import VoxsegError
from voxseg.export import niivue

PUBLISHED = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def test_the_script_is_the_published_one():
    stored = resources.files("voxseg.export.niivue").joinpath("niivue.umd.js.gz").read_bytes()
    script = gzip.decompress(stored)
    assert hashlib.sha256(script).hexdigest() == PUBLISHED == niivue.SHA256
    assert len(script) == 2_284_381
    assert niivue.compressed() == stored
    assert b'"0.69.0"' in script
    assert niivue.VERSION == "0.69.0"


def test_the_policy_names_the_script_and_no_other():
    digest = base64.b64encode(bytes.fromhex(PUBLISHED)).decode()
    assert niivue.policy_hash() == f"'sha256-{digest}'"


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: gzip.compress(b"alert(1)")])
def test_a_damaged_copy_is_refused(damage, monkeypatch):
    stored = resources.files("voxseg.export.niivue").joinpath("niivue.umd.js.gz").read_bytes()

    class Folder:
        def joinpath(self, _):
            return self

        def read_bytes(self):
            return damage(stored)

    niivue.compressed.cache_clear()
    monkeypatch.setattr(niivue.resources, "files", lambda _: Folder())
    with pytest.raises(VoxsegError, match="install voxseg again"):
        niivue.compressed()
    niivue.compressed.cache_clear()


def test_licences_name_all_that_is_in_it():
    text = niivue.licences()
    assert text.startswith(f"niivue {niivue.VERSION}")
    for name in (
        "BSD 2-Clause", "Copyright (c) 2021, Niivue", "gl-matrix", "@lukeed/uuid", "array-equal",
        "fflate", "nifti-reader-js", "zarrita", "numcodecs", "@ungap/structured-clone", "MIT",
        "ISC", "Papaya",
    ):  # fmt: skip
        assert name in text
