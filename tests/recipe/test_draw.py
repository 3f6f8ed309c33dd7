"""Recipes with `draw` in place of an objective, and recipes that read what they draw: checks, layers, fingerprints."""

from __future__ import annotations

import pytest
import yaml
from tiny_runs import tiny_recipe

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe

DRAW = {"model": {"from": "sft.yaml"}, "data": {"name": "files", "path": "rows.jsonl"}, "draw": {"rewards": ["length"]}}
DPO = {"objective": "dpo", "model": {"from": "sft.yaml"}, "data": {"from": "draws.yaml"}, "reporters": [],
       "train": {"optimizer": {"name": "sgd", "learning_rate": 1}}}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write("draws", DRAW)` writes a recipe and returns its path; sft.yaml and rows.jsonl are there."""
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    tiny_recipe(tmp_path, "sft", objective="sft")

    def go(name: str, node: dict) -> str:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(node))
        return str(tmp_path / f"{name}.yaml")

    go("draws", DRAW)
    return go


def problems(recipe: str, *overrides: str, overlays: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(recipe, overrides, overlays)
    return str(error.value)


@pytest.mark.parametrize(("change", "words"), [
    ({"objective": "dpo"}, "objective: it has no meaning beside `draw`, which trains nothing"),
    ({"rollout": {"rewards": ["length"]}}, "rollout: it has no meaning beside `draw`, which trains nothing; expected the same keys under `draw`"),
    ({"eval": {"every": 3}}, "eval: it has no meaning beside `draw`"),
    ({"references": {"reference": "sft.yaml"}}, "references: it has no meaning beside `draw`"),
    ({"reporters": ["html"]}, "reporters: it has no meaning beside `draw`"),
    ({"train": {"batch_size": 4}}, "train.batch_size: it has no meaning beside `draw`, which trains nothing; expected device or precision"),
    ({"train": {"precison": "bfloat16"}}, "train.precison: it has no meaning"),
    ({"drawn": {}}, "drawn: no such field; did you mean 'draw'?"),
    ({"draw": {}}, "draw.rewards: missing; expected a list of judges, or completions: 1"),
    ({"draw": {"rewards": []}}, "draw.rewards: an empty list"),
    ({"draw": {"rewards": ["lenght"]}}, "draw.rewards.0.name: no judge is called 'lenght'; did you mean 'length'?"),
    ({"draw": {"rewards": ["length"], "completion": 4}}, "draw.completion: no such field; did you mean 'completions'?"),
    ({"draw": {"rewards": ["length"], "prompts": "all"}}, "draw.prompts: it belongs to `rollout`, and has no meaning in `draw`; expected data.max_train_rows"),
    ({"draw": {"rewards": ["length"], "pairs": "all"}}, "draw.pairs: it belongs to `rollout`, and has no meaning in `draw`; expected data.pairs of the recipe that reads"),
    ({"draw": {"rewards": ["length"], "epochs": 2}}, "draw.epochs: it belongs to `rollout`"),
    ({"draw": {"rewards": ["length"], "kl_rows": 2}}, "draw.kl_rows: it belongs to `rollout`"),
    ({"draw": {"rewards": ["length"], "penalty": 2}}, "draw.penalty: it has no effect; expected unfinished: penalty"),
    ({"draw": {"rewards": ["length"], "max_new_tokens": 512}}, "draw.max_new_tokens: it leaves no room"),
    ({"draw": {"completions": 1, "rewards": [{"name": "length", "normalize": "group"}]}}, "normalize: a prompt has one completion"),
    ({"draw": 3}, "draw: 3 is not a mapping"),
    ({"data": DRAW["data"] | {"pairs": "all"}}, "data.pairs: it belongs to the recipes that read the draws; expected extremes"),
    ({"data": DRAW["data"] | {"label_noise": 0.1}}, "data.label_noise: it belongs to the recipes that read the draws"),
    ({"data": DRAW["data"] | {"train_on": "all"}}, "data.train_on: 'all' leaves no prompts"),
])  # fmt: skip
def test_contradictions_are_found_at_their_keys(write, change, words):
    found = problems(write("bad", DRAW | change))
    assert words in found, found
    assert "bad.yaml:" in found


def test_a_recipe_that_draws_has_what_drawing_depends_on_and_nothing_else(write):
    resolved = load_recipe(write("draws", DRAW | {"train": {"precision": "bfloat16"}}))
    assert set(resolved.plain) == {"name", "plugins", "model", "data", "tokens", "train", "draw", "seed"}
    assert resolved.plain["train"] == {"device": "auto", "precision": "bfloat16"}
    again = load_recipe(write("again", yaml.safe_load(resolved.to_yaml())))
    assert again.fingerprint == resolved.fingerprint
    assert (again.recipe.name, resolved.recipe.name) == ("draws", "draws")


@pytest.mark.parametrize(("override", "same"), [
    ("draw.batch_tokens=64", True), ("train.device=cpu", True), ("name=other", True),
    ("draw.completions=3", False), ("draw.temperature=0.5", False), ("draw.rewards=[{name: length, weight: 2}]", False),
    ("seed=1", False), ("train.precision=bfloat16", False), ("data.max_train_rows=3", False),
    ("data.prefix_tokens={least: 2, most: 8}", False), ("data.group_range=[0, 0.5]", False), ("tokens.max_length=299", False),
])  # fmt: skip
def test_the_fingerprint_is_of_model_data_draw_and_seed(write, override, same):
    recipe = write("draws", DRAW | {"train": {"device": "cpu"}})
    assert (load_recipe(recipe).fingerprint == load_recipe(recipe, [override]).fingerprint) == same


def test_it_is_of_the_model_s_run_too(write, tmp_path):
    before = load_recipe(str(tmp_path / "draws.yaml")).fingerprint
    node = yaml.safe_load((tmp_path / "sft.yaml").read_text())
    write("sft", node | {"seed": 5})
    assert load_recipe(str(tmp_path / "draws.yaml")).fingerprint != before


def test_a_reader_s_keys_stay_with_it_and_the_first_data_s_go_to_the_draws(write, tmp_path):
    """Every recipe that reads the same draws has the same run for them."""
    dpo = write("dpo", DPO)
    plain = load_recipe(dpo)
    assert type(plain.recipe.data).__name__ == "Draws"
    assert {key: need.recipe.name for key, need in plain.needs.items()} == {"model.from": "sft", "data.from": "draws"}
    draws = plain.needs["data.from"].fingerprint
    for override in ("data.pairs=all", "data.label_noise=0.3", "data.labels=0.5", "data.group_range=[0, 0.7]",
                     "data.max_train_rows=5", "data.held_out_rows=2", "seed=3",
                     "objective.beta=0.5", "train.batch_size=2"):  # fmt: skip
        changed = load_recipe(dpo, [override])
        assert changed.needs["data.from"].fingerprint == draws, override
        assert changed.fingerprint != plain.fingerprint, override
    (tmp_path / "other.jsonl").write_text((tmp_path / "rows.jsonl").read_text() * 2)
    moved = load_recipe(dpo, [f"data.path={tmp_path / 'other.jsonl'}"])
    assert moved.recipe.data.model_dump() == plain.recipe.data.model_dump()
    assert moved.needs["data.from"].recipe.data.path == str(tmp_path / "other.jsonl")
    assert moved.needs["data.from"].fingerprint != draws


def test_overlays_reach_each_recipe_by_what_it_has(write, tmp_path):
    """As scale/smallest does: sections of training are none of a recipe that draws, nor files of one that reads draws."""
    overlay = write("scale", {
        "data": {"path": "rows.jsonl", "max_train_rows": 7, "pairs": "all"}, "train": {"batch_size": 2, "device": "cpu"},
        "eval": {"every": 3},
    })  # fmt: skip
    resolved = load_recipe(write("dpo", DPO), (), [overlay])
    draws = resolved.needs["data.from"].recipe
    assert (resolved.recipe.data.pairs, resolved.recipe.data.max_train_rows, resolved.recipe.train.batch_size) == (
        "all",
        7,
        2,
    )
    assert (draws.data.pairs, draws.data.max_train_rows, draws.train.device) == ("extremes", 7, "cpu")
    alone = load_recipe(str(tmp_path / "draws.yaml"), (), [overlay])
    assert alone.fingerprint == resolved.needs["data.from"].fingerprint


def test_a_base_s_data_is_replaced_by_draws(write):
    base = write("base", DPO | {"data": {"name": "files", "path": "rows.jsonl", "held_out_fraction": 0.4}})
    resolved = load_recipe(write("top", {"extends": base, "data": {"from": "draws.yaml", "pairs": "all"}}))
    assert resolved.plain["data"]["name"] == "draws"
    assert (resolved.recipe.data.pairs, resolved.recipe.data.held_out_fraction) == ("all", 0.1)


@pytest.mark.parametrize(("node", "words"), [
    (DPO | {"data": {"from": "sft.yaml"}}, "data.from: sft trains a model and draws no data; expected a recipe with a section `draw`"),
    (DPO | {"model": {"from": "draws.yaml"}}, "model.from: draws makes a data set and no model"),
    (DPO | {"references": {"reference": "draws.yaml"}}, "references.reference.from: draws makes a data set and no model"),
    (DPO | {"data": {"from": "draw.yaml"}}, "did you mean"),
    (DPO | {"data": {"from": "draws.yaml", "label": 1}}, "data.label: no such field; did you mean 'labels'?"),
    (DPO | {"data": {"from": "draws.yaml", "prefix_tokens": {}}}, "prefix_tokens belongs to the recipe that draws"),
])  # fmt: skip
def test_runs_are_named_for_what_they_make(write, node, words):
    found = problems(write("bad", node))
    assert words in found, found


def test_prefixes_answer_no_completion_of_the_data(write):
    online = DPO | {"data": DRAW["data"] | {"prefix_tokens": {}}, "rollout": {"pairs": "data", "rewards": ["length"]}}
    assert "data.prefix_tokens: no completion of the data answers the beginning" in problems(write("online", online))
