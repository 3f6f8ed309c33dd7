"""Losses and weights against the papers' formulas, in float64 and absolute values: Adam hides a constant factor."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import online_formulas as f  # noqa: E402
from alignzoo_online import CISPO, DAPO, GRPO, GSPO, PPO, REINFORCE, RLOO, XPO, DrGRPO, NashMD, ReinforcePP, ReMax  # noqa: E402
from online_formulas import Draw  # noqa: E402

from alignzoo.testing import group, pair  # noqa: E402


def draw(new: list[float], moved: list[float], reward: float) -> Draw:
    """The ratio of each token is e^moved; the reference is 0.3 and 0.1 nats away, in turn."""
    old = tuple(a - m for a, m in zip(new, moved, strict=True))
    ref = tuple(a + (0.3 if t % 2 else -0.1) for t, a in enumerate(new))
    return Draw(tuple(new), old, ref, reward)


PROMPTS = [
    [
        draw([-1.0, -0.2, -2.5], [0.0, 0.1, -0.1], 1.0),
        draw([-0.7], [0.4], -0.5),
        draw([-1.1, -0.6, -2.0, -0.4, -0.9], [-0.5, 0.25, 0.05, -0.19, 0.3], 2.0),
    ],
    [
        draw([-0.3, -0.3], [0.0, 0.0], 0.25),
        draw([-3.0, -0.1, -0.2, -1.7], [0.0, -0.3, 0.2, 0.0], -1.0),
        draw([-0.5, -1.5, -2.5], [1.9, 0.0, -2.0], 0.0),
    ],
]
LIMIT = 6


def seen(objective, prompts=PROMPTS, **more):
    """The draws as the objective sees them."""
    rows = {
        name: [[getattr(one, name) for one in draws] for draws in prompts] for name in ("new", "old", "ref", "reward")
    }
    ref = None if objective.reference == "none" else rows["ref"]
    return group(objective, rows["new"], rows["reward"], old=rows["old"], ref=ref, max_new_tokens=LIMIT, **more)


def losses(objective, **more) -> list[float]:
    return losses_of(objective, PROMPTS, **more)


def losses_of(objective, prompts, **more) -> list[float]:
    return objective.loss(seen(objective, prompts, **more)).tolist()


CASES = {
    "grpo": (GRPO(), lambda d: f.grpo(d, 0.04, 0.2, 1e-4)),
    "grpo without kl": (GRPO(beta=0, clip=0.1, eps=1e-6), lambda d: f.grpo(d, 0.0, 0.1, 1e-6)),
    "dr_grpo": (DrGRPO(), lambda d: f.dr_grpo(d, 0.2, LIMIT)),
    "dapo": (DAPO(), lambda d: (lambda total, n: total / n)(*f.dapo(d, 0.2, 0.28, 1e-4, 0, LIMIT))),
    "dapo overlong": (DAPO(overlong=3), lambda d: (lambda total, n: total / n)(*f.dapo(d, 0.2, 0.28, 1e-4, 3, LIMIT))),
    "dapo by batch": (DAPO(reduction="batch_tokens"), lambda d: f.dapo(d, 0.2, 0.28, 1e-4, 0, LIMIT)[0]),
    "gspo": (GSPO(), lambda d: f.gspo(d, 3e-4, 4e-4, 1e-4)),
    "gspo wide": (GSPO(low=0.2, high=0.1), lambda d: f.gspo(d, 0.2, 0.1, 1e-4)),
    "cispo": (CISPO(), lambda d: f.cispo(d, 5.0, 1e-4)),
    "cispo narrow": (CISPO(limit=1.2), lambda d: f.cispo(d, 1.2, 1e-4)),
    "rloo": (RLOO(), lambda d: f.rloo(d, 0.03)),
    "rloo strong": (RLOO(beta=2.0), lambda d: f.rloo(d, 2.0)),
    "reinforce": (REINFORCE(), lambda d: f.reinforce(d, 0.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_papers(name):
    objective, formula = CASES[name]
    assert losses(objective) == pytest.approx([formula(draws) for draws in PROMPTS], rel=1e-12)


def test_remax_subtracts_the_greedy_reward():
    want = [f.remax(draws, 0.05, greedy) for draws, greedy in zip(PROMPTS, (0.7, -0.3), strict=True)]
    assert losses(ReMax(), greedy_reward=[0.7, -0.3]) == pytest.approx(want, rel=1e-12)


def test_reinforce_pp_is_normalized_over_all_tokens():
    assert losses(ReinforcePP(beta=0.5)) == pytest.approx(f.reinforce_pp(PROMPTS, 0.5, 0.2, 1e-8), rel=1e-12)


OLD_VALUES = [
    [[0.3 * len(one.new) - 0.2 * t - 0.1 * i for t in range(len(one.new))] for i, one in enumerate(draws)]
    for draws in PROMPTS
]
VALUES = [[[v + 0.15 * (-1) ** t * (1 + t) for t, v in enumerate(row)] for row in draws] for draws in OLD_VALUES]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"beta": 0.5, "gamma": 0.9, "gae_lambda": 0.5, "clip": 0.1, "value_clip": 0.4},
        {"beta": 2.0, "dual_clip": 1.5, "value_clip": None, "reward_clip": 0.5, "gae_lambda": 1.0},
    ],
)
def test_ppo_is_the_papers(fields):
    objective = PPO(**fields)
    want = f.ppo(
        PROMPTS, VALUES, OLD_VALUES, beta=objective.beta, gamma=objective.gamma, lam=objective.gae_lambda,
        clip=objective.clip, value_clip=objective.value_clip, dual=objective.dual_clip,
        reward_clip=objective.reward_clip or math.inf,
    )  # fmt: skip
    assert losses(objective, value=VALUES, old_value=OLD_VALUES) == pytest.approx(want, rel=1e-12)


def test_ppo_in_one_epoch_with_a_critic_that_says_0_is_reinforce():
    """gamma = lambda = 1, no whitening, no penalty: REINFORCE with baseline 0, in the gradient."""
    zero = [[[0.0] * len(one.new) for one in draws] for draws in PROMPTS]
    now = [[replace(one, old=one.new) for one in draws] for draws in PROMPTS]
    found = []
    for objective, more in (
        (PPO(beta=0, gae_lambda=1, whiten=False, reduction="sequence"), {"value": zero}),
        (REINFORCE(), {}),
    ):
        example = seen(objective, now, **more)
        leaf = example.completions.tokens.log_prob
        found.append(torch.autograd.grad(objective.loss(example).sum(), leaf)[0])
    assert torch.allclose(*found, rtol=1e-12)


def test_ppo_adapts_its_coefficient_and_keeps_the_moments_of_all_rewards():
    objective = PPO(beta=0.1, target_kl=2.0, horizon=50, normalize_reward=True)
    first = seen(objective, value=VALUES, old_value=OLD_VALUES)
    rewards = [one.reward for draws in PROMPTS for one in draws]
    kl = sum(one.penalized for draws in PROMPTS for one in draws) / 6
    after = objective.next_state(first)
    assert after["beta"] == pytest.approx(0.1 * (1 + max(-0.2, min(0.2, kl / 2 - 1)) * 6 / 50))
    again = objective.next_state(seen(objective, value=VALUES, old_value=OLD_VALUES, state=after))
    double = torch.tensor(2 * rewards, dtype=torch.float64)
    assert again["count"] == 12
    assert again["mean"] == pytest.approx(double.mean().item())
    assert again["squares"] == pytest.approx(((double - double.mean()) ** 2).sum().item())
    normal = torch.tensor(rewards, dtype=torch.float64)
    normal = ((normal - normal.mean()) / (normal.std() + 1e-8)).reshape(2, 3).tolist()
    given = [
        [replace(one, reward=r) for one, r in zip(draws, row, strict=True)]
        for draws, row in zip(PROMPTS, normal, strict=True)
    ]
    plain = PPO(beta=0.1)
    assert losses(objective, value=VALUES, old_value=OLD_VALUES) == pytest.approx(
        losses_of(plain, given, value=VALUES, old_value=OLD_VALUES), rel=1e-9
    )


PEERS = json.loads((Path(__file__).parents[3] / "tests" / "objectives" / "peer_ppo.json").read_text())


@pytest.mark.parametrize("name", PEERS["results"])
def test_ppo_has_the_losses_and_gradients_of_peers(name):
    """Theirs are means over all tokens. Without whitening is OpenRLHF's step before it; verl adds 1e-8 to counts."""
    given, theirs = PEERS["input"], PEERS["results"][name]
    objective = PPO(
        beta=given["beta"], gamma=theirs["gamma"], gae_lambda=theirs["lam"], clip=theirs["clip"],
        value_clip=theirs["value_clip"], dual_clip=theirs["dual_clip"], reward_clip=theirs.get("reward_clip"),
        whiten="whitened" in theirs,
    )  # fmt: skip
    example = group(
        objective, given["new"], given["reward"], old=given["old"], ref=given["ref"], value=given["value"],
        old_value=given["value_old"],
    )  # fmt: skip
    loss = objective.loss(example).sum() / objective.weight(example).sum()
    assert loss.item() == pytest.approx(theirs["policy_loss"] + theirs["value_loss"], rel=1e-8)
    leaves = example.completions.tokens.log_prob, example.completions.tokens.value
    for key, found in zip(("policy", "value"), torch.autograd.grad(loss, leaves), strict=True):
        want = [x for row in theirs[f"{key}_gradient"] for y in row for x in y]
        assert found.tolist() == pytest.approx(want, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("reference_is_chosen", [False, True])
def test_xpo_is_dpo_and_the_likelihood_of_the_references_draw(reference_is_chosen):
    """2405.21046, algorithm 1, with chosen and rejected in nats: h = (-4 + 5) - (-7 + 6.5)."""
    given = pair(-4.0, -7.0, ref_chosen=-5.0, ref_rejected=-6.5)
    by = [torch.tensor([flag]) for flag in (reference_is_chosen, not reference_is_chosen)]
    sides = [replace(one, _drawn_by={"reference": flag}) for one, flag in zip(given.sides().values(), by, strict=True)]
    loss = XPO(beta=0.3, alpha=0.02).loss(replace(given, chosen=sides[0], rejected=sides[1]))
    dpo = math.log1p(math.exp(-0.3 * 1.5))
    assert loss.item() == pytest.approx(dpo + 0.02 * (-4.0 if reference_is_chosen else -7.0), rel=1e-12)


def test_nash_md_is_the_papers():
    """2312.00886, section 7, on one draw of the policy and one of the mixture."""
    two = [draws[:2] for draws in PROMPTS]
    found = losses_of(NashMD(tau=0.2), two)
    rates = [[replace(one, reward=p) for one, p in zip(draws, (0.75, 0.25), strict=True)] for draws in two]
    given = losses_of(NashMD(tau=0.2, preference="given"), rates)
    for n, draws in enumerate(two):
        y, other = draws
        edge = 1 / (1 + math.exp(other.reward - y.reward)) - 0.5
        assert found[n] == pytest.approx(-(edge - 0.2 * y.penalized) * y.log_prob, rel=1e-12)
        assert given[n] == pytest.approx(-(0.75 - 0.5 - 0.2 * y.penalized) * y.log_prob, rel=1e-12)
    one = seen(NashMD(), two, kept=[[True, False], [True, True]])
    assert (NashMD().loss(one)[0], NashMD().weight(one)[0]) == (0, 0)


def test_weights_are_the_reductions():
    counts = [float(sum(len(one.new) for one in draws)) for draws in PROMPTS]
    for objective in (CISPO(), DAPO(reduction="batch_tokens")):
        assert objective.weight(seen(objective)).tolist() == counts
    for objective in (GRPO(), DrGRPO(), GSPO(), RLOO(), DAPO()):
        assert objective.weight(seen(objective)).tolist() == [1.0, 1.0]


def test_dapo_leaves_out_prompts_without_spread():
    equal = [PROMPTS[0], [Draw(one.new, one.old, one.ref, 0.25) for one in PROMPTS[1]]]
    for objective in (DAPO(), DAPO(reduction="batch_tokens")):
        one = seen(objective, equal)
        assert objective.weight(one)[1] == 0
        assert objective.loss(one)[1] == 0
        assert objective.weight(one)[0] > 0


@pytest.mark.parametrize("objective", [GRPO(beta=0), DrGRPO(), GSPO(), CISPO(), RLOO(beta=0)], ids=lambda one: one.name)
def test_equal_rewards_and_shifted_ones_change_nothing(objective):
    equal = [[Draw(one.new, one.old, one.ref, 0.1) for one in draws] for draws in PROMPTS]
    example = seen(objective, equal)
    assert not example.advantage.any()
    shifted = [[Draw(one.new, one.old, one.ref, one.reward + 3) for one in draws] for draws in PROMPTS]
    want, got = (objective.loss(seen(objective, prompts)) for prompts in (PROMPTS, shifted))
    assert torch.allclose(want, got, rtol=1e-12)


def test_rloo_is_g_over_g_minus_1_times_centered_rewards():
    for g in (seen(RLOO(beta=0)), seen(RLOO(beta=0), [draws[:2] for draws in PROMPTS])):
        factor = g.reward.shape[1] / (g.reward.shape[1] - 1)
        assert torch.allclose(g.advantage, factor * g.centered(g.reward), rtol=1e-12)


def test_draws_that_are_left_out_count_in_nothing():
    kept = [[True, False, True], [True, True, True]]
    fewer = [[PROMPTS[0][0], PROMPTS[0][2]]]
    for objective in (GRPO(), DrGRPO(), RLOO(), DAPO(), GSPO(), CISPO()):
        masked = objective.loss(seen(objective, kept=kept))[0]
        assert masked.item() == pytest.approx(objective.loss(seen(objective, fewer))[0].item(), rel=1e-12)


def test_reinforce_keeps_a_mean_that_is_right_from_the_first_rollout():
    objective = REINFORCE(decay=0.9)
    first = seen(objective)
    after = objective.next_state(first)
    mean = sum(one.reward for draws in PROMPTS for one in draws) / 6
    assert after["sum"] / after["weight"] == pytest.approx(mean)
    second = seen(objective, state=after)
    assert second.advantage[0, 0] == pytest.approx(1.0 - mean)
    later = objective.next_state(second)
    assert later["sum"] / later["weight"] == pytest.approx(mean)


def test_reinforce_keeps_its_mean_where_every_draw_is_left_out():
    state = {"sum": 0.3, "weight": 0.4}
    none = seen(REINFORCE(), state=state, kept=[[False] * 3] * 2)
    assert REINFORCE().next_state(none) == state
