"""A viewer of volumes as one HTML page, and the parts of it that a report takes in.

The page stands alone. Its content security policy lets no request out and no other script run than
two: the page's own, and niivue, which the page holds compressed and unpacks in the browser; both
are named in the policy by their hashes. Names of labels and files are data of the page, never part
of its code.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib import resources
from pathlib import Path

from voxseg import __version__
from voxseg.errors import UsageError
from voxseg.export import niivue
from voxseg.export.case_picture import UNCERTAINTY_MAP
from voxseg.export.viewer_scene import MB, PackedScene, ViewerScene, pack
from voxseg.files import write_text

__all__ = ["LEAST_MB", "MOST_MB", "PackedScene", "ViewerParts", "ViewerScene", "write_viewer"]

MOST_MB = 20.0
"""Size of a page, by default: what mail still takes."""
LEAST_MB = 2.0
"""The script alone takes a megabyte."""

_STOPS = 9  # colours of the scale of uncertainty


@dataclass(frozen=True)
class ViewerParts:
    """What a page needs to show volumes, beside the cases themselves."""

    style: str
    frame: str
    """HTML that a viewer is made of when it opens."""
    script: str
    engine: str
    """HTML block with niivue."""
    script_policy: str
    """Sources of scripts, for a content security policy."""
    licences: str

    @property
    def num_bytes(self) -> int:
        """What they take on the page."""
        return sum(map(len, (self.style, self.frame, self.script, self.engine, self.licences)))


@dataclass(frozen=True)
class WrittenViewer:
    """A page that was written."""

    path: Path
    num_bytes: int
    notes: tuple[str, ...]
    """What was done to the volumes, a sentence each."""


def write_viewer(
    path: Path, scene: ViewerScene, *, most_mb: float = MOST_MB, is_whole: bool = False
) -> WrittenViewer:
    """Write a page that shows one case.

    Args:
        path: The page; one that is there is replaced.
        scene: The case.
        most_mb: Size of the page in MB (10^6 bytes); volumes are made smaller until they fit.
        is_whole: Neither cut the volumes nor leave voxels out.

    Raises:
        UsageError: The case does not fit into ``most_mb``.
        VoxsegError: The file cannot be written.
    """
    from jinja2 import Environment

    parts = viewer_parts()
    page_style = _read("viewer_page.css") + parts.style
    fixed = parts.num_bytes + len(page_style) + 8_000  # and the page's own words
    left = most_mb * MB - fixed
    if most_mb < LEAST_MB:
        raise UsageError(f"--max-mb must be at least {LEAST_MB:g}, got {most_mb:g}")
    packed = pack(scene, left, is_whole=is_whole)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    policy = (
        f"default-src 'none'; script-src {parts.script_policy}; style-src {_hash(page_style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = environment.from_string(_read("viewer.html")).render(
        scene=scene,
        policy=policy,
        style=page_style,
        notes=packed.notes,
        version=__version__,
        niivue=niivue.VERSION,
        licences=parts.licences,
        frame=parts.frame,
        blocks=parts.engine + case_blocks(packed, "0"),
        script=parts.script,
    )
    write_text(path, page)
    return WrittenViewer(path, len(page.encode("utf-8")), packed.notes)


@lru_cache(maxsize=1)
def viewer_parts() -> ViewerParts:
    """Gather what every page with a viewer holds once.

    Raises:
        VoxsegError: The copy of niivue is damaged.
    """
    script = _read("viewer.js") + _read("viewer_controls.js")
    packed = base64.b64encode(niivue.compressed()).decode("ascii")
    return ViewerParts(
        style=_read("viewer.css"),
        frame=_read("viewer_frame.html"),
        script=script,
        engine=_block("viewer-niivue", packed),
        script_policy=f"{_hash(script)} {niivue.policy_hash()}",
        licences=niivue.licences(),
    )


def case_blocks(packed: PackedScene, anchor: str) -> str:
    """Return the HTML that holds a case; scripts do not run in it, and nothing is shown.

    Args:
        packed: The case.
        anchor: By which the page's viewers tell cases apart; letters, digits and hyphens.
    """
    stops = _uncertainty_stops()
    content = {
        **packed.content,
        "colours": ["#{:02x}{:02x}{:02x}".format(*stop) for stop in stops],
        "gradient": _colormap(stops),
    }
    # Within the block only "<" could end it; JSON may spell it otherwise.
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    blocks = [_block(f"viewer-case-{anchor}", text, kind="application/json")]
    blocks += [_block(f"viewer-{anchor}-{name}", data) for name, data in packed.volumes.items()]
    return "".join(blocks)


def _block(name: str, text: str, kind: str = "text/plain") -> str:
    return f'<script type="{kind}" id="{escape(name)}">{text}</script>\n'


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _read(name: str) -> str:
    return resources.files("voxseg.export").joinpath(name).read_text(encoding="utf-8")


def _uncertainty_stops() -> list[tuple[int, int, int]]:
    """Colours of the uncertainty from 0 to 1, those of the pictures in reports."""
    from matplotlib import colormaps

    chosen = colormaps[UNCERTAINTY_MAP]
    found = []
    for step in range(_STOPS):
        red, green, blue, _ = chosen(step / (_STOPS - 1), bytes=True)
        found.append((int(red), int(green), int(blue)))
    return found


def _colormap(stops: Sequence[tuple[int, int, int]]) -> Mapping[str, list[int]]:
    """Write colours as niivue wants them; 0 is clear."""
    places = [round(255 * step / (_STOPS - 1)) for step in range(_STOPS)]
    return {
        **{name: [stop[n] for stop in stops] for n, name in enumerate("RGB")},
        "A": [0, *([255] * (_STOPS - 1))],
        "I": places,
    }
