"""Pages that follow from the code are what `python docs/generate.py` writes."""

from __future__ import annotations

import runpy

import pytest
from checkout import ROOT
from pydantic import BaseModel

from alignzoo.compare import spec
from alignzoo.interfaces.hookspecs import KINDS
from alignzoo.recipe import schema
from alignzoo.registry.lookup import Registry


@pytest.mark.slow
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


def test_every_key_of_a_recipe_and_of_a_comparison_has_a_description():
    sections = [one for module in (schema, spec) for one in vars(module).values() if isinstance(one, type)]
    components = [cls for kind in KINDS for cls in Registry().known(kind).values()]
    models = {one for one in (*sections, *components) if issubclass(one, BaseModel)}
    assert len(models) > 20
    assert [f"{one.__name__}.{n}" for one in models for n, f in one.model_fields.items() if not f.description] == []
