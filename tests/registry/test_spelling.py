"""A recipe that says whose class it means goes on meaning that one, however it is written out."""

from __future__ import annotations

import pytest
import yaml
from fake_plugins import GOOD, MODIFIER, problems

from alignzoo.recipe import validate as validate_module
from alignzoo.recipe.load import load_recipe
from alignzoo.registry.lookup import Registry

REST = """\
model: {config: {model_type: llama}, tokenizer: {train: bytes}}
data: toy
train: {batch_size: 4, optimizer: {name: sgd, learning_rate: 1e-3}}
"""


@pytest.fixture
def load(install, tmp_path, monkeypatch):
    """`load("alignzoo-two/same")`: the recipe, with two packages that both offer `same`, and `dpo` and `margin` too."""
    for package in ("alignzoo-one", "alignzoo-two"):
        ours = GOOD + GOOD.replace("class Mine", "class Again").replace("{name}", "dpo").replace(
            "[Mine]", "[Mine, Again]"
        )
        theirs = (
            MODIFIER.replace("class Mine", "class Around").replace("[Mine]", "[Around]").replace("{name}", "margin")
        )
        install(package, (ours + theirs).format(name="same"))
    assert problems() == {"alignzoo-one": "", "alignzoo-two": ""}
    registry = Registry()
    monkeypatch.setattr(validate_module, "registry", lambda: registry)

    def go(objective: str):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"objective: {objective}\n{REST}" if "\n" not in objective else objective)
        return load_recipe(path)

    return go


@pytest.mark.parametrize(
    ("objective", "package"),
    [
        ("alignzoo-two/same", "alignzoo_two_module"),
        ("{name: alignzoo-one/same, beta: 0.3}", "alignzoo_one_module"),
        ("{name: Alignzoo_One/same}", "alignzoo_one_module"),
        ("alignzoo-two/dpo", "alignzoo_two_module"),
        ("dpo", "alignzoo.objectives.builtin.dpo"),
        ("alignzoo/dpo", "alignzoo.objectives.builtin.dpo"),
    ],
)
def test_a_resolved_recipe_names_the_same_class(load, objective, package):
    first = load(objective)
    assert type(first.recipe.objective).__module__ == package
    again = load(first.to_yaml())
    assert type(again.recipe.objective) is type(first.recipe.objective)
    assert again.fingerprint == first.fingerprint


def test_in_sums_and_among_modifiers_too(load):
    first = load("[{name: alignzoo-one/same, modifiers: [margin, alignzoo-two/margin]}, alignzoo-two/dpo, dpo]")
    again = load(first.to_yaml())
    kinds = [[type(piece) for piece in one.recipe.objective.components] for one in (first, again)]
    assert kinds[0] == kinds[1]
    names = [part["name"] for part in yaml.safe_load(first.to_yaml())["objective"]]
    assert names == ["alignzoo-one/same", "alignzoo-two/dpo", "dpo"]


def test_what_only_one_offers_needs_no_package(load):
    assert yaml.safe_load(load("dpo").to_yaml())["objective"]["name"] == "dpo"
