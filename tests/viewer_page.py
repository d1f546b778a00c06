"""A page with viewers as tests read it: its policy, its scripts, and the volumes in it."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest


class ViewerPage(HTMLParser):
    """Collects scripts and data blocks, and holds the page to what every one must keep."""

    def __init__(self, text):
        super().__init__()
        self.text, self.scripts, self.blocks, self.policy = text, [], {}, {}
        self.styles, self.elements, self.words = [], [], []
        self._block = None
        self.feed(text)
        self.close()
        self._check()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "meta" and "http-equiv" in attributes:
            rules = (rule.split() for rule in attributes["content"].split(";"))
            self.policy = {rule[0]: rule[1:] for rule in rules}
        if tag in ("script", "style"):
            self._block = (tag, attributes, [])

    def handle_data(self, data):
        (self._block[2] if self._block else self.words).append(data)

    def handle_endtag(self, tag):
        if tag not in ("script", "style"):
            return
        _, attributes, parts = self._block
        text, self._block = "".join(parts), None
        if tag == "style":
            self.styles.append(text)
        elif "id" in attributes:
            assert attributes["id"] not in self.blocks
            self.blocks[attributes["id"]] = text
        else:
            assert not attributes
            self.scripts.append(text)

    def _check(self):
        assert self.policy["default-src"] == ["'none'"]
        assert self.policy["img-src"] == ["data:"]
        assert self.policy["base-uri"] == self.policy["form-action"] == ["'none'"]
        engine = gzip.decompress(base64.b64decode(self.blocks["viewer-niivue"]))
        (script,) = self.scripts
        assert self.policy["script-src"] == [source_of(script.encode()), source_of(engine)]
        assert not [one for one in self.elements if "src" in one[1] and one[0] != "img"]
        assert not [one for one in self.elements if one[0] in ("link", "iframe", "object", "embed")]
        assert not [name for _, one in self.elements for name in one if name.startswith("on")]
        named = "".join(self.blocks[key] for key in self.blocks if key.startswith("viewer-case"))
        for text in (script, *self.styles, *self.words):
            assert not re.search(r"https?:|@import|url\(", text.replace(named, ""))

    def case(self, anchor="0"):
        return json.loads(self.blocks[f"viewer-case-{anchor}"])

    def volume(self, name, anchor="0"):
        import nibabel as nib  # only here: the tests of the kernels run where it is missing

        content = gzip.decompress(base64.b64decode(self.blocks[f"viewer-{anchor}-{name}"]))
        return nib.Nifti1Image.from_bytes(content)

    def notes(self):
        return " ".join(" ".join(self.words).split()).replace("\u00d7", "x")


def source_of(content):
    digest = hashlib.sha256(content).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.fixture
def read_viewer():
    """Read a page with viewers, and check what holds for every one."""
    return lambda path: ViewerPage(path.read_text(encoding="utf-8"))
