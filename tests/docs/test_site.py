"""The documentation site: its navigation, links to the rest of the repository, formulas, and the build itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import yaml
from checkout import ROOT

DOCS = ROOT / "docs"
MISSING = [name for name in ("material", "mkdocstrings", "latex2mathml") if find_spec(name) is None]


@pytest.fixture(autouse=True)
def _hooks_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS), str(DOCS / "hooks"), *sys.path])


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without the Python objects that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def settings() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def files_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for one in nav.values() if isinstance(nav, dict) else nav:
            yield from files_of(one)


def test_every_page_is_in_the_navigation_once():
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert sorted(files_of(settings()["nav"])) == pages


def test_links_to_files_outside_the_documentation_stay_on_the_site():
    from repository import rewrite

    text = (
        "[a](../alignzoo/core/errors.py) [`b`](../plugins/README.md#x) ![c](../benchmarks/results/against_trl.svg) "
        "[d](data.md) [e](https://example.org) [f](#here) [g](../alignzoo) [h](../recipes/accelerate)\n"
        "`[i](../README.md)`\n```\n[j](../README.md)\n```\n[k](../CHANGELOG.md)"
    )
    assert rewrite(text, "comparing.md", lambda place, anchor: None) == (
        "[a](source/alignzoo/core/errors.py.txt) [`b`](source/plugins/README.md#x) "
        "![c](source/benchmarks/results/against_trl.svg) "
        "[d](data.md) [e](https://example.org) [f](#here) g [h](source/recipes/accelerate/README.md)\n"
        "`[i](../README.md)`\n```\n[j](../README.md)\n```\n[k](source/CHANGELOG.md)"
    )
    inside = rewrite(
        "[a](../../docs/online.md#rewards) [b](../README.md)", "source/plugins/alignzoo-zoo/README.md", moved
    )
    assert inside == "[a](../../../online.md#rewards) [b](../README.md)"
    assert rewrite("[a](../objectives.md#dpo)", "decisions/forest.md", moved) == "[a](../objectives/dpo.md)"


def moved(place: str, anchor: str) -> str | None:
    return f"objectives/{anchor}.md" if place == "docs/objectives.md" and anchor else None


@pytest.mark.parametrize(
    ("equation", "latex"),
    [
        ("-log sigmoid(beta h)", r"$- \log \, \sigma\left(\beta h\right)$"),
        ("(h - 1 / (2 beta))^2", r"$\left(h - \frac{1}{2 \beta}\right)^{2}$"),
        ("max(0, 1 - z), with a = log pi(y) / |y|",
         r"$\max\left(0 , 1 - z\right)$, with $a = \frac{\log \, \pi\left(y\right)}{\left|y\right|}$"),
        ("e^-z + 2^s_i / 3", r"$e^{-z} + \frac{2^{s_{i}}}{3}$"),
        ("-e^log_ratio_w", r"$- e^{\log \, \frac{\pi_{w}}{\pi_{\mathrm{ref},w}}}$"),
        ("mean_t -min(rho A, k3_t)", r"$\mathrm{mean}_{t} \, {- \min\left(\rho A , k_{3,t}\right)}$"),
        ("KL(ref || pi) at each token, a mean over tokens",
         r"$\operatorname{KL}\left(\pi_{\mathrm{ref}} \parallel \pi\right)$ at each token, a mean over tokens"),
        ("log ref_w - log pi_ref(y')", r"$\log \, \pi_{\mathrm{ref},w} - \log \, \pi_{\mathrm{ref}}\left(y'\right)$"),
        ("shift beta h, as in `gpo`", r"$\mathrm{shift} \, \beta h$, as in `gpo`"),
        ("of the data's scores s", "of the data's scores $s$"),
    ],
)  # fmt: skip
def test_an_equation_as_latex(equation, latex):
    from equations import to_markdown

    assert to_markdown(equation, ["shift"]) == latex


def test_an_open_parenthesis_is_an_error():
    from equations import to_markdown

    with pytest.raises(ValueError, match="ends too early"):
        to_markdown("log sigmoid(beta h")


@pytest.mark.slow
def test_no_part_of_an_equation_is_lost():
    """Every number, word and letter of every equation stands in its LaTeX as often."""
    from equations import GREEK, to_markdown
    from generate import catalogue

    classes = [*catalogue("objective"), *catalogue("modifier")]
    assert len(classes) > 115
    for cls in classes:
        text = to_markdown(cls.equation, [cls.model_fields[key].alias or key for key in cls.model_fields])
        latex = re.sub(
            r"\\log \\, \\frac\{\\pi(_\{\w+\})?\}\{\\pi_\{\\mathrm\{ref\}(,\w+)?\}\}", r" log_ratio \1 ", text
        )
        for number in re.findall(r"\d+", cls.equation):
            assert latex.count(number) >= cls.equation.count(number), (cls.name, number)
        for letter in GREEK & set(re.findall(r"[a-z]+", re.sub(r"log_ratio\([^)]*\)|pi_ref|`.*?`", "", cls.equation))):
            assert f"\\{letter}" in latex, (cls.name, letter)
        assert latex.count(r"\left") == latex.count(r"\right")


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install -e '.[docs]'")
def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    from generate import catalogue

    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    for cls in catalogue("objective"):
        page = pages[f"objectives/{cls.name}.html"]
        assert "<math" in page, cls.name
        assert all(f"objective.{info.alias or key}" in page for key, info in cls.model_fields.items())
    assert "Pair" in pages["api.html"]
    assert (tmp_path / "objectives/pictures/dpo.svg").stat().st_size > 1000
    loaded = re.compile(
        r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//(?!.*canonical)'
    )
    for name, page in pages.items():
        assert not loaded.search(page), name
        assert "arithmatex" not in page, name
        assert 'class="mermaid"' not in page, name  # its script is loaded from elsewhere
    styles = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css")]
    assert styles
    assert not [text for text in styles if re.search(r"(url\(|@import )[\"']?(https?:)?//", text)]
