"""Figures in the README are those of benchmarks/results."""

from __future__ import annotations

import re

from checkout import ROOT

from alignzoo.registry.known_packages import PACKAGE_OF

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_comparison_has_the_figures_of_its_results():
    table = README.partition("## A comparison")[2].partition("## Speed")[0]
    figures = re.findall(r"-?\+?\d+\.\d+ \[[^\]]+\]", table)
    results = (RESULTS / "compare_sample.md").read_text(encoding="utf-8")
    assert len(figures) >= 12
    assert not [figure for figure in figures if figure not in results]


def test_the_speed_has_the_extremes_of_its_results():
    text = (RESULTS / "against_trl.md").read_text(encoding="utf-8")
    training = text.partition("## Training")[2].partition("## ")[0]
    memory = text.partition("## Peak memory")[2].partition("## ")[0]
    rows = [line.split("|") for line in training.splitlines() if "**" in line]
    times = [[float(cell.strip(" *").split(" ")[0]) for cell in row if "**" in cell] for row in rows]
    shares = [
        float(line.split("|")[-3].split()[0]) for line in memory.splitlines() if "MiB" not in line and "(+" in line
    ]
    speed = " ".join(README.partition("## Speed")[2].split())
    for values, words in (
        ([row[0] for row in times], "{} to {} times as fast as TRL 1.16 at its defaults"),
        ([row[2] for row in times], "{} to {} times as fast as TRL at the best settings"),
        (shares, "Peak memory is {} to {} of TRL's defaults"),
    ):
        assert words.format(min(values), max(values)) in speed


def test_pages_give_the_numbers_of_components_that_packages_have():
    """`PACKAGE_OF` is what the packages register: tests/plugins."""
    words = "zero one two three four five six seven eight nine ten eleven twelve".split()
    count = re.compile(rf"\b(\d+|{'|'.join(words)})(?: published)? (objective|modifier|metric)s\b")
    for page in ("README.md", "docs/plugins.md", "plugins/README.md"):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        named = [
            (name[0], found)
            for line in lines
            if (name := re.search(r"alignzoo-\w+", line))
            for found in count.findall(line)
        ]
        assert ("alignzoo-zoo", "objective") in {(package, kind) for package, (_, kind) in named}
        for package, (number, kind) in named:
            registered = list(PACKAGE_OF[kind].values()).count(package)
            assert (int(number) if number.isdigit() else words.index(number)) == registered, (page, package, kind)
