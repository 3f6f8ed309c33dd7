"""The JSON Schema accepts every recipe in the tree, and refuses the mistakes that a schema can."""

from __future__ import annotations

import json

import pytest
import yaml
from bad_recipes import GOOD, MISTAKES
from checkout import ROOT
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from alignzoo.cli import alignzoo
from alignzoo.recipe.json_schema import recipe_schema
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.merge import apply
from alignzoo.recipe.parse import Node, Origin, from_value, parse, read_file, read_overrides
from alignzoo.registry.loading import load_module
from alignzoo.registry.lookup import Registry

FILES = [
    path for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if path.parent.name not in ("compare", "accelerate", "paper")  # of other commands
]  # fmt: skip
WHOLE = {"objective", "model", "data", "train"}
DRAWS = {"draw", "model", "data"}
NEEDS_VALUES = (
    "beta: .inf",  # JSON has no infinity
    "max_prompt_length: 128",  # two keys against each other
    "model_type: llama",
)
"""Mistakes, by a part of their text, that a schema can't tell."""


@pytest.fixture(scope="module")
def zoo():
    """The registry with the catalogue's objectives, as where alignzoo-zoo is installed."""
    import zoo  # noqa: F401  makes it importable

    return Registry(load_module("alignzoo_zoo"))


@pytest.fixture(scope="module", params=["built-in", "zoo"])
def checks(request):
    known = Registry() if request.param == "built-in" else request.getfixturevalue("zoo")
    schemas = recipe_schema(known), recipe_schema(known, partial=True)
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    return tuple(map(Draft202012Validator, schemas))


def test_it_accepts_every_recipe_in_the_tree(checks):
    whole, partial = checks
    for path in FILES:
        plain = read_file(path).plain()
        assert not list(partial.iter_errors(plain)), path
        complete = "extends" in plain or set(plain) >= WHOLE or set(plain) >= DRAWS
        assert whole.is_valid(plain) == complete, path


def test_it_accepts_a_recipe_with_every_default_written(checks):
    for name in ("dpo_hh", "mix", "sft_messages", "dpo_tools", "online/dpo_hh"):
        whole, _ = checks
        plain = json.loads(json.dumps(load_recipe(name).plain))
        assert not [error.message for error in whole.iter_errors(plain)], name


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_it_refuses_a_bad_recipe(checks, old, new, expected):
    whole, partial = checks
    text = yaml.safe_dump(GOOD, sort_keys=False)
    assert whole.is_valid(parse(text, "x").plain())
    bad = parse(text.replace(old, new, 1), "x").plain()
    tells = old not in NEEDS_VALUES and new not in NEEDS_VALUES
    assert whole.is_valid(bad) != tells
    assert partial.is_valid(bad) != (tells and "missing" not in expected) or new == "lr: 0.001"


@pytest.mark.parametrize(
    "override",
    [
        "objective.bta=1", "train.epohcs=3", "train.tokens_per_batch=9", "train.layout=forest", "eval.samples=2",
        "data.held_out=0.2", "data.pairs=best_worst", "data=table", "eval.judges=[sample]",
        "eval.metrics=normalised_accuracy", "objective.modifiers=length_normalised",
        "objective=[sft, {name: dpo, modifiers: [public_length]}]", "objective=[{name: sft, weight: 0}]",
        "objective.modifiers=[{name: label_smoothing, share: 0.2}]", "rollout.completions=0",
        "rollout.rewards=[{name: toy, wieght: 1}]", "references={a: {pth: x}}", "reporters=[htlm]",
        "data={name: mix, of: [{name: toy, shpae: tools}]}", "model.lora={rank: 3}", "filter={metric: ches, keep: 2}",
        "data={name: files, path: a.jsonl, format: hhh}", "eval.data={a: hhh}", "learning_rate=1", "train.bf16=true",
    ],
)  # fmt: skip
def test_both_refuse_a_bad_override(checks, override):
    whole, partial = checks
    node = apply(parse(yaml.safe_dump(GOOD, sort_keys=False), "x"), read_overrides([override]))
    alone = apply(Node({}, Origin("x")), read_overrides([override]))
    assert not whole.is_valid(node.plain())
    assert not partial.is_valid(alone.plain())


def test_a_file_that_lists_plugins_may_name_anything(checks):
    whole, partial = checks
    for check, rest in ((whole, GOOD), (partial, {})):
        plain = from_value({**rest, "objective": {"name": "mine", "strength": 1}}, Origin("x")).plain()
        assert not check.is_valid(plain)
        assert check.is_valid(plain | {"plugins": ["mine.py"]})


def test_every_key_is_described(checks):
    for check in checks:
        for name, definition in check.schema["$defs"].items():
            for key, value in definition.get("properties", {}).items():
                assert "known." in name or "description" in value, (name, key)


def test_the_command_writes_what_the_function_returns(tmp_path):
    for options, partial in (([], False), (["--partial"], True)):
        printed = CliRunner().invoke(alignzoo, ["schema", *options]).output
        assert json.loads(printed) == recipe_schema(Registry(), partial)
        assert not CliRunner().invoke(alignzoo, ["schema", *options, "-o", str(tmp_path / "s.json")]).output
        assert (tmp_path / "s.json").read_text() == printed


def test_a_critic_has_the_fields_of_its_model_beside_its_own(zoo):
    check = Draft202012Validator(recipe_schema(zoo, partial=True))
    assert check.is_valid({"critic": {"from": "rm.yaml", "learning_rate": 3e-4}})
    assert check.is_valid({"critic": {"path": "folder", "dtype": "bfloat16"}})
    assert check.is_valid({"critic": None})
    assert not check.is_valid({"critic": {"learning_rat": 3e-4}})
    assert not check.is_valid({"critic": {"learning_rate": "fast"}})
