"""Advantages, whitening, value loss and KL coefficient against loops in float64, polgrad, and recorded peers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from alignzoo import actor_critic as ac
from alignzoo import policy_gradient as pg
from alignzoo.testing import completions

LENGTHS = [3, 1, 5, 2]
TOTAL = sum(LENGTHS)
ENDS = [2, 3, 8, 10]
RECORD = json.loads((Path(__file__).parents[1] / "objectives" / "peer_ppo.json").read_text())


def tokens(lengths=LENGTHS, shape=None):
    return completions([[-1.0] * n for n in lengths], shape=shape).tokens


def random(seed: int, size: int = TOTAL) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gae_by_definition(rewards, values, gamma, lam, after=0.0):
    """A_t = sum_l (gamma lam)^l delta_{t+l}, one completion in plain numbers."""
    values = [*values, after]
    deltas = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [math.fsum((gamma * lam) ** n * delta for n, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


@pytest.mark.parametrize("after", [None, [0.0, 1.5, -2.0, 0.25]])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.97, 0.0)])
def test_gae_is_the_sum_of_discounted_errors(gamma, lam, after):
    reward, value = random(0), random(1)
    last = None if after is None else torch.tensor(after).reshape(2, 2)
    found = ac.gae(tokens(shape=(2, 2)), reward, value, gamma, lam, last)
    want = []
    for i, n in enumerate(LENGTHS):
        own = slice(ENDS[i] - n + 1, ENDS[i] + 1)
        want += gae_by_definition(reward[own].tolist(), value[own].tolist(), gamma, lam, after[i] if after else 0.0)
    assert found.tolist() == pytest.approx(want, rel=1e-12, abs=1e-14)


def test_with_gamma_and_lambda_1_advantages_are_rewards_to_go_minus_values():
    reward, value = random(0), random(1)
    found = ac.gae(tokens(), reward, value, 1.0, 1.0) + value
    want = torch.cat([one.flip(0).cumsum(0).flip(0) for one in reward.split(LENGTHS)])
    assert torch.allclose(found, want, rtol=1e-12)


def test_a_completion_does_not_see_the_next_one():
    reward, value = random(0), random(1)
    changed = torch.cat([reward[:4], reward[4:] + 7])
    one, two = (ac.gae(tokens(), r, value, 0.9, 0.9) for r in (reward, changed))
    assert torch.equal(one[:4], two[:4])
    assert not torch.equal(one[4:], two[4:])


def test_a_reward_of_a_completion_is_at_its_last_token():
    found = ac.at_last_token(tokens(shape=(2, 2)), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert found.nonzero()[:, 0].tolist() == ENDS
    assert found[ENDS].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_whitening_is_over_kept_values():
    values, kept = random(2), torch.arange(TOTAL) % 3 != 1
    own = values[kept]
    want = (own - own.mean()) / (own.var() + 1e-8).sqrt()
    found = ac.whiten(values, kept)
    assert torch.allclose(found[kept], want, rtol=1e-12)
    assert not found[~kept].any()
    assert torch.allclose(ac.whiten(values.where(kept, 1e6), kept), found, rtol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_values_are_whitened_to_0(count):
    assert not ac.whiten(random(2), torch.arange(TOTAL) < count).any()


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope"),
    [
        (1.1, 1.0, 3.0, 0.2, 1.9**2 / 2, -1.9),
        (1.5, 1.0, 3.0, 0.2, 1.8**2 / 2, 0.0),  # beyond the clip, towards the target: no gradient
        (0.5, 1.0, 3.0, 0.2, 2.5**2 / 2, -2.5),  # beyond it, away from the target
        (1.5, 1.0, 3.0, None, 1.5**2 / 2, -1.5),
        (0.5, 1.0, -2.0, 0.2, 2.8**2 / 2, 0.0),
    ],
)
def test_the_value_loss_has_its_gradient_where_it_should(value, old, target, clip, loss, slope):
    leaf = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    found = ac.clipped_value_loss(leaf, *(torch.tensor(x, dtype=torch.float64) for x in (old, target)), clip)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert torch.autograd.grad(found, leaf)[0].item() == pytest.approx(slope, rel=1e-12)


def test_the_dual_clip_bounds_losses_of_negative_advantages_alone():
    ratio, advantage = torch.tensor([9.0, 1.0, 9.0, 0.1]), torch.tensor([-2.0, -2.0, 2.0, 2.0])
    loss = pg.clipped(ratio, advantage, 0.2, 0.2)
    assert ac.dual_clip(loss, advantage, 3.0).tolist() == [6.0, 2.0, *loss[2:].tolist()]


@pytest.mark.parametrize("peer", ["verl", "openrlhf"])
def test_the_coefficient_adapts_as_in_peers(peer):
    about = RECORD["coefficient"]
    beta, found = about["start"], []
    for kl, draws in about["rollouts"]:
        beta = ac.adapted_coefficient(beta, kl, about["target"], draws, about["horizon"])
        found.append(beta)
    assert found == pytest.approx(about["after"][peer], rel=1e-12)


@pytest.mark.parametrize("draws", [100, 600, 10_000])
def test_a_rollout_beyond_the_horizon_changes_no_sign(draws):
    """One step is at most a fifth: at 600 draws of a horizon of 100, 1 - 0.2 * 6 would be below 0."""
    assert ac.adapted_coefficient(0.05, 0.0, 1.0, draws, 100) == pytest.approx(0.04, rel=1e-12)
    assert ac.adapted_coefficient(0.05, 9.0, 1.0, draws, 100) == pytest.approx(0.06, rel=1e-12)


def test_explained_variance_is_1_for_the_target_0_for_a_constant_and_nan_without_spread():
    target = random(3)
    assert ac.explained_variance(target + 5, target).item() == pytest.approx(1.0)
    assert ac.explained_variance(torch.full_like(target, 2.0), target).item() == pytest.approx(0.0)
    assert ac.explained_variance(-target, target).item() == pytest.approx(-3.0)
    assert ac.explained_variance(target, torch.ones_like(target)).isnan()


WHITENED = 1e-8
"""verl adds 1e-8 to the number of tokens that it divides by."""


def flat(values) -> list[float]:
    return [x for row in values for y in row for x in y]


def tensor(values) -> torch.Tensor:
    return torch.tensor(flat(values), dtype=torch.float64)


@pytest.mark.parametrize("name", RECORD["results"])
def test_advantages_losses_and_gradients_are_those_of_peers(name):
    given, theirs = (
        {k: tensor(v) for k, v in RECORD["input"].items() if k not in ("beta", "reward")},
        RECORD["results"][name],
    )
    lengths = [len(y) for row in RECORD["input"]["old"] for y in row]
    reward = torch.tensor(RECORD["input"]["reward"], dtype=torch.float64)
    seen = tokens(lengths, shape=tuple(reward.shape))
    limit = theirs.get("reward_clip", math.inf)
    rewards = ac.at_last_token(seen, reward.clamp(-limit, limit)) - RECORD["input"]["beta"] * (
        given["old"] - given["ref"]
    )
    assert rewards.tolist() == pytest.approx(flat(theirs["rewards"]), rel=1e-12, abs=1e-12)
    advantage = ac.gae(seen, rewards, given["value_old"], theirs["gamma"], theirs["lam"])
    assert (advantage + given["value_old"]).tolist() == pytest.approx(flat(theirs["returns"]), rel=1e-12, abs=1e-12)
    target = advantage + given["value_old"]
    near = 1e-12
    if "whitened" in theirs:
        near = WHITENED
        advantage = ac.whiten(advantage, torch.ones(len(advantage), dtype=torch.bool))
    assert advantage.tolist() == pytest.approx(
        flat(theirs.get("whitened") or theirs["advantages"]), rel=near, abs=1e-12
    )
    new, value = (given[key].clone().requires_grad_() for key in ("new", "value"))
    loss = pg.clipped((new - given["old"]).exp(), advantage, theirs["clip"], theirs["clip"])
    if theirs["dual_clip"]:
        loss = ac.dual_clip(loss, advantage, theirs["dual_clip"])
    values = ac.clipped_value_loss(value, given["value_old"], target, theirs["value_clip"])
    for mine, leaf, key in ((loss.mean(), new, "policy"), (values.mean(), value, "value")):
        assert mine.item() == pytest.approx(theirs[f"{key}_loss"], rel=near)
        (gradient,) = torch.autograd.grad(mine, leaf)
        assert gradient.tolist() == pytest.approx(flat(theirs[f"{key}_gradient"]), rel=near, abs=1e-15)


def test_gae_whitening_and_value_loss_are_those_of_polgrad():
    polgrad = pytest.importorskip("polgrad")
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]

    def padded(values):
        return torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, values)

    reward, value, new = random(0), random(1), random(4).requires_grad_()
    config = polgrad.GAEConfig(gamma=0.98, lam=0.9)
    advantage, returns = polgrad.gae(padded(reward), padded(value), config=config, response_mask=mask)
    mine = ac.gae(tokens(), reward, value, 0.98, 0.9)
    everything = torch.ones(TOTAL, dtype=torch.bool)
    assert torch.allclose(mine, advantage[mask], rtol=1e-12)
    assert torch.allclose(ac.whiten(mine, everything), polgrad.whiten(advantage, mask)[mask], rtol=1e-12)
    theirs = polgrad.value_loss(
        padded(new), padded(value), returns, mask, clip_eps=0.3, aggregation=polgrad.Aggregation.TOKEN_MEAN
    ).loss
    ours = ac.clipped_value_loss(new, value, mine + value, 0.3).mean()
    gradients = [torch.autograd.grad(one, new)[0] for one in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert torch.allclose(*gradients, rtol=1e-12)
