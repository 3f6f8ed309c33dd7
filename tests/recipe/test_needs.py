"""A recipe may need several runs: each counts in the fingerprint, inherits by one rule, and a cycle is an error."""

from __future__ import annotations

import pytest
import yaml

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe

TRAIN = {"train": {"optimizer": {"name": "sgd", "learning_rate": 1}}}
PLUGIN = '''
from alignzoo import DataSource, Field, Objective, hookimpl

class Drawn(DataSource):
    """Rows that a run draws."""
    name = "drawn"
    needs_runs = ("from", "rewards")
    from_: str = Field(alias="from")
    rewards: str | None = None

class Critic(Objective):
    """A loss with a critic."""
    name = "critic"
    needs_runs = ("critic",)
    critic: str
    lambda_: float = Field(1.0, gt=0, alias="lambda")
    def loss(self, pair):
        return -pair.margin

@hookimpl
def register_data_sources():
    return [Drawn]

@hookimpl
def register_objectives():
    return [Critic]
'''
FIRST = {
    "objective": "sft", "data": {"name": "hh"},
    "model": {"config": {"model_type": "llama"}, "tokenizer": {"train": "bytes"}},
    "train": {"batch_size": 4, "optimizer": {"name": "sgd", "learning_rate": 1e-3}},
}  # fmt: skip
TOP = FIRST | {
    "plugins": ["mine.py"], "objective": {"name": "critic", "critic": "critic.yaml"}, "model": {"from": "sft.yaml"},
    "data": {"name": "drawn", "from": "sft.yaml", "rewards": "reward.yaml"},
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)

    def go(name: str, recipe: dict) -> str:
        (tmp_path / name).write_text(yaml.safe_dump(recipe))
        return str(tmp_path / name)

    go("sft.yaml", FIRST)
    go("reward.yaml", FIRST | {"objective": "dpo"})
    go("critic.yaml", FIRST | {"seed": 9})
    return go


def test_every_field_that_names_a_recipe_is_a_needed_run(write, tmp_path):
    resolved = load_recipe(write("top.yaml", TOP))
    found = {key: need.recipe.name for key, need in resolved.needs.items()}
    assert found == {"model.from": "sft", "data.from": "sft", "data.rewards": "reward", "objective.critic": "critic"}
    assert resolved.start is resolved.needs["model.from"]
    assert resolved.needs["data.from"].fingerprint == resolved.start.fingerprint, "one run under two keys"
    two = write("two.yaml", TOP | {"objective": ["dpo", {"name": "critic", "critic": "critic.yaml"}]})
    assert "objective.1.critic" in load_recipe(two).needs


def test_each_needed_run_is_part_of_the_fingerprint_and_its_path_is_not(write, tmp_path):
    top = write("top.yaml", TOP)
    first = load_recipe(top)
    for name in ("sft.yaml", "reward.yaml", "critic.yaml"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "seed: 77\n" if "seed" not in text else text.replace("9", "77"))
        changed = load_recipe(top)
        assert changed.fingerprint != first.fingerprint, name
        assert (changed.data_fingerprint == first.data_fingerprint) is (name == "critic.yaml")
        (tmp_path / name).write_text(text)
    (tmp_path / "reward.yaml").rename(tmp_path / "moved.yaml")
    moved = TOP | {"data": TOP["data"] | {"rewards": "moved.yaml"}}
    (tmp_path / "moved.yaml").write_text((tmp_path / "moved.yaml").read_text() + "name: reward\n")
    assert load_recipe(write("top.yaml", moved)).fingerprint == first.fingerprint


def test_modifiers_hide_neither_a_needed_run_nor_a_field_with_an_alias(write, tmp_path):
    critic = {"name": "critic", "critic": "critic.yaml", "lambda": 2.0, "modifiers": ["margin"]}
    first = load_recipe(write("top.yaml", TOP | {"objective": critic}))
    assert "objective.critic" in first.needs
    assert first.plain["objective"]["lambda"] == 2.0
    (tmp_path / "critic.yaml").rename(tmp_path / "moved.yaml")
    (tmp_path / "moved.yaml").write_text((tmp_path / "moved.yaml").read_text() + "name: critic\n")
    moved = load_recipe(write("top.yaml", TOP | {"objective": critic | {"critic": "moved.yaml"}}))
    assert moved.fingerprint == first.fingerprint, "the path of a needed run is not part of the fingerprint"
    listed = load_recipe(write("one.yaml", TOP | {"objective": [critic | {"critic": "moved.yaml"}]}))
    assert "objective.0.critic" in listed.needs, "a list of one objective needs its run too"


def test_every_needed_run_inherits_by_the_same_rule(write):
    overlay = write("overlay.yaml", {"train": {"batch_size": 2}, "objective": "dpo", "data": {"label_noise": 0.5}})
    words = ["tokens.max_length=300", "train.max_steps=5", "data.label_noise_seed=4", "model.path=org/name"]
    top = write("top.yaml", TOP | {"data": "hh", "objective": {"name": "critic", "critic": "critic.yaml"}})
    resolved = load_recipe(top, words, [overlay])
    assert resolved.recipe.objective.name == "dpo"
    for key, need in load_recipe(top, words, [write("overlay.yaml", {"train": {"batch_size": 2}})]).needs.items():
        assert need.recipe.train.batch_size == 2, key
        assert need.recipe.tokens.max_length == 300, key
        assert need.recipe.train.max_steps is None, key
        assert need.recipe.model.path == "org/name", key
        assert (need.recipe.data.label_noise, need.recipe.data.label_noise_seed) == (0, 0), key
        assert need.recipe.objective.name == "sft", key


def test_the_label_noise_of_a_mixtures_sources_is_not_inherited(write):
    """As that of the mixture: in an overlay, as an override, and within one."""
    noisy = {"name": "hh", "as": "a", "label_noise": 0.5}
    mixture = {"name": "mix", "of": [{"name": "hh", "as": "a"}, {"name": "toy"}]}
    write("start.yaml", {"objective": "sft", "data": mixture, "model": {"path": "org/name"}, **TRAIN})
    top = write("mixed.yaml", {"objective": "dpo", "data": mixture, "model": {"from": "start.yaml"}, **TRAIN})
    overlay = write("noisy.yaml", {"data": {"of": [noisy, {"name": "toy"}]}})
    for words, overlays in (
        (["data.of.0.label_noise=0.5"], []),
        (["data.of=[{name: hh, as: a, label_noise: 0.5}, toy]"], []),
        ([], [overlay]),
    ):
        resolved = load_recipe(top, words, overlays)
        assert [part.label_noise for part in resolved.recipe.data.of] == [0.5, 0]
        assert [part.label_noise for part in resolved.start.recipe.data.of] == [0, 0]


def test_a_key_that_a_needed_run_has_no_field_for_names_its_recipe(write):
    write("start.yaml", {"objective": "sft", "data": "hh", "model": {"path": "org/name"}, **TRAIN})
    top = write("mixed.yaml", {"objective": "dpo", "data": {"name": "mix", "of": ["hh", "toy"]},
                               "model": {"from": "start.yaml"}, **TRAIN})  # fmt: skip
    with pytest.raises(
        UserError, match=r"data\.weights: no such field[^\n]*\n    in start\.yaml, whose run mixed\.yaml needs"
    ):
        load_recipe(top, ["data.weights=[1,1]"])


def test_a_resolved_recipe_names_each_needed_run_where_it_is(write):
    resolved = load_recipe(write("top.yaml", TOP))
    places = {key: f"../{need.recipe.name}/recipe.yaml" for key, need in resolved.needs.items()}
    plain = yaml.safe_load(resolved.to_yaml(places))
    assert plain["data"]["rewards"] == "../reward/recipe.yaml"
    assert plain["model"]["from"] == plain["data"]["from"] == "../sft/recipe.yaml"
    assert plain["objective"]["critic"] == "../critic/recipe.yaml"


def test_a_cycle_through_any_key_is_an_error(write):
    write("critic.yaml", TOP | {"objective": "dpo", "data": {"name": "drawn", "from": "top.yaml"}})
    with pytest.raises(UserError, match=r"in a circle: top\.yaml -> critic\.yaml -> top\.yaml"):
        load_recipe(write("top.yaml", TOP))
