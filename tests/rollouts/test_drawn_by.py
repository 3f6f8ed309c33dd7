"""Draws of the reference beside those of the policy, as an objective declares them."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
import torch
from architectures import FOREST, VOCABULARY, build
from online_zoo import ONLINE

from alignzoo.interfaces.declared import NotDeclared
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws, draw
from alignzoo.rollouts.drawn_by import draw_all, drawers, flags
from alignzoo.rollouts.rewards import Judged
from alignzoo.rollouts.select import select
from alignzoo.scoring.scorer import Scorer
from alignzoo.testing.synthetic_batch import batch_for

XPO = ONLINE["xpo"]
CONFIG = RolloutConfig(completions=2, max_new_tokens=6)
PROMPTS = [np.random.default_rng(n).integers(1, VOCABULARY, 5 + n).astype(np.int32) for n in (1, 2)]


class Letters:
    """The least of a tokenizer that the sampler reads."""

    eos_token_id = 0
    name_or_path = "letters"
    added_tokens_decoder = MappingProxyType({})


@pytest.fixture(scope="module")
def models():
    with torch.no_grad():
        return [Scorer(build(FOREST["llama"](), seed=seed).double()) for seed in (0, 1)]


def test_each_draw_is_of_the_model_that_is_declared(models):
    """As if each model had drawn alone, with the random numbers of the draw's place."""
    policy, reference = models
    rows = [0, 1]
    found = draw_all(policy, reference, XPO(), Letters(), PROMPTS, rows, CONFIG, seed=0, rollout=3)
    for number, scorer in enumerate((policy, reference)):
        alone = draw(scorer.model, Letters(), PROMPTS, rows, CONFIG, seed=0, rollout=3, numbers=[number])
        for b in rows:
            assert found[2 * b + number].tolist() == alone[b].tolist()
            assert found.log_prob[2 * b + number] == alone.log_prob[b]
    assert found[0].tolist() != found[1].tolist()


def test_a_reference_with_more_logits_draws_no_token_that_the_policy_lacks(models):
    """The rows past the policy's have all the mass, and are left out of draws and of mixtures."""
    policy, wide = models[0], build(FOREST["llama"](), seed=1).double()
    wide.resize_token_embeddings(VOCABULARY + 8)
    with torch.no_grad():
        wide.get_output_embeddings().weight[VOCABULARY:] = 100 * wide.get_output_embeddings().weight[:8].abs()
    asked = (Letters(), PROMPTS, [0, 1], CONFIG)
    for cls in (XPO, ONLINE["nash_md"]):
        found = draw_all(policy, Scorer(wide), cls(), *asked, seed=0, rollout=3)
        assert max(int(one.max()) for one in found) < VOCABULARY
        assert np.isfinite(found.log_prob).all()


def test_all_draws_are_the_policys_unless_something_else_is_declared(models):
    policy, reference = models
    assert drawers(DPO(), CONFIG) == ("policy", "policy")
    found = draw_all(policy, reference, DPO(), Letters(), PROMPTS, [0, 1], CONFIG, seed=0, rollout=0)
    want = draw(policy.model, Letters(), PROMPTS, [0, 1], CONFIG, seed=0, rollout=0)
    assert [one.tolist() for one in found] == [one.tolist() for one in want]
    assert flags(DPO(), 2) == {}


def test_a_pair_knows_which_of_its_draws_is_the_references():
    draws = Draws(np.array([1, 2, 3, 4], np.int32), np.arange(5), np.ones(4, bool), np.zeros(4))
    judged = Judged(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((2, 2), bool))
    prompts = [np.array([7], np.int32), np.array([8], np.int32)]
    found = select(XPO(), CONFIG, ["a", "b"], prompts, draws, judged, 16)
    assert [[branch.tokens.tolist() for branch in tree.branches] for tree in found.trees] == [[[1], [2]], [[4], [3]]]
    assert found.trees.columns["by_reference"].tolist() == [0, 1, 1, 0]
    assert found.trees.columns["by_policy"].tolist() == [1, 0, 0, 1]


def test_what_has_drawn_is_read_only_where_it_is_declared():
    pair = batch_for(XPO()).example
    assert (pair.chosen.drawn_by("reference") ^ pair.rejected.drawn_by("reference")).all()
    assert pair.chosen.drawn_by("reference").any()
    assert not pair.chosen.drawn_by("reference").all()
    with pytest.raises(NotDeclared, match="the draws of the reference"):
        batch_for(DPO()).example.chosen.drawn_by("reference")
