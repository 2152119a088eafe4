"""What is wrong with a built site: links that lead nowhere, and anything fetched from elsewhere."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_FETCHED = {
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
    ("video", "poster"),
    ("audio", "src"),
    ("track", "src"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("link", "href"),
    ("image", "href"),
    ("image", "xlink:href"),
    ("use", "href"),
    ("use", "xlink:href"),
}
_NOT_FETCHED = {"canonical", "prev", "next", "alternate"}
"""Kinds of ``<link>`` that a browser does not fetch."""
_CSS_URL = re.compile(r"""url\(\s*["']?(?P<url>[^"')]+)|@import\s+["'](?P<other>[^"']+)""")


@dataclass
class Page(HTMLParser):
    """What one page of HTML refers to.

    Attributes:
        names: What a link to a place in this page may be called.
        links: Where a reader may go.
        fetched: What a browser fetches without being asked.
        list_items: Text in paragraphs that looks like a list that was not recognised.
    """

    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    list_items: list[str] = field(default_factory=list)
    _in_style: bool = False
    _paragraph: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag == "p":
            self._paragraph = ""
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and set(values.get("rel", "").split()) & _NOT_FETCHED:
            return
        for name, value in values.items():
            if (tag, name) in _FETCHED:
                self.fetched += [each.split()[0] for each in value.split(",") if each.strip()]
            if name == "style":
                self.fetched += css_urls(value)

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.fetched += css_urls(data)
        self._paragraph += data

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag == "p":
            lost = re.search(r"^ *(- |\d+\. |\| |: ).*", self._paragraph, re.MULTILINE)
            self.list_items += [lost.group()] if lost else []
            self._paragraph = ""


@cache
def read_page(file: Path) -> Page:
    """Return what a page refers to."""
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def css_urls(text: str) -> list[str]:
    """Return what a style sheet fetches."""
    return [match["url"] or match["other"] for match in _CSS_URL.finditer(text)]


def problems(site: Path) -> list[str]:
    """Return what is wrong with the pages under a directory, a line for each."""
    return [*broken_links(site), *fetched_from_elsewhere(site), *lost_lists(site)]


def broken_links(site: Path) -> list[str]:
    """Return the links and resources that lead to no file, and to no place in one."""
    found = []
    for file in sorted(site.rglob("*.html")):
        page = read_page(file)
        for target in [*page.links, *page.fetched]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = Path(os.path.normpath(file.parent / unquote(parts.path)))
            there = file if not parts.path else there
            if parts.path.endswith("/") or there.is_dir():
                there /= "index.html"
            if not there.is_file():
                found.append(f"{file.relative_to(site)}: {target} does not exist")
            elif (
                parts.fragment
                and there.suffix == ".html"
                and unquote(parts.fragment) not in read_page(there).names
            ):
                found.append(f"{file.relative_to(site)}: {target} names no place in that page")
    return found


def fetched_from_elsewhere(site: Path) -> list[str]:
    """Return what pages and style sheets would fetch from another address."""
    return [
        f"{file.relative_to(site)}: {url} is fetched from elsewhere"
        for file, urls in _fetched(site)
        for url in urls
        if urlsplit(url).netloc or urlsplit(url).scheme not in ("", "data")
    ]


def lost_lists(site: Path) -> list[str]:
    """Return lists and tables that the site shows as plain text.

    GitHub takes a list after a paragraph without an empty line, and the site does not.
    """
    return [
        f"{file.relative_to(site)}: a list or table is shown as text: {text[:60]!r}"
        for file in sorted(site.rglob("*.html"))
        for text in read_page(file).list_items
    ]


def _fetched(site: Path) -> Iterator[tuple[Path, list[str]]]:
    for file in sorted(site.rglob("*.html")):
        yield file, read_page(file).fetched
    for file in sorted([*site.rglob("*.css"), *site.rglob("*.svg")]):
        yield file, css_urls(file.read_text(encoding="utf-8"))
