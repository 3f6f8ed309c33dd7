"""`alignzoo validate`: the table of memory, what does not fit, the timed step, and what it finds before a run does."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import alignzoo
from alignzoo.cli.data import tokenizer_of
from alignzoo.cli.validate import command
from alignzoo.core.errors import UserError
from alignzoo.data.row_reader import RowReader
from alignzoo.models.loading import load_policy
from alignzoo.recipe.load import load_recipe
from alignzoo.training import model_preflight

SMALL = ["--with", "recipes/scale/smallest.yaml", "data.max_train_rows=32", "data.held_out_rows=8"]


def validate(*words):
    return CliRunner().invoke(command, ["sft_hh", *SMALL, *words], catch_exceptions=False).stdout


@pytest.fixture
def model(tmp_path):
    """A folder with the smallest model in two shards."""
    resolved = load_recipe("sft_hh", [], ["recipes/scale/smallest.yaml"])
    tokenizer = tokenizer_of(resolved, RowReader(resolved.recipe.data))
    load_policy(resolved.recipe.model, tokenizer, 0).save_pretrained(tmp_path / "model", max_shard_size="100KB")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_table_has_the_parts_and_what_the_machine_has(monkeypatch):
    (plan,) = json.loads(validate("--json"))
    memory = plan["memory"]
    assert set(memory["parts"]) == {"process", "weights", "optimizer", "gradients", "activations", "logits"}
    assert memory["parts"]["optimizer"] == 2 * memory["parts"]["gradients"]
    assert memory["peak"] == memory["moments"]["forward and backward"] <= sum(memory["parts"].values())
    assert (memory["complete"], memory["fits"]) == (True, True)
    monkeypatch.setattr(model_preflight, "memory_there", lambda device: (2**20, "this machine has 1 MiB"))
    text = validate()
    assert "numbers     weights in float32 (model.dtype, 4 bytes each), computed in float32 too" in text
    assert "; this machine has 1 MiB" in text
    assert "warning: that is more than the 1.0 MiB there; model.lora trains less" in text
    assert "1,024 tokens; the rows are text, and use no chat template" in text


def test_a_warm_up_longer_than_the_run_is_a_warning():
    assert "after the 6 of this run: the learning rate gets to 29% of 0.003" in validate(
        "train.schedule.warmup_steps=20"
    )
    assert "warm-up" not in validate()


@pytest.mark.slow
def test_the_time_is_that_of_timed_steps():
    (plan,) = json.loads(validate("--time", "--json", "train.max_steps=100", "train.epochs=50"))
    found = plan["time"]
    assert found["steps"] == 100
    assert found["training"] == pytest.approx(100 * found["step"])
    assert found["seconds"] == pytest.approx(found["training"] + found["reference"] + found["evaluations"])
    assert 0 < found["evaluations"]


def test_a_missing_shard_is_found_by_validate_and_before_the_runs_that_come_first(model, monkeypatch):
    shards = sorted(model.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    reference = f"references={{reference: {{path: {model}}}}}"
    monkeypatch.setattr("alignzoo.data.row_reader.RowReader.used", None)  # nothing is read before
    found = []
    for recipe, words in (("sft_hh", [f"model={{path: {model}}}"]), ("dpo_hh", [reference])):
        for go in (lambda: alignzoo.run(recipe, words), lambda: validate_recipe(recipe, words)):  # noqa: B023
            with pytest.raises(UserError) as error:
                go()
            found.append(str(error.value))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert all(shards[-1].name in text for text in found)


def validate_recipe(recipe, words):
    from alignzoo.cli.validate import check

    check(recipe, words, [], False)


def test_what_the_model_can_not_do_is_found_without_its_weights(model):
    """Each of these stops a run after its data are tokenized, or after the runs before it."""
    shutil.copytree(model, model.parent / "short")
    config = json.loads((model / "config.json").read_text())
    (model.parent / "short" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    for words, said in (
        ([f"model={{path: {model}, lora: {{target_modules: [q_prj]}}}}"], "has no linear layer 'q_prj'"),
        ([f"model={{path: {model.parent / 'short'}}}"], "and the model has 16 positions"),
    ):
        with pytest.raises(UserError, match=said):
            validate(*words)
