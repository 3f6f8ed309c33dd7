"""benchmarks/ppo_critic.py at its smallest: figures of a critic fitted to draws of a policy that stays the start."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkout import ROOT
from rollout_runs import lines

from alignzoo import actor_critic as ac

sys.path.append(str(ROOT / "benchmarks"))  # after tests/, which has modules of the same names

import ppo_critic

SMALL = (
    "train.batch_size=4", "rollout.prompts=8", "rollout.epochs=2", "rollout.completions=4", "rollout.max_new_tokens=8",
    "rollout.rewards=[vowels]", "eval.replies.num_prompts=0", "critic={learning_rate: 3e-2}",
)  # fmt: skip


def test_the_share_between_prompts_is_that_of_a_random_effect():
    rng = np.random.default_rng(0)
    rewards = (rng.normal(0, 1, (4000, 1)) + rng.normal(0, 2, (4000, 4))).ravel()
    assert ppo_critic.between_prompts(rewards, 4) == pytest.approx(0.2, abs=0.02)
    assert ppo_critic.between_prompts(rng.normal(0, 1, 16000), 4) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_returns_of_gae_are_those_of_the_library(lam):
    rng = np.random.default_rng(1)
    lengths = [3, 1, 4]
    sequence, position = (torch.tensor([n for n, k in enumerate(lengths) for _ in range(k)]),
                          torch.tensor([t for k in lengths for t in range(k)]))  # fmt: skip
    tokens = SimpleNamespace(sequence=sequence, position=position, shape=(1, 3))
    value, reward = rng.normal(size=8), np.repeat(rng.normal(size=3), lengths)
    last = np.isin(np.arange(8), np.cumsum(lengths) - 1)
    given = ac.at_last_token(tokens, torch.from_numpy(reward[last][None]))
    want = ac.gae(tokens, given, torch.from_numpy(value), 1.0, lam).numpy() + value
    assert ppo_critic.gae_returns(value, reward, last, lam) == pytest.approx(want, abs=1e-12)
    assert lam < 1 or want == pytest.approx(reward, abs=1e-12)


@pytest.mark.slow
def test_a_small_fit_learns_and_its_page_has_the_figures(home, plugins):
    run = ppo_critic.fit(3, 16, plugins, SMALL, ["tests/smallest.yaml"])
    found = ppo_critic.measure(run)
    rollouts = lines(run, "rollout")
    assert found["rollouts"] == len(rollouts) == 4
    assert found["by_rollout"] == pytest.approx([line["explained_variance"] for line in rollouts], abs=1e-6)
    assert found["after"] == found["by_rollout"][-1] > found["before"]
    assert found["draws"] == 32
    assert 0 <= found["between"] < 1
    text = ppo_critic.page([found], "the command")
    assert f"**{found['after']:.3f}**" in text
    assert ("passes" if found["after"] > 0.5 else "fails") in text
    words = (*SMALL, "train.optimizer.learning_rate=1e-3")
    moved = ppo_critic.fit(3, 4, plugins, words, ["tests/smallest.yaml"])
    with pytest.raises(SystemExit, match="the policy has moved"):
        ppo_critic.measure(moved)
