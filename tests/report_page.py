"""A report page as tests read it: parsed, and held to what every page must keep."""

import re
from html.parser import HTMLParser

import pytest

_VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects tags, words and ids; a page that is not well formed fails."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.words, self.rows = text, [], [], []
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if attributes.get("id")]

    def row(self, *first):
        """The only row that begins with these cells."""
        (found,) = [row for row in self.rows if row[: len(first)] == list(first)]
        return found


def _check(page):
    """Nothing from elsewhere, no dead link, pictures with words, tables with heads."""
    policy = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert policy == [policy[0]]
    assert policy[0].startswith("default-src 'none'; img-src data:;")
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page.text))
    assert len(set(page.ids)) == len(page.ids)
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(page.ids)
    assert all(image["alt"] for image in page.all("img"))
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))


@pytest.fixture
def read_page():
    """Read a page, and check what holds for every one."""

    def read(path):
        page = Page(path.read_text(encoding="utf-8"))
        _check(page)
        return page

    return read
