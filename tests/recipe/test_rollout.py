"""Contradictions of the section `rollout` are found when the recipe is read, at their keys."""

from __future__ import annotations

import pytest
from checkout import ROOT

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.preflight import preflight

TOY = {"rewards": ["toy"]}
DPO = "dpo_hh"


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> dict:
    """An override that loads the objectives on groups."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "alignzoo-online"))
    (tmp_path / "groups.py").write_text("from alignzoo_online import register_objectives\n")
    return {"plugins": [str(tmp_path / "groups.py")]}


def problem(overrides: dict, recipe: str = DPO) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(recipe, overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        ({}, "rollout.rewards: missing"),
        ({"rewards": []}, "rollout.rewards: an empty list; expected at least one judge"),
        ({"rewards": ["toys"]}, "rollout.rewards.0.name: no judge is called 'toys'; did you mean 'toy'?"),
        (
            {"rewards": [{"name": "toy", "weigth": 2}]},
            "rollout.rewards.0.weigth: no such field; did you mean 'weight'?",
        ),
        ({"rewards": [{"name": "toy", "clip": 0}]}, "rollout.rewards.0.clip: "),
        (
            {"rewards": [{"name": "toy", "normalize": "groups"}]},
            "rollout.rewards.0.normalize: ",
        ),
        ({"rewards": [{"name": "toy", "weight": 0}]}, "rollout.rewards: every weight is 0"),
        (
            TOY | {"completions": 1},
            "rollout.completions: dpo compares the completions of a prompt; expected at least 2",
        ),
        (TOY | {"labels": 0.5}, "rollout.labels: dpo does not learn from labels; expected no such key"),
        (TOY | {"prompts": 24}, "rollout.prompts: 24 prompts are no multiple of train.batch_size, 16"),
        (TOY | {"penalty": 2}, "rollout.penalty: it has no effect; expected unfinished: penalty"),
        (TOY | {"max_new_tokens": 512}, "rollout.max_new_tokens: it leaves no room for a prompt"),
        (TOY | {"temperature": 0}, "rollout.temperature: "),
        (TOY | {"complations": 4}, "rollout.complations: no such field; did you mean 'completions'?"),
    ],
)
def test_a_contradiction_is_named_at_its_key(rollout, words):
    assert words in problem({"rollout": rollout})


def test_contradictions_with_other_sections():
    assert "data.label_noise: labels are the rewards' own" in problem({"rollout": TOY, "data.label_noise": 0.1})
    assert "data.train_on: 'all' leaves no prompts" in problem({"rollout": TOY, "data.train_on": "all"})
    assert "train.compile: completions are drawn by" in problem({"rollout": TOY, "train.compile": True})
    chat = {"rollout": {"rewards": [{"name": "chat", "model": "judge"}]}}
    assert "rollout.rewards.0: chat compares replies and gives no scores" in problem(chat)


def test_a_column_that_draws_do_not_have_is_an_error(tmp_path):
    (tmp_path / "own.py").write_text(
        "from alignzoo import Objective, hookimpl\n\nclass Spaced(Objective):\n    'A loss with a margin.'\n"
        "    name = 'spaced'\n    columns = ('margin',)\n    def loss(self, pair):\n"
        "        return -(pair.margin - pair.column('margin'))\n\n@hookimpl\ndef register_objectives():\n    return [Spaced]\n"
    )
    own = {"plugins": [str(tmp_path / "own.py")], "objective": "spaced", "rollout": TOY}
    assert "objective: spaced needs the column 'margin', which draws do not have" in problem(own)


def test_a_judge_that_is_not_ready_is_named_at_its_reward():
    rewards = ["toy", {"name": "classifier", "path": "./nowhere"}]
    with pytest.raises(UserError, match=r"^rollout\.rewards\.1: path: no such folder"):
        preflight(load_recipe(DPO, {"rollout": {"rewards": rewards}}))


def test_a_filter_whose_metric_is_not_there_has_one_problem():
    assert problem({"filter": {"metric": "cess", "keep": 0.5}}).count("\n") == 0


def test_groups_need_draws_from_the_whole_distribution(plugin):
    grpo = plugin | {"objective": "grpo"}
    assert "objective: grpo learns from draws; expected a section `rollout` with `rewards`" in problem(grpo)
    assert "rollout.top_p: grpo needs draws from the policy's whole distribution; expected 1.0" in problem(
        grpo | {"rollout": TOY | {"top_p": 0.9}}
    )
    assert "rollout.completions: rloo compares the completions" in problem(
        plugin | {"objective": "rloo", "rollout": TOY | {"completions": 1}}
    )
    assert "rollout.pairs: grpo does not learn from pairs" in problem(grpo | {"rollout": TOY | {"pairs": "all"}})
    assert "eval.metrics: grpo is evaluated on draws" in problem(
        grpo | {"rollout": TOY, "eval.metrics": [{"name": "entropy"}]}
    )
    assert "learns from groups of draws, and can't be a term of a sum" in problem(
        plugin | {"objective": [{"name": "grpo"}, {"name": "sft"}], "rollout": TOY}
    )
    load_recipe(DPO, plugin | {"objective": "reinforce", "rollout": TOY | {"completions": 1}})
    load_recipe(DPO, {"rollout": TOY | {"top_p": 0.9}})  # pairs may be of any draws


def test_a_normalized_reward_needs_a_group(plugin):
    one = {"rewards": [{"name": "toy", "normalize": "group"}]}
    assert "rollout.rewards.0.normalize: a prompt has one completion; expected completions of at least 2" in problem(
        plugin | {"objective": "reinforce", "rollout": one | {"completions": 1}}
    )
    assert "rollout.rewards.0.normalize: remax compares with the reward of the greedy completion" in problem(
        plugin | {"objective": "remax", "rollout": one}
    )


def test_a_resolved_recipe_reads_back_as_itself(tmp_path):
    rollout = {"rewards": [{"name": "toy", "weight": 2.0, "clip": 1.5}], "unfinished": "penalty", "penalty": 0.5}
    one = load_recipe(DPO, {"rollout": rollout})
    (tmp_path / "again.yaml").write_text(one.to_yaml({"model.from": str(ROOT / "recipes" / "sft_hh.yaml")}))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.recipe.rollout == one.recipe.rollout
    assert again.fingerprint == one.fingerprint


def test_the_fingerprint_has_the_section_and_is_as_before_without_it():
    plain, once = load_recipe(DPO), load_recipe(DPO, {"rollout": TOY})
    assert "rollout" not in plain.plain
    twice = load_recipe(DPO, {"rollout": {"rewards": [{"name": "toy", "weight": 2}]}})
    assert len({plain.fingerprint, once.fingerprint, twice.fingerprint}) == 3
    assert once.start.recipe.rollout is None
    assert once.start.fingerprint == plain.start.fingerprint
