"""JSON documents as voxseg writes and reads them: named, versioned, without NaN.

``voxseg.schemas`` says which forms there are and what readers can rely on.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxseg import __version__
from voxseg.errors import DataError
from voxseg.files import write_text

_NAME = re.compile(r"(voxseg\.[a-z-]+)/(\d+)")


def document(schema: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Put the names of form and program version before a document's content.

    Args:
        schema: A constant of ``voxseg.schemas``.
        content: All other fields.
    """
    return {"schema": schema, "voxseg": __version__, **content}


def json_text(content: Any, indent: int | None = 2) -> str:
    """Write plain values as JSON; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def write_document(path: Path, schema: str, content: Mapping[str, Any]) -> None:
    """Write a document as a file, whole or not at all.

    Args:
        path: Where; its folder is made if needed.
        schema: A constant of ``voxseg.schemas``.
        content: All other fields.

    Raises:
        VoxsegError: It cannot be written.
    """
    write_text(path, json_text(document(schema, content)) + "\n")


def refuse_newer(content: Any, schema: str, path: Path) -> None:
    """Refuse a document of a newer version than this program knows.

    Documents of earlier versions and of other programs, which name no form of voxseg, pass.

    Args:
        content: As read from JSON.
        schema: The newest form that is understood.
        path: Its file, for the message.

    Raises:
        DataError: It names the same form with a higher version.
    """
    name, version = schema.split("/")
    stored = content.get("schema") if isinstance(content, dict) else None
    found = _NAME.fullmatch(stored) if isinstance(stored, str) else None
    if found and found[1] == name and int(found[2]) > int(version):
        raise DataError(
            f"{path} was written by a newer voxseg ({stored}); update voxseg to read it"
        )


def _finite(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
