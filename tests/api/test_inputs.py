"""Rows, models and tokenizers in memory: the same content is the same run, any other content another one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_inputs import RECIPE, ROWS, make_model

import alignzoo
import alignzoo.api.comparisons
from alignzoo.api.inputs import model_folder, rows_path, tokenizer_folder
from alignzoo.api.resolve import resolve
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe


def fingerprint(model, tokenizer, rows=ROWS, recipe=RECIPE, **options) -> str:
    return resolve(recipe, data=rows, model=model, tokenizer=tokenizer, **options).fingerprint


def test_the_same_content_is_the_same_run(model, tokenizer):
    first = fingerprint(model, tokenizer)
    assert fingerprint(make_model(), tokenizer, [dict(row) for row in ROWS]) == first
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    second = fingerprint(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.copy_(make_model().lm_head.weight)
    assert second != first == fingerprint(model, tokenizer)


def test_other_rows_and_another_tokenizer_are_other_runs(model, tokenizer):
    found = {fingerprint(model, tokenizer)}
    found.add(fingerprint(model, tokenizer, ROWS[:-1]))
    found.add(fingerprint(model, tokenizer, [*ROWS[:-1], ROWS[-1] | {"chosen": " x"}]))
    tokenizer.chat_template = "{{ messages }}"
    found.add(fingerprint(model, tokenizer))
    assert len(found) == 4


def test_a_dataset_and_a_table_have_the_content_of_their_rows():
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "weight": 2.0}, *ROWS]
    path = rows_path(rows)
    assert rows_path(datasets.Dataset.from_list(rows)) == rows_path(pandas.DataFrame(rows))
    lines = [json.loads(line) for line in rows_path(pandas.DataFrame(rows)).read_text().splitlines()]
    assert lines == rows == [json.loads(line) for line in path.read_text().splitlines()]


def test_splits_are_files_of_a_folder(model, tokenizer):
    found = resolve(RECIPE, data={"train": ROWS[:10], "test": ROWS[10:]}, model=model, tokenizer=tokenizer)
    source = found.recipe.data
    assert source.splits() == ("train", "test")
    assert [row.completions[0].text for row in source.read("test")] == [row["chosen"] for row in ROWS[10:]]


def test_a_model_is_loaded_again_bit_for_bit(model):
    from transformers import AutoModelForCausalLM

    folder, dtype = model_folder(model.to(torch.bfloat16))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert dtype == "bfloat16"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_run_of_files_has_the_same_fingerprint(model, tokenizer, tmp_path):
    """What is in memory is a recipe on files: its fingerprint does not say where they came from."""
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = resolve(RECIPE, data=ROWS, model=model, tokenizer=tokenizer)
    on_files = resolve(
        RECIPE, data=tmp_path / "data.jsonl", model=found.recipe.model.path, tokenizer=found.recipe.model.tokenizer
    )
    assert on_files.fingerprint == found.fingerprint
    written = tmp_path / "again.yaml"
    written.write_text(found.to_yaml())
    assert load_recipe(written).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no rows"),
        ([{"prompt": "a"}, "text"], r"data\[1\]: a row is"),
        ([{"prompt": {1, 2}}], r"data\[0\]: the row can't be written as JSON: a set is no text"),
        ([{"prompt": float("nan")}], r"data\[0\]: the row can't be written"),
        (iter(ROWS), "rows are a list_iterator"),
        ({"train": [3]}, r"data\['train'\]\[0\]: a row is"),
        ({"../../out": ROWS}, r"data: '../../out' is no name of a split"),
        ({5: ROWS}, "data: 5 is no name of a split"),
    ],
)
def test_rows_that_are_none_are_refused_with_their_place(rows, said):
    with pytest.raises(UserError, match=said):
        rows_path(rows)


@pytest.mark.parametrize(
    "options", [{"temperature": "hot"}, {"top_p": None}, {"max_new_tokens": 2.5}, {"seed": 0.5}, {"samples": True}]
)
def test_settings_of_draws_are_numbers(options):
    (name,) = options
    with pytest.raises(UserError, match=f"^{name}: {name} is "):
        alignzoo.generate("no-run", ["a"], **options)


@pytest.mark.parametrize("call", [alignzoo.run, alignzoo.score, alignzoo.batches, alignzoo.api.comparisons.compare])
def test_overrides_and_overlays_are_lists(call):
    with pytest.raises(UserError, match=r"overlays are 'a\.yaml'; expected a list"):
        call(RECIPE, overlays="a.yaml")
    for overrides in (5, None, [5]):
        with pytest.raises(UserError, match=r"overrides? (is|are) .*expected {"):
            call(RECIPE, overrides=overrides)


def test_settings_of_a_comparison_that_are_no_mapping_are_refused():
    for key in ("grid", "rows", "samples"):
        with pytest.raises(UserError, match=key):
            alignzoo.api.comparisons.compare(["a.yaml", "b.yaml"], **{key: 5})


def test_models_that_no_file_can_hold_are_refused(model, tokenizer):
    class Mine(type(model)):
        pass

    with pytest.raises(UserError, match="Mine is not a model that AutoModelForCausalLM"):
        model_folder(Mine(model.config))
    with pytest.raises(UserError, match="a Linear is no Hugging Face model"):
        model_folder(torch.nn.Linear(2, 2))
    with torch.device("meta"), pytest.raises(UserError, match="on the device meta"):
        model_folder(type(model)(model.config))
    with pytest.raises(UserError, match=r"the weights are float16.*float32 or bfloat16"):
        model_folder(model.to(torch.float16))
    with pytest.raises(UserError, match="no Hugging Face tokenizer"):
        tokenizer_folder("a")
    with pytest.raises(UserError, match="no name that leads to its tokenizer"):
        resolve(RECIPE, data=ROWS, model=make_model())


def test_an_adapted_model_is_refused(model):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UserError, match="the model has adapters"):
        model_folder(adapted)


def test_a_recipe_in_python_is_that_of_a_file(tmp_path):
    text = "objective: {name: dpo, beta: 0.3}\nmodel: {path: org/model}\ndata: {name: toy}\n"
    text += "train: {optimizer: {name: adamw, learning_rate: 1.0e-3}, max_grad_norm: null}\n"
    (tmp_path / "dpo.yaml").write_text(text)
    file = load_recipe(tmp_path / "dpo.yaml")
    sections = {
        "objective": {"name": "dpo", "beta": 0.3}, "model": {"path": "org/model"}, "data": "toy",
        "train": {"optimizer": {"name": "adamw", "learning_rate": 1e-3}, "max_grad_norm": None},
    }  # fmt: skip
    for given in (sections, file, file.recipe):
        again = load_recipe(given)
        assert (again.fingerprint, again.recipe.name) == (file.fingerprint, "dpo")
        assert load_recipe(given, {"objective.beta": 0.2}).recipe.objective.beta == 0.2
    assert file.recipe.objective.beta == 0.3
    with pytest.raises(UserError, match=r"recipe in Python: train\.optimiser.*did you mean 'optimizer'"):
        load_recipe(sections | {"train": {"optimiser": "sgd"}})
    with pytest.raises(UserError, match="a list is no recipe"):
        load_recipe([sections])


def test_sections_of_a_dictionary_are_named_as_such(model, tokenizer):
    wrong = RECIPE | {"data": {"name": "toy", "shap": "lists"}, "model": {"pth": "a/b"}}
    with pytest.raises(UserError) as error:
        resolve(wrong)
    assert [problem.where for problem in error.value.problems] == ["recipe in Python"] * len(error.value.problems)
    named = resolve(RECIPE | {"data": "toy", "model": "org/model"}).recipe
    assert (named.data.name, named.model.path) == ("toy", "org/model")
    by_split = resolve(RECIPE | {"data": {"train": ROWS, "test": ROWS[:2]}, "model": model}, tokenizer=tokenizer)
    assert by_split.recipe.data.splits() == ("train", "test")


def test_a_recipe_in_python_extends_and_starts_from_others():
    found = load_recipe({"extends": "dpo_hh", "objective": {"beta": 0.7}})
    assert (found.recipe.objective.beta, found.start.recipe.name) == (0.7, "sft_hh")
    assert load_recipe(found.recipe, {"name": "x"}).start.recipe.name == "sft_hh"


def test_an_objective_replaces_the_recipes_own_with_its_modifiers(model, tokenizer):
    from alignzoo.objectives.builtin.dpo import DPO

    given = RECIPE | {"objective": {"name": "dpo", "beta": 0.5, "modifiers": ["length_normalization"]}}
    found = resolve(given, data=ROWS, model=model, tokenizer=tokenizer, objective=DPO(beta=0.2))
    assert found.plain["objective"] == {"name": "dpo", "beta": 0.2}
    inside = resolve(RECIPE | {"objective": DPO(beta=0.2), "data": ROWS}, model=model, tokenizer=tokenizer)
    assert inside.fingerprint == found.fingerprint
    assert replace(inside, recipe=inside.recipe).plain["objective"]["beta"] == 0.2
