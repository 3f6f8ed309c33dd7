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
        (
            TOY | {"pairs": "data", "max_attempts": 2},
            "rollout.max_attempts: pairs: data learns from draws of equal rewards",
        ),
        (TOY | {"complations": 4}, "rollout.complations: no such field; did you mean 'completions'?"),
    ],
)
def test_a_contradiction_is_named_at_its_key(rollout, words):
    assert words in problem({"rollout": rollout})


def test_contradictions_with_other_sections():
    assert "data.label_noise: labels are the rewards' own" in problem({"rollout": TOY, "data.label_noise": 0.1})
    assert "data.train_on: 'all' leaves no prompts" in problem({"rollout": TOY, "data.train_on": "all"})
    assert "train.compile: completions are drawn by" in problem({"rollout": TOY, "train.compile": True})
    start = {"rollout": TOY | {"prompts": "all", "epochs": 2}}
    assert "train.epochs: with rollout.prompts=all every completion is of the start" in problem(start)
    load_recipe(DPO, start | {"train.epochs": 1})
    chat = {"rewards": [{"name": "chat", "model": "judge"}]}
    alone = {"pairs": "data", "completions": 1}
    assert "rollout.rewards.0: chat compares replies and gives no scores" in problem({"rollout": chat | alone})
    load_recipe(DPO, {"rollout": chat})


def test_a_column_that_draws_do_not_have_is_an_error(tmp_path):
    (tmp_path / "own.py").write_text(
        "from alignzoo import Objective, hookimpl\n\nclass Spaced(Objective):\n    'A loss with a margin.'\n"
        "    name = 'spaced'\n    columns = ('margin',)\n    def loss(self, pair):\n"
        "        return -(pair.margin - pair.column('margin'))\n\n@hookimpl\ndef register_objectives():\n    return [Spaced]\n"
    )
    own = {"plugins": [str(tmp_path / "own.py")], "objective": "spaced", "rollout": TOY}
    assert "objective: spaced needs the column 'margin', which draws do not have" in problem(own)


def test_an_objective_on_a_given_answer_needs_that_of_the_data(tmp_path, monkeypatch):
    """Of two draws none is the teacher's."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "alignzoo-distill"))
    (tmp_path / "distill.py").write_text("from alignzoo_distill import register_objectives\n")
    teacher = {"references": {"reference": {"from": str(ROOT / "recipes" / "sft_hh.yaml")}}}
    own = teacher | {"plugins": [str(tmp_path / "distill.py")], "objective": "distillm2"}
    assert "rollout.pairs: distillm2 prefers an answer that is not the policy's own" in problem(own | {"rollout": TOY})
    summed = own | {"objective": [{"name": "dpo"}, {"name": "distillm2"}], "rollout": TOY | {"pairs": "all"}}
    assert "rollout.pairs: distillm2 prefers an answer" in problem(summed)
    load_recipe(DPO, own | {"rollout": {"pairs": "data", "completions": 1}})
    load_recipe(DPO, own)


def test_a_judge_that_is_not_ready_is_named_at_its_reward():
    rewards = ["toy", {"name": "classifier", "path": "./nowhere"}]
    with pytest.raises(UserError, match=r"^rollout\.rewards\.1: path: no such folder"):
        preflight(load_recipe(DPO, {"rollout": {"rewards": rewards}}))


def test_a_filter_whose_metric_is_not_there_has_one_problem():
    assert problem({"filter": {"metric": "cess", "keep": 0.5}}).count("filter") == 1


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
    assert "rollout.max_attempts: a prompt has one completion" in problem(
        plugin | {"objective": "ppo", "rollout": TOY | {"completions": 1, "max_attempts": 2}}
    )
    assert "objective: target_kl multiplies beta" in problem(
        plugin | {"objective": {"name": "ppo", "beta": 0, "target_kl": 6}, "rollout": TOY}
    )


def test_a_start_of_the_critic_replaces_another_one(plugin):
    """As one of the model does; its own keys stay."""
    ppo = plugin | {"objective": "ppo", "rollout": TOY}
    sft = str(ROOT / "recipes" / "sft_hh.yaml")
    one = load_recipe(DPO, ppo | {"critic": {"path": "an/id", "learning_rate": 1e-4}, "critic.from": sft})
    critic = one.recipe.critic
    assert critic is not None
    assert critic.model is not None
    assert (critic.model.path, critic.model.from_, critic.learning_rate) == (None, sft, 1e-4)
    load_recipe(DPO, {"rollout": TOY | {"top_p": 0.9}})  # pairs may be of any draws


def test_a_critic_of_defaults_is_the_run_without_the_section(plugin):
    """Every key that is not its default makes another run, adapters included."""
    ppo = plugin | {"objective": "ppo", "rollout": TOY}

    def found(model: dict, *sections: dict) -> list[str]:
        return [load_recipe(DPO, ppo | model | ({"critic": one} if one else {})).fingerprint for one in sections]

    usual = {"learning_rate": None, "max_grad_norm": 10.0, "lora": None}
    alone, empty, written = (load_recipe(DPO, ppo | one) for one in ({}, {"critic": {}}, {"critic": usual}))
    assert alone.fingerprint == empty.fingerprint == written.fingerprint
    assert written.recipe.critic == empty.recipe.critic != alone.recipe.critic
    others = found(
        {}, {"learning_rate": 1e-4}, {"max_grad_norm": None}, {"from": str(ROOT / "recipes" / "sft_hh.yaml")}
    )
    adapters = found({"model.lora": {"r": 2}}, {}, {"lora": {"r": 2}}, {"lora": {"r": 3}})
    assert len({alone.fingerprint, *others, *adapters}) == 7


def test_a_preference_of_a_judge_that_compares_is_given(plugin):
    nash = plugin | {"rollout": {"rewards": [{"name": "chat", "model": "judge"}], "completions": 2}}
    words = "rollout.rewards.0: chat gives win rates, which are probabilities to be preferred themselves; expected "
    assert words + "objective.preference: given" in problem(nash | {"objective": "nash_md"})
    load_recipe(DPO, nash | {"objective": {"name": "nash_md", "preference": "given"}})


def test_a_normalized_reward_needs_a_group(plugin):
    one = {"rewards": [{"name": "toy", "normalize": "group"}]}
    assert "rollout.rewards.0.normalize: a prompt has one completion; expected completions of at least 2" in problem(
        plugin | {"objective": "reinforce", "rollout": one | {"completions": 1}}
    )
    assert "rollout.rewards.0.normalize: remax compares with the reward of the greedy completion" in problem(
        plugin | {"objective": "remax", "rollout": one}
    )


@pytest.mark.parametrize(
    "rollout",
    [
        {"rewards": [{"name": "toy", "weight": 2.0, "clip": 1.5}], "unfinished": "penalty", "penalty": 0.5},
        {"pairs": "data", "reference": "rollout", "completions": 1},
    ],
)
def test_a_resolved_recipe_reads_back_as_itself(tmp_path, rollout):
    one = load_recipe(DPO, {"rollout": rollout})
    (tmp_path / "again.yaml").write_text(one.to_yaml({"model.from": str(ROOT / "recipes" / "sft_hh.yaml")}))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.recipe.rollout == one.recipe.rollout
    assert again.fingerprint == one.fingerprint


def test_the_sampler_s_batch_is_no_part_of_the_fingerprint():
    small, large = (load_recipe(DPO, {"rollout": TOY | {"batch_tokens": tokens}}) for tokens in (100, 16_384))
    assert small.fingerprint == large.fingerprint == load_recipe(DPO, {"rollout": TOY}).fingerprint
    assert small.plain["rollout"]["batch_tokens"] == 100


def test_the_fingerprint_has_the_section_and_is_as_before_without_it():
    plain, once = load_recipe(DPO), load_recipe(DPO, {"rollout": TOY})
    assert "rollout" not in plain.plain
    twice = load_recipe(DPO, {"rollout": {"rewards": [{"name": "toy", "weight": 2}]}})
    assert len({plain.fingerprint, once.fingerprint, twice.fingerprint}) == 3
    assert once.start.recipe.rollout is None
    assert once.start.fingerprint == plain.start.fingerprint


def test_draws_of_the_reference_need_their_number_and_the_start(plugin):
    xpo = plugin | {"objective": "xpo"}
    assert "objective: xpo learns from draws; expected a section `rollout`" in problem(xpo)
    assert "rollout.completions: of each prompt xpo has one draw of policy, one of reference; expected 2" in problem(
        xpo | {"rollout": TOY | {"completions": 8}}
    )
    two = TOY | {"completions": 2}
    assert "rollout.reference: xpo draws from its reference; expected start" in problem(
        xpo | {"rollout": two | {"reference": "rollout"}}
    )
    assert "rollout.pairs: xpo does not compare the data's completion" in problem(
        xpo | {"rollout": two | {"pairs": "data"}}
    )
    load_recipe(DPO, xpo | {"rollout": two})
    load_recipe(DPO, plugin | {"objective": [{"name": "xpo"}, {"name": "sft", "weight": 0.1}], "rollout": two})


def test_a_reference_that_has_drawn_is_a_frozen_one(plugin):
    moved = {"rollout": TOY | {"reference": "rollout"}}
    load_recipe(DPO, moved)
    assert "rollout.reference: dr_grpo has no reference" in problem(plugin | moved | {"objective": "dr_grpo"})
    for name in ("ppo", "rloo", "reinforce_pp"):  # k1 in the reward alone
        assert (
            f"rollout.reference: {name} compares the policy that has drawn with the reference, which is then"
            in problem(plugin | moved | {"objective": name})
        )
    load_recipe(DPO, plugin | moved | {"objective": "grpo"})  # k3 in the loss, which later updates move
    assert "references.reference: the reference is the policy that has drawn" in problem(
        moved | {"references": {"reference": {"path": "somewhere"}}}
    )


def test_the_datas_own_completion_needs_no_judge():
    load_recipe(DPO, {"rollout": {"pairs": "data", "completions": 1}})
    assert "rollout.pairs: sft does not learn from pairs" in problem(
        {"objective": "sft", "rollout": TOY | {"pairs": "data"}}
    )
    assert "rollout.rewards: an empty list" in problem({"rollout": {"pairs": "data", "rewards": []}})


def test_the_only_draw_of_a_prompt_is_learnt_from_without_a_judge():
    load_recipe(DPO, {"objective": "sft", "rollout": {"completions": 1}})
    assert "rollout.rewards: missing" in problem({"objective": "sft", "rollout": {"completions": 2}})
    assert "rollout.rewards: missing" in problem({"rollout": {"completions": 1}})


def test_prompts_are_drawn_again_only_where_equal_rewards_teach_nothing():
    twice = {"rollout": TOY | {"max_attempts": 2}}
    assert "rollout.max_attempts: sft learns from draws of equal rewards too; expected 1" in problem(
        twice | {"objective": "sft"}
    )
    load_recipe(DPO, twice)
