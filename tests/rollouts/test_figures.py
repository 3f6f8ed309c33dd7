"""Figures of draws that depend on each other, and of policies that have moved since the draws."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from online_zoo import ONLINE

from alignzoo.evaluation.aggregate import standard_error
from alignzoo.evaluation.off_policy import off_policy, shares
from alignzoo.evaluation.row_metrics import step_metrics
from alignzoo.rollouts.figures import divergence_figures
from alignzoo.testing.synthetic_batch import batch_for

VALUES = np.array([0.4, 1.7, -0.3, 2.2])


def test_one_value_a_prompt_is_independent():
    want = statistics.stdev(VALUES) / 2
    assert standard_error(VALUES, np.array([5, 1, 7, 2])) == pytest.approx(want)


def test_a_value_that_is_there_twice_says_nothing_new():
    twice = np.repeat(VALUES, 2)
    want = statistics.stdev(VALUES) / 2
    assert standard_error(twice, np.repeat(np.arange(4), 2)) == pytest.approx(want)
    assert standard_error(twice, np.arange(8)) < 0.8 * want  # as if they were eight prompts
    assert math.isnan(standard_error(twice, np.zeros(8, np.int64)))


@pytest.mark.filterwarnings("error")
def test_no_values_have_no_standard_error_and_no_warning():
    assert math.isnan(standard_error(np.zeros(0), np.zeros(0, np.int64)))


def test_kl_is_clustered_by_prompt_and_left_out_for_a_single_one():
    found = divergence_figures({"kl": np.repeat(VALUES, 2), "prompt": np.repeat(np.arange(4), 2)})
    assert found == {"kl": pytest.approx(1.0), "kl_se": pytest.approx(statistics.stdev(VALUES) / 2)}
    sampled = divergence_figures({"kl_sampled": VALUES, "prompt": np.arange(4)})
    assert sampled["kl_sampled_se"] == pytest.approx(statistics.stdev(VALUES) / 2)
    assert "kl_se" not in divergence_figures({"kl": VALUES, "prompt": np.zeros(4, np.int64)})


def moved(objective, by: float):
    """A batch whose policy has moved since it drew, as in a later update of a rollout; its draws, and its step's figures."""
    batch = batch_for(objective, dtype=torch.float64)
    rng = np.random.default_rng(2)
    apart = torch.from_numpy(rng.uniform(-by, by, len(batch.old_log_prob)))
    batch.old_log_prob = batch.leaves["log_prob"].detach() - apart
    builder, scored = batch._builder, batch.scored_batch()
    builder.recorded = {"old_log_prob": None}
    found = off_policy(builder, scored)
    return batch, apart, shares({name: float(value.sum()) for name, value in found.items()})


@pytest.mark.parametrize(("name", "fields"), [("grpo", {"beta": 0.5}), ("dapo", {}), ("dr_grpo", {})])
def test_the_clipped_share_is_that_of_the_formula_beside_any_penalty(name, fields):
    """A token is clipped where its ratio has left the interval in the direction of its advantage."""
    batch, apart, found = moved(ONLINE[name](**fields), 0.6)
    high = 0.28 if name == "dapo" else 0.2
    kept, group = batch.kept_tokens, batch.example
    advantage = group.token_advantage
    ratio = apart.exp()
    clipped = ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - 0.2))
    want = (clipped & kept).sum() / ((advantage != 0) & kept).sum()
    assert found["clipped"] == pytest.approx(float(want))
    assert 0.1 < found["clipped"] < 0.9


def test_nothing_is_clipped_where_there_is_no_ratio_or_it_is_one():
    assert moved(ONLINE["rloo"](), 0.6)[2]["clipped"] == 0
    assert moved(ONLINE["grpo"](), 0.0)[2] == {"effective_sample_size": pytest.approx(1), "clipped": 0}


def test_the_effective_sample_size_is_kongs():
    batch, apart, found = moved(ONLINE["grpo"](), 0.6)
    lengths = batch._empty.lengths
    weights = [math.exp(part.sum()) for part in np.split(apart.numpy(), np.cumsum(lengths)[:-1])]
    kept = batch.trees.columns["kept"] > 0.5
    own = np.array(weights)[kept]
    assert found["effective_sample_size"] == pytest.approx(own.sum() ** 2 / (len(own) * (own**2).sum()))


def test_the_first_update_has_no_such_figures():
    batch = batch_for(ONLINE["grpo"]())
    assert not {"clipped_tokens", "ratios"} & set(step_metrics(batch._builder, batch.scored_batch()))
    assert shares({"loss": 1.0}) == {"loss": 1.0}
