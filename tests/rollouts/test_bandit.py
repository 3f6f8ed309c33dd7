"""Expected gradients by enumeration: completions of two tokens over two symbols, all G-tuples, in float64.

One token can't tell forms by the token from forms by the sequence. The policy has three logits: of the first token, and of
the second after each first one. An expected gradient is the sum over all tuples of their probability times the gradient
that the objective gives them; what it should be is differentiated by hand.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from online_zoo import ONLINE

from alignzoo import policy_gradient
from alignzoo.testing import group

LOGITS = np.array([0.4, -0.7, 1.1])
REF_LOGITS = np.array([-0.2, 0.5, 0.3])
REWARD = {(0, 0): 1.0, (0, 1): -0.5, (1, 0): 2.0, (1, 1): 0.25}
ALL = list(REWARD)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def token_log_probs(logits: np.ndarray, y: tuple[int, int]) -> list[float]:
    """Symbol 1 has probability sigmoid(logit)."""
    picked = (logits[0], logits[1 + y[0]])
    return [log_sigmoid(x if symbol else -x) for x, symbol in zip(picked, y, strict=True)]


def slopes(logits: np.ndarray, y: tuple[int, int]) -> np.ndarray:
    """(2, 3) derivative of each token's log-prob by the logits."""
    found = np.zeros((2, 3))
    for t, at in enumerate((0, 1 + y[0])):
        found[t, at] = y[t] - 1 / (1 + math.exp(-logits[at]))
    return found


def prob(logits: np.ndarray, y: tuple[int, int]) -> float:
    return math.exp(math.fsum(token_log_probs(logits, y)))


def expected(objective, size: int, logits: np.ndarray = LOGITS, **more) -> np.ndarray:
    """The expected gradient of the loss of one prompt, over all tuples of `size` draws."""
    total = np.zeros(3)
    for draws in product(ALL, repeat=size):
        own, ref = ([[token_log_probs(one, y) for y in draws]] for one in (logits, REF_LOGITS))
        given = group(
            objective, own, [[REWARD[y] for y in draws]], ref=None if objective.reference == "none" else ref,
            max_new_tokens=2, **more,
        )  # fmt: skip
        loss = objective.loss(given).sum()
        leaf = given.completions.tokens.log_prob
        by_token = np.zeros(2 * size)
        if loss.requires_grad:
            import torch

            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True, retain_graph=True)
            by_token = gradient.numpy()
        jacobian = np.concatenate([slopes(logits, y) for y in draws])
        total += math.prod(prob(logits, y) for y in draws) * (by_token @ jacobian)
    return total


def policy_gradient_of(value, logits: np.ndarray = LOGITS) -> np.ndarray:
    """The gradient of E[value(y)], with value held constant: sum_y pi(y) value(y) grad log pi(y)."""
    return sum(prob(logits, y) * value(y) * slopes(logits, y).sum(0) for y in ALL)


def log_ratio(y: tuple[int, int], logits: np.ndarray = LOGITS) -> float:
    return math.fsum(token_log_probs(logits, y)) - math.fsum(token_log_probs(REF_LOGITS, y))


def kl_gradient(logits: np.ndarray = LOGITS) -> np.ndarray:
    """The gradient of KL(pi || pi_ref) of completions: of the ratio alone, as the mean of grad log pi is 0."""
    return policy_gradient_of(lambda y: log_ratio(y, logits), logits)


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
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_rloo_has_the_policy_gradient_of_reward_minus_kl(size, beta):
    want = -policy_gradient_of(REWARD.get) + beta * kl_gradient()
    assert expected(ONLINE["rloo"](beta=beta), size) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("size", [1, 2])
def test_reinforce_and_remax_have_it_too(size):
    plain = -policy_gradient_of(REWARD.get)
    for state in ({"sum": 0.0, "weight": 0.0}, {"sum": 0.3, "weight": 0.4}):
        assert expected(ONLINE["reinforce"](), size, state=state) == pytest.approx(plain, abs=1e-10)
    want = plain + 0.3 * kl_gradient()
    assert expected(ONLINE["remax"](beta=0.3), size, greedy_reward=[0.6]) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("size", [2, 3])
def test_dr_grpo_has_a_known_share_of_it(size):
    """(G - 1) / G, as its mean includes the draw itself, over the token limit of 2."""
    want = -policy_gradient_of(REWARD.get) * (size - 1) / size / 2
    assert expected(ONLINE["dr_grpo"](), size) == pytest.approx(want, abs=1e-10)


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
    import torch

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


def test_the_optimum_of_reward_minus_kl_is_where_rloo_stands_still():
    """pi* = pi_ref exp(r / beta) / Z, the solution in closed form of the DPO paper (equation 4)."""
    beta = 0.7
    weights = {y: prob(REF_LOGITS, y) * math.exp(REWARD[y] / beta) for y in ALL}
    first = {a: sum(weights[a, b] for b in (0, 1)) for a in (0, 1)}
    best = np.array([math.log(first[1] / first[0]), *(math.log(weights[a, 1] / weights[a, 0]) for a in (0, 1))])
    assert np.abs(expected(ONLINE["rloo"](beta=beta), 2, best)).max() < 1e-10
    assert np.abs(expected(ONLINE["rloo"](beta=beta), 2)).max() > 1e-2
