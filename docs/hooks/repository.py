"""Links from pages to files of the repository that are not in docs/: each file becomes a part of the site.

A Markdown file becomes a page, a picture stays one, and every other file is copied as text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = "source"
"""Folder of the site for files from outside docs/."""
LINK = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$|"
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)|`[^`\n]+`",
    re.M | re.S,
)
"""A block of code, a link, or code in a line."""
PICTURES = (".svg", ".png")


def site_path(place: str) -> str:
    """Return where the site has a file of the repository."""
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return f"{OUTSIDE}/{place}" if place.endswith((".md", *PICTURES)) else f"{OUTSIDE}/{place}.txt"


def repository_path(uri: str) -> str:
    """Return which file of the repository a page of the site is, or would be."""
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"


def target_of(page: str, target: str) -> str | None:
    """Return the file of the repository that a link of a page leads to, or None for an address or an anchor."""
    file = target.partition("#")[0]
    if not file or re.match(r"\w+:", target):
        return None
    place = posixpath.normpath(posixpath.join(posixpath.dirname(page), file))
    return f"{place}/README.md" if (ROOT / place / "README.md").is_file() else place


def outside_files(pages: dict[str, str]) -> set[str]:
    """Return the files outside docs/ that pages lead to, and those that these lead to.

    Args:
        pages: Path in the repository -> text.
    """
    found: set[str] = set()
    waiting = list(pages.items())
    while waiting:
        page, text = waiting.pop()
        for target in links(text):
            place = target_of(page, target)
            if place and not place.startswith("docs/") and place not in found and (ROOT / place).is_file():
                found.add(place)
                if place.endswith(".md"):
                    waiting.append((place, (ROOT / place).read_text(encoding="utf-8")))
    return found


def links(text: str) -> Iterable[str]:
    """The targets of a page's links, without those in code."""
    return [found["target"] for found in LINK.finditer(text) if found["target"]]


def rewrite(text: str, uri: str, moved: Callable[[str, str], str | None]) -> str:
    """Return a page's text with links that hold on the site. A link to a folder becomes plain text.

    Args:
        text: Markdown.
        uri: The page's path on the site.
        moved: (file of the repository, anchor) -> another path on the site, or None.
    """
    here = repository_path(uri)

    def one(link: re.Match[str]) -> str:
        place = target_of(here, link["target"]) if link["target"] else None
        if place is None:
            return link[0]
        anchor = link["target"].partition("#")[2]
        if (ROOT / place).is_dir():
            return link["text"]
        there = moved(place, anchor)
        path = posixpath.relpath(there or site_path(place), posixpath.dirname(uri) or ".")
        return f"{link['image']}[{link['text']}]({path}{'#' + anchor if anchor and not there else ''})"

    return LINK.sub(one, text)
