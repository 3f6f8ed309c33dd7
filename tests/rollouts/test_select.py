"""Rows of known draws and rewards, by each rule."""

from __future__ import annotations

import numpy as np
import pytest
from zoo import make

from alignzoo.data.trees import Branch
from alignzoo.objectives.composition import Sum
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.rewards import Judged
from alignzoo.rollouts.select import select

PROMPTS = [np.array([7, 8], np.int32), np.array([9], np.int32)]
TOKENS = [[1], [2, 2], [3], [2, 2], [4], [5], [6], [6, 6]]
"""Draws 1 and 3 of the first prompt are equal."""
REWARD = [[0.5, 2.0, -1.0, 2.0], [1.0, 1.0, 1.0, 1.0]]


def chosen(objective, reward=REWARD, kept=None, own=(), **config):
    sizes = [len(tokens) for tokens in TOKENS]
    draws = Draws(
        np.concatenate(TOKENS).astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]), np.ones(8, bool), np.zeros(8)
    )
    kept = np.ones((2, 4), bool) if kept is None else np.array(kept, bool)
    judged = Judged(np.where(kept, np.array(reward, float), 0), kept)
    return select(objective, RolloutConfig(rewards=(), **config), ["a", "b"], PROMPTS, draws, judged, 32, own)


def rows(found) -> list[list[list[int]]]:
    return [[branch.tokens.tolist() for branch in tree.branches] for tree in found.trees]


def test_extremes_are_the_best_and_the_worst_and_ties_make_no_pair():
    found = chosen(make("dpo"))
    assert rows(found) == [[[2, 2], [3]]]
    assert found.rows_of == [[0], []]
    assert found.trees.ids == ["a"]
    assert found.trees[0].prompt.tolist() == [7, 8]
    assert found.trees.columns["score"].tolist() == [2.0, -1.0]


def test_adjacent_and_all_pairs_have_each_draw_once():
    found = chosen(make("dpo"), pairs="adjacent")
    assert rows(found) == [[[2, 2], [1]], [[1], [3]]]
    assert found.trees.ids == ["a/0", "a/1"]
    assert rows(chosen(make("dpo"), pairs="all")) == [[[2, 2], [1]], [[2, 2], [3]], [[1], [3]]]


def test_what_is_not_kept_is_nowhere():
    kept = [[1, 0, 1, 0], [1, 1, 1, 1]]
    assert rows(chosen(make("dpo"), kept=kept)) == [[[1], [3]]]
    assert rows(chosen(make("sft"), kept=[[0] * 4, [1] * 4])) == [[[4]]]
    assert chosen(make("dpo"), kept=np.zeros((2, 4))).rows_of == [[], []]


def test_the_best_of_n_is_one_completion_of_each_prompt():
    found = chosen(make("sft"))
    assert rows(found) == [[[2, 2]], [[4]]]
    assert found.rows_of == [[0], [1]]


def test_labels_are_by_the_mean_or_by_a_number():
    found = chosen(make("apo_zero_unpaired"))
    assert found.rows_of == [[0, 1, 2, 3], []]
    assert found.trees.columns["desirable"].tolist() == [1.0, 1.0, 0.0, 0.0]
    found = chosen(make("apo_zero_unpaired"), [[1.0, 1.2, 0.0, 1.2], [1.0] * 4])
    assert rows(found)[2] == [[1]]
    assert found.trees.columns["desirable"].tolist() == [1, 1, 1, 0]  # all four have the mean 0.85
    found = chosen(make("kto"), labels=0.7)
    assert found.trees.mismatched
    own = found.trees.columns["desirable"]
    assert own[~np.isnan(own)].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert chosen(make("kto")).rows_of == [[], []]  # a single prompt has no completion of another one


def test_mismatched_completions_are_every_draw_of_the_next_prompt():
    """Not its best draw alone: KTO's estimate of the KL divergence is over draws of the policy."""
    trees = chosen(make("kto"), [[0.5, 2.0, -1.0, 3.0], [1.0, 4.0, 3.0, 2.0]], labels=0.7).trees
    mismatched = [tree.branches[1].tokens.tolist() for tree in trees]
    assert mismatched == [[5], [6], [6, 6], [4], [2, 2], [2, 2], [1], [3]]


def test_lists_are_best_first():
    found = chosen(make("pl_dpo"))
    assert rows(found) == [[[2, 2], [1], [3]]]
    assert found.trees.columns["score"].tolist() == [2.0, 0.5, -1.0]


def test_a_sum_has_the_rows_of_its_most_demanding_term():
    both = Sum(parts=(make("dpo"), make("sft")), weights=(1.0, 0.2))
    assert rows(chosen(both)) == [[[2, 2], [3]]]


def test_groups_keep_every_draw_in_its_order():
    from online_zoo import ONLINE

    kept = [[1, 1, 0, 1], [1, 1, 1, 1]]
    found = chosen(ONLINE["grpo"](), kept=kept)
    assert rows(found) == [TOKENS[:4], TOKENS[4:]]
    assert found.rows_of == [[0], [1]]
    assert found.trees.columns["kept"].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert found.trees.columns["reward"].tolist() == [0.5, 2.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("rule", ["extremes", "adjacent", "all"])
def test_equal_draws_of_different_rewards_form_no_pair(rule):
    """A judge with noise may say so."""
    noisy = [[0.0, 2.0, 0.0, 1.0], [1.0] * 4]
    for better, worse in rows(chosen(make("dpo"), noisy, kept=[[0, 1, 0, 1], [1] * 4], pairs=rule)):
        assert better != worse


def test_the_datas_completion_is_preferred_to_each_draw_that_differs():
    own = [Branch(np.array([2, 2], np.int32)), Branch(np.array([8, 8], np.int32))]
    kept = [[1, 1, 1, 1], [1, 0, 1, 1]]
    found = chosen(make("dpo"), kept=kept, own=own, pairs="data")
    assert rows(found) == [[[2, 2], [1]], [[2, 2], [3]], [[8, 8], [4]], [[8, 8], [6]], [[8, 8], [6, 6]]]
    assert found.rows_of == [[0, 1], [2, 3, 4]]
    assert found.trees.ids == ["a/0", "a/1", "b/0", "b/1", "b/2"]
    assert np.isnan(found.trees.columns["score"][::2]).all()
