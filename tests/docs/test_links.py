"""Links of every page lead to files and headings that exist, and the README stays short."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "plugins/**/*.md", "recipes/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if not {"build", "site", "node_modules", ".venv"} & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACE = re.compile(r"`((?:alignzoo|tests|docs|benchmarks|recipes|plugins)/[\w./-]*)`")
CODE = re.compile(r"^```.*?^```", re.M | re.S)


def anchors(text: str) -> set[str]:
    """The ids that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_places_exist(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), target
    if page.name not in ("CHANGELOG.md", "LOG.md", "plugins.md"):  # old names; files that a reader writes
        for place in PLACE.findall(text):
            assert (ROOT / place).exists(), place


def test_the_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_three_trips_from_the_readme():
    """Where log-probs are computed, how a metric is added, where an error's text is: each named by the README."""
    targets = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    for file, words in (
        ("alignzoo/scoring/scorer.py", "class Scorer"),
        ("docs/plugins.md", "## Add a metric"),
        ("alignzoo/core/errors.py", "class Problem"),
    ):
        assert file in targets
        assert words in (ROOT / file).read_text(encoding="utf-8"), file
