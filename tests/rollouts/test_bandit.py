"""Expected gradients of online objectives by enumeration (tests/enumeration.py), and where they vanish."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from enumeration import (
    ALL,
    LOGITS,
    REF_LOGITS,
    REWARD,
    cases,
    expected,
    fixed_points,
    kl_gradient,
    log_ratio,
    of_pairs_by_hand,
    optimum,
    policy_gradient_of,
    prob,
    slopes,
    token_log_probs,
)
from online_zoo import ONLINE

from alignzoo import policy_gradient


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.objective} {case.draws}")
def test_the_expected_gradient_is_the_one_by_hand(case):
    want = case.want()
    assert np.abs(want).max() > 1e-2
    assert case.found() == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("case", fixed_points(), ids=lambda case: case.objective)
def test_the_expected_gradient_vanishes_where_it_should(case):
    assert case.found() == pytest.approx(case.want(), abs=1e-10)


def test_plain_descent_ends_at_the_optimum():
    """Of reward minus KL, as RLOO has it, and of DPO with labels by Bradley-Terry: from the reference to pi*."""
    beta = 0.7

    def rloo(logits):
        return -policy_gradient_of(REWARD.get, logits) + beta * kl_gradient(logits)

    def dpo(logits):
        return of_pairs_by_hand(beta, logits, logits)

    for gradient, rate in ((rloo, 4.0), (dpo, 8.0)):
        logits = REF_LOGITS.copy()
        for _ in range(400):
            logits -= rate * gradient(logits)
        assert logits == pytest.approx(optimum(beta), abs=1e-4)
    assert np.abs(optimum(beta) - REF_LOGITS).max() > 0.5


def test_the_closed_forms_are_derivatives():
    """Central differences of the expected reward and of the divergence, summed over the four completions."""
    step = 1e-6
    for total, want in (
        (lambda x: sum(prob(x, y) * REWARD[y] for y in ALL), policy_gradient_of(REWARD.get)),
        (lambda x: sum(prob(x, y) * log_ratio(y, x) for y in ALL), kl_gradient()),
    ):
        found = [(total(LOGITS + step * e) - total(LOGITS - step * e)) / (2 * step) for e in np.eye(3)]
        assert found == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("size", [2, 3])
def test_grpo_has_its_stated_formula(size):
    """At a ratio of 1: minus the standardized rewards times the mean slope of the tokens, plus k3's gradient."""
    eps, beta = 1e-4, 0.3
    want = np.zeros(3)
    for draws in product(ALL, repeat=size):
        rewards = np.array([REWARD[y] for y in draws])
        advantage = (rewards - rewards.mean()) / (rewards.std(ddof=1) + eps)
        weight = math.prod(prob(LOGITS, y) for y in draws)
        for y, a in zip(draws, advantage, strict=True):
            own, ref = token_log_probs(LOGITS, y), token_log_probs(REF_LOGITS, y)
            by_token = np.array([-a + beta * (1 - math.exp(r - p)) for p, r in zip(own, ref, strict=True)])
            want += weight * (by_token @ slopes(LOGITS, y)) / 2 / size
    assert expected(ONLINE["grpo"](beta=beta, eps=eps), size) == pytest.approx(want, abs=1e-10)


def test_only_whole_completions_give_the_gradient_of_the_divergence():
    """k2 of a completion does. Summed over tokens, k2 and the exact KL of each token lack a token's effect on later ones."""

    def mean_gradient(loss_of) -> np.ndarray:
        total = np.zeros(3)
        for y in ALL:
            own = torch.tensor(token_log_probs(LOGITS, y), dtype=torch.float64, requires_grad=True)
            ref = torch.tensor(token_log_probs(REF_LOGITS, y), dtype=torch.float64)
            (gradient,) = torch.autograd.grad(loss_of(own - ref), own)
            total += prob(LOGITS, y) * (gradient.numpy() @ slopes(LOGITS, y))
        return total

    want = kl_gradient()
    assert mean_gradient(lambda d: policy_gradient.k2(d.sum())) == pytest.approx(want, abs=1e-12)
    tokenwise = mean_gradient(lambda d: policy_gradient.k2(d).sum())
    assert np.abs(tokenwise - want).max() > 1e-2
    exact = np.zeros(3)  # the exact KL at each token, on the way that the policy takes
    for at, reach in ((0, 1.0), (1, 1 / (1 + math.exp(LOGITS[0]))), (2, 1 / (1 + math.exp(-LOGITS[0])))):
        p = 1 / (1 + math.exp(-LOGITS[at]))
        exact[at] = reach * p * (1 - p) * (LOGITS[at] - REF_LOGITS[at])
    assert tokenwise == pytest.approx(exact, abs=1e-12)
