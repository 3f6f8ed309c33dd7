"""What mkdocs calls while it builds the site."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import objective_pages  # noqa: E402
from repository import ROOT, outside_files, rewrite, site_path  # noqa: E402

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures of objectives, and the files outside docs/ that a page leads to."""
    pictures = dict(objective_pages.pictures())
    for uri, content in [*pictures.items(), *objective_pages.pages(pictures)]:
        add(files, File.generated(config, uri, content=content))
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    outside = outside_files(pages)
    for place in sorted(outside):
        add(files, File.generated(config, site_path(place), abs_src_path=str(ROOT / place)))
    packages = sorted(place for place in outside if re.fullmatch(r"plugins/[\w-]+/README.md", place))
    extend(config.nav, "Objectives", objective_pages.navigation())
    extend(config.nav, "Plugins", [{place.split("/")[1]: site_path(place)} for place in packages])
    return files


def extend(nav: list[Any], title: str, entries: list[Any]) -> None:
    """Add entries to a section of the navigation: to a copy, as `mkdocs serve` builds more than once."""
    at = next(n for n, entry in enumerate(nav) if title in entry)
    listed = [entry for entry in nav[at][title] if entry not in entries]
    nav[at] = {title: [*listed, *entries]}


def add(files: Files, file: File) -> None:
    """Add a file, in place of one with its path."""
    if there := files.get_file_from_path(file.src_uri):
        files.remove(there)
    files.append(file)


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Rewrite links to files outside docs/, and to objectives, which have pages of their own here."""

    def moved(place: str, anchor: str) -> str | None:
        own = f"objectives/{anchor}.md"
        return own if place == "docs/objectives.md" and anchor and files.get_file_from_path(own) else None

    return rewrite(markdown, page.file.src_uri, moved)


def on_page_content(html: str, **_: Any) -> str:
    """Turn LaTeX into MathML."""
    return FORMULA.sub(mathml, html)


def mathml(formula: re.Match[str]) -> str:
    """Return a formula as MathML."""
    return convert(html.unescape(formula[2]), display="inline" if formula[1] == "span" else "block")
