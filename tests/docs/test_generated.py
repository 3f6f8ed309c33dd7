"""Pages that follow from the code are what `python docs/generate.py` writes."""

from __future__ import annotations

import runpy

from checkout import ROOT


def test_generated_pages_are_current():
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    assert {path.name for path in pages} >= {
        "modules.md",
        "objectives.md",
        "commands.md",
        "recipes.md",
        "architecture.md",
    }
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"{stale}: run python docs/generate.py"


def test_the_module_tree_lists_every_module_once():
    text = (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
    for path in (ROOT / "alignzoo").rglob("*.py"):
        name = path.relative_to(ROOT / "alignzoo").as_posix()
        assert text.count(f"[`{name}`]") == 1, name
