"""niivue, which draws volumes in a browser: its script as published, compressed, with its licences.

Source: npm, ``@niivue/niivue`` 0.69.0, ``dist/niivue.umd.js``, compressed with ``gzip -9 -n`` and
otherwise untouched. It draws with WebGL 2 and holds its fonts; nothing is fetched unless a script
asks it to. To take a newer one, replace the file, ``VERSION``, ``SHA256`` and ``LICENSES.txt``.
"""

import base64
import hashlib
import zlib
from functools import lru_cache
from importlib import resources

from voxseg.errors import VoxsegError

VERSION = "0.69.0"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of the script, unpacked."""


@lru_cache(maxsize=1)
def compressed() -> bytes:
    """Return the script as gzip has it; a browser unpacks it.

    Raises:
        VoxsegError: It is not the script that was published.
    """
    content = resources.files(__name__).joinpath("niivue.umd.js.gz").read_bytes()
    try:
        script = zlib.decompress(content, wbits=31)  # with gzip's own header
    except zlib.error:
        script = b""
    if hashlib.sha256(script).hexdigest() != SHA256:
        raise VoxsegError("voxseg's copy of niivue is damaged; install voxseg again")
    return content


def policy_hash() -> str:
    """Return the source by which a content security policy lets the script run, and no other."""
    return f"'sha256-{base64.b64encode(bytes.fromhex(SHA256)).decode('ascii')}'"


def licences() -> str:
    """Return the licences of niivue and of what is in it; they go wherever the script goes."""
    return resources.files(__name__).joinpath("LICENSES.txt").read_text(encoding="utf-8")
