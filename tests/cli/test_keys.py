"""`alignzoo list KEY`: type, bounds, default and description of any key, and the keys below it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from alignzoo.cli import alignzoo
from alignzoo.cli.keys import explain
from alignzoo.core.errors import UserError
from alignzoo.recipe.schema import Recipe, TrainConfig

OPTIMIZERS = ["adamw", "adamw_8bit", "lion", "lion_8bit", "muon", "rmsprop", "sgd"]


def test_a_key_has_its_type_bounds_default_and_description():
    (entry,) = explain("train.batch_size")
    assert entry == {
        "of": "", "type": "integer", "bounds": ">= 1", "required": False, "default": 64, "keys": [],
        "description": "rows per optimizer step, summed over processes",
    }  # fmt: skip


def test_a_key_of_files_alone_is_explained_too():
    (entry,) = explain("extends")
    assert "merged on top of" in entry["description"]
    printed = CliRunner().invoke(alignzoo, ["list", "extends"])
    assert (printed.exit_code, "string | array" in printed.output) == (0, True)
    with pytest.raises(UserError, match="did you mean 'extends'"):
        explain("extend.x")


def test_every_top_level_key_is_explained_by_the_command():
    for name in (*Recipe.model_fields, "extends"):
        printed = CliRunner().invoke(alignzoo, ["list", name])
        assert (printed.exit_code, printed.output.strip() != "") == (0, True), name


def test_a_section_has_its_keys_and_a_choice_those_of_each_option():
    (train,) = explain("train")
    assert [one["name"] for one in train["keys"]] == list(TrainConfig.model_fields)
    first, *options = explain("train.optimizer")
    assert (first["required"], first["keys"]) == (True, [])
    assert [one["of"] for one in options] == OPTIMIZERS
    assert "betas" in [key["name"] for key in options[0]["keys"]]
    assert "betas" not in [key["name"] for key in options[-1]["keys"]]


def test_a_field_of_components_is_told_once_for_all_that_describe_it_alike():
    (rate,) = explain("train.optimizer.learning_rate")
    assert (rate["of"], rate["bounds"], rate["required"]) == (", ".join(OPTIMIZERS), "> 0", True)
    assert {of for entry in explain("objective.beta") for of in entry["of"].split(", ")} == {"cdpo", "dpo", "ipo"}


@pytest.mark.parametrize(
    "path",
    [
        "eval.judges.0.path", "eval.judges[].path", "eval.judges.path", "references.big.path", "data.of.0.path",
        "rollout.rewards.weight", "rollout.rewards.0.clip", "model.lora.r", "eval.data.mine.held_out_rows",
        "data.format", "model.tokenizer.train", "filter.metric", "seed",
        "objective.name", "objective.modifiers", "objective.0.modifiers.0.epsilon", "objective.1.weight", "model.name",
    ],
)  # fmt: skip
def test_every_place_of_a_key_is_found(path):
    assert all(entry["description"] for entry in explain(path))


def test_every_key_of_every_section_is_explained():
    for name in Recipe.model_fields:
        for entry in explain(name):
            for key in entry["keys"]:
                assert explain(f"{name}.{key['name']}")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("train.optimiser", "did you mean 'optimizer'?"),
        ("train.per_device_train_batch_size", "expected train.batch_size"),
        ("train.zzz", "expected one of "),
        (
            "train.batch_size.more",
            "no recipe has the key 'train.batch_size.more'; expected no key below a single value",
        ),
        ("1.2", "expected one of "),
    ],
)
def test_an_unknown_key_has_the_nearest(path, said):
    with pytest.raises(UserError) as error:
        explain(path)
    assert said in str(error.value)


def test_the_command_prints_it_and_a_name_comes_before_a_key():
    printed = CliRunner().invoke(alignzoo, ["list", "train.max_grad_norm"]).output
    assert "train.max_grad_norm: limit of the global gradient norm" in printed
    assert "number | null, > 0; default 10.0" in printed
    assert json.loads(CliRunner().invoke(alignzoo, ["list", "seed", "--json"]).output) == explain("seed")
    assert CliRunner().invoke(alignzoo, ["list", "margin"]).output.startswith("modifier margin")
    assert "expected train.optimizer.learning_rate" in str(CliRunner().invoke(alignzoo, ["list", "lr"]).exception)
