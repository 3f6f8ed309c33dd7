"""Expected gradients by enumeration: completions of two tokens over two symbols, all tuples of draws, in float64.

One token can't tell forms by the token from forms by the sequence. The policy has three logits: of the first token, and of
the second after each first one. An expected gradient is the sum over all tuples of their probability times the gradient
that the objective gives them; what it should be is differentiated by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from online_zoo import ONLINE

from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.rewards import Judged
from alignzoo.rollouts.select import select
from alignzoo.testing import group, pair

Completion = tuple[int, int]

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


VALUES = {(): 0.7, (0,): -0.4, (1,): 1.3}
"""What a critic may say before each token, by the symbols so far."""


def values(y: tuple[int, int]) -> list[float]:
    """Return a critic's values before both tokens of a completion."""
    return [VALUES[y[:t]] for t in (0, 1)]


def expected(objective, size: int, logits: np.ndarray = LOGITS, **more) -> np.ndarray:
    """The expected gradient of the loss of one prompt, over all tuples of `size` draws."""
    total = np.zeros(3)
    sources = [logits_of(who, logits, objective) for who in objective.drawn_by or ("policy",) * size]
    for draws in product(ALL, repeat=size):
        own, ref = ([[token_log_probs(one, y) for y in draws]] for one in (logits, REF_LOGITS))
        given = group(
            objective, own, [[REWARD[y] for y in draws]], ref=None if objective.reference == "none" else ref,
            max_new_tokens=2, value=[[values(y) for y in draws]] if objective.head == "value" else None, **more,
        )  # fmt: skip
        loss = objective.loss(given).sum()
        leaf = given.completions.tokens.log_prob
        by_token = np.zeros(2 * size)
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True, retain_graph=True)
            by_token = gradient.numpy()
        jacobian = np.concatenate([slopes(logits, y) for y in draws])
        total += math.prod(prob(one, y) for one, y in zip(sources, draws, strict=True)) * (by_token @ jacobian)
    return total


def policy_gradient_of(value, logits: np.ndarray = LOGITS) -> np.ndarray:
    """The gradient of E[value(y)], with value held constant: sum_y pi(y) value(y) grad log pi(y)."""
    return sum(prob(logits, y) * value(y) * slopes(logits, y).sum(0) for y in ALL)


def log_ratio(y: tuple[int, int], logits: np.ndarray = LOGITS) -> float:
    return math.fsum(token_log_probs(logits, y)) - math.fsum(token_log_probs(REF_LOGITS, y))


def kl_gradient(logits: np.ndarray = LOGITS) -> np.ndarray:
    """The gradient of KL(pi || pi_ref) of completions: of the ratio alone, as the mean of grad log pi is 0."""
    return policy_gradient_of(lambda y: log_ratio(y, logits), logits)


def logits_of(who: str, logits: np.ndarray, objective=None) -> np.ndarray:
    """The logits of what draws; a geometric mixture by the token is linear in them."""
    share = {"policy": 0.0, "reference": 1.0}.get(who, getattr(objective, "mixture_coef", 0.0))
    return (1 - share) * logits + share * REF_LOGITS


def sigmoid(x: float) -> float:
    return math.exp(log_sigmoid(x))


def preferred(y: Completion, other: Completion) -> float:
    """Bradley and Terry's probability that y is preferred."""
    return sigmoid(REWARD[y] - REWARD[other])


def slope(logits: np.ndarray, y: Completion) -> np.ndarray:
    """(3,) derivative of a completion's log-prob by the logits."""
    return slopes(logits, y).sum(0)


def of_pairs(
    objective, first: np.ndarray | Mapping[Completion, float], second: np.ndarray, logits: np.ndarray = LOGITS,
    reference: np.ndarray = REF_LOGITS, prefers: Callable[[Completion, Completion], float] = preferred,
) -> np.ndarray:  # fmt: skip
    """The expected gradient of a loss on pairs: a draw of each source, with labels drawn by `prefers`."""
    total = np.zeros(3)
    for y, other in product(ALL, repeat=2):
        weight = (first[y] if isinstance(first, Mapping) else prob(first, y)) * prob(second, other)
        for chosen, rejected, second_wins, label in (
            (y, other, False, prefers(y, other)), (other, y, True, 1 - prefers(y, other)),
        ):  # fmt: skip
            own, ref = ([math.fsum(token_log_probs(one, c)) for c in (chosen, rejected)] for one in (logits, reference))
            given = pair(*own, *ref)
            sides = [
                replace(side, _drawn_by={"reference": torch.tensor([by_second])})
                for side, by_second in ((given.chosen, second_wins), (given.rejected, not second_wins))
            ]
            loss = objective.loss(replace(given, chosen=sides[0], rejected=sides[1])).sum()
            by_side = torch.autograd.grad(loss, [side.log_prob for side in sides])
            for gradient, completion in zip(by_side, (chosen, rejected), strict=True):
                total += weight * label * gradient.item() * slope(logits, completion)
    return total


def of_pairs_by_hand(beta: float, second: np.ndarray, logits: np.ndarray = LOGITS) -> np.ndarray:
    """DPO's on a draw of the policy and one of `second`: -beta E[(P(y > y') - sigmoid(beta h)) (s(y) - s(y'))]."""
    total = np.zeros(3)
    for y, other in product(ALL, repeat=2):
        h = log_ratio(y, logits) - log_ratio(other, logits)
        pull = preferred(y, other) - sigmoid(beta * h)
        total -= beta * pull * prob(logits, y) * prob(second, other) * (slope(logits, y) - slope(logits, other))
    return total


def mean_slope(source: np.ndarray | Mapping[Completion, float], logits: np.ndarray = LOGITS) -> np.ndarray:
    """E[grad log pi(y)] over draws of a source; 0 if it is the policy."""
    weights = source if isinstance(source, Mapping) else {y: prob(source, y) for y in ALL}
    return sum(weights[y] * slope(logits, y) for y in ALL)


def best_of(size: int, logits: np.ndarray = LOGITS) -> np.ndarray:
    """The expected gradient of SFT on the best of so many draws, as the engine selects it."""
    total, one = np.zeros(3), np.ones((1, size), bool)
    for draws in product(ALL, repeat=size):
        tokens = np.array(draws, np.int32).reshape(-1)
        given = Draws(tokens, np.arange(0, 2 * size + 1, 2), np.ones(size, bool), np.zeros(size))
        judged = Judged(np.array([[REWARD[y] for y in draws]]), one)
        config = RolloutConfig(completions=size)
        (tree,) = select(SFT(), config, ["one"], [np.zeros(1, np.int32)], given, judged, 8).trees
        total -= math.prod(prob(logits, y) for y in draws) * slope(logits, tuple(tree.branches[0].tokens.tolist()))
    return total


def best_of_by_hand(size: int) -> np.ndarray:
    """By order statistics: the best of N is y with probability F(y)^N - F(just below y)^N."""
    ordered = sorted(ALL, key=REWARD.__getitem__)
    below = np.cumsum([0.0, *(prob(LOGITS, y) for y in ordered)]) ** size
    return -sum((below[n + 1] - below[n]) * slope(LOGITS, y) for n, y in enumerate(ordered))


def by_tuples(size: int, advantage: Callable[[np.ndarray], np.ndarray], share: float) -> np.ndarray:
    """-E[sum_i A_i s(y_i)] times a share, for advantages (G,) that are made of the rewards of a tuple (G,)."""
    total = np.zeros(3)
    for draws in product(ALL, repeat=size):
        values = advantage(np.array([REWARD[y] for y in draws]))
        weight = math.prod(prob(LOGITS, y) for y in draws)
        total -= share * weight * sum(a * slope(LOGITS, y) for a, y in zip(values, draws, strict=True))
    return total


def standardized(rewards: np.ndarray) -> np.ndarray:
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)


def normalized(rewards: np.ndarray) -> np.ndarray:
    """REINFORCE++ without a penalty: over all tokens of the rollout, two of each draw."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-8)


def optimum(beta: float, weight: Callable[[Completion], float] = REWARD.__getitem__) -> np.ndarray:
    """The logits of pi_ref exp(r / beta) / Z, the solution in closed form of the DPO paper (equation 4)."""
    weights = {y: prob(REF_LOGITS, y) * math.exp(weight(y) / beta) for y in ALL}
    first = {a: sum(weights[a, b] for b in (0, 1)) for a in (0, 1)}
    return np.array([math.log(first[1] / first[0]), *(math.log(weights[a, 1] / weights[a, 0]) for a in (0, 1))])


def win_rate(y: Completion, logits: np.ndarray, share: float) -> float:
    """The probability to be preferred to a draw of the mixture with a share of the reference."""
    mixture = (1 - share) * logits + share * REF_LOGITS
    return sum(prob(mixture, other) * preferred(y, other) for other in ALL)


def equilibrium(tau: float, share: float) -> np.ndarray:
    """The logits at which pi = pi_ref exp(P(y > mixture of pi) / tau) / Z, by iteration."""
    logits = REF_LOGITS
    for _ in range(200):
        logits = 0.5 * logits + 0.5 * optimum(tau, lambda y, now=logits: win_rate(y, now, share))
    return logits


DATA = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.2, (1, 1): 0.4}
"""A distribution that data may have, for SPIN."""
DATA_LOGITS = np.array([math.log(0.6 / 0.4), math.log(0.3 / 0.1), math.log(0.4 / 0.2)])


PLAIN_PPO = {"gae_lambda": 1.0, "whiten": False, "reduction": "sequence"}


def one_step_errors() -> np.ndarray:
    """-E[sum_t (r_t + V_{t+1} - V_t) s_t] with the KL penalty 0.3 at each token, and V = 0 after the last one."""
    total = np.zeros(3)
    for y in ALL:
        own, ref = token_log_probs(LOGITS, y), token_log_probs(REF_LOGITS, y)
        now = [*values(y), 0.0]
        errors = [-0.3 * (own[t] - ref[t]) + (REWARD[y] if t else 0.0) + now[t + 1] - now[t] for t in (0, 1)]
        total -= prob(LOGITS, y) * (np.array(errors) @ slopes(LOGITS, y))
    return total


@dataclass(frozen=True)
class Case:
    """An expected gradient as an objective has it, and by hand."""

    objective: str
    draws: str
    claim: str
    found: Callable[[], np.ndarray]
    want: Callable[[], np.ndarray]


def cases() -> list[Case]:
    """What every online objective is to have."""
    made = {name: cls for name, cls in ONLINE.items()}
    reward = lambda: -policy_gradient_of(REWARD.get)  # noqa: E731
    one = {"sum": 0.3, "weight": 0.4}
    return [
        Case("reinforce", "1", "the policy gradient of the reward", lambda: expected(made["reinforce"](), 1, state=one), reward),
        *(
            Case("rloo", f"{g}", "that of reward - beta KL", lambda g=g: expected(made["rloo"](beta=0.3), g),
                 lambda: reward() + 0.3 * kl_gradient())
            for g in (2, 3)
        ),
        Case("remax", "1 + greedy", "that of reward - beta KL",
             lambda: expected(made["remax"](beta=0.3), 1, greedy_reward=[0.6]), lambda: reward() + 0.3 * kl_gradient()),
        *(
            Case("dr_grpo", f"{g}", "(G - 1) / G of the policy gradient, over the token limit",
                 lambda g=g: expected(made["dr_grpo"](), g), lambda g=g: reward() * (g - 1) / g / 2)
            for g in (2, 3)
        ),
        *(
            Case(name, f"{g}", claim, lambda name=name, g=g, more=more: expected(made[name](**more), g),
                 lambda g=g, share=share: by_tuples(g, standardized, share(g)))
            for g in (2, 3)
            for name, more, claim, share in (
                ("grpo", {"beta": 0}, "standardized rewards, a mean over tokens and draws", lambda g: 1 / g / 2),
                ("dapo", {}, "the same, as all draws have two tokens", lambda g: 1 / g / 2),
                ("gspo", {}, "the same, as its ratio is a mean over tokens", lambda g: 1 / g / 2),
                ("cispo", {}, "standardized rewards, a sum over tokens and draws", lambda g: 1.0),
            )
        ),
        Case("reinforce_pp", "3", "rewards normalized over the rollout, a mean over tokens and draws",
             lambda: expected(made["reinforce_pp"](beta=0), 3), lambda: by_tuples(3, normalized, 1 / 6)),
        *(
            Case("ppo", f"{g}", "that of reward - beta KL, whatever the critic's values, at gamma = lambda = 1",
                 lambda g=g: expected(made["ppo"](beta=0.3, **PLAIN_PPO), g), lambda: reward() + 0.3 * kl_gradient())
            for g in (1, 2)
        ),
        Case("ppo, lambda 0", "1", "that of the critic's one-step errors",
             lambda: expected(made["ppo"](beta=0.3, **PLAIN_PPO | {"gae_lambda": 0.0}), 1), one_step_errors),
        Case("dpo", "2", "-beta E[(P - sigmoid(beta h)) (s - s')], labels by Bradley-Terry",
             lambda: of_pairs(DPO(beta=0.3), LOGITS, LOGITS), lambda: of_pairs_by_hand(0.3, LOGITS)),
        Case("xpo", "1 + 1 of the reference", "the same, and alpha E[s(y_ref)]",
             lambda: of_pairs(made["xpo"](beta=0.3, alpha=0.2), LOGITS, REF_LOGITS),
             lambda: of_pairs_by_hand(0.3, REF_LOGITS) + 0.2 * mean_slope(REF_LOGITS)),
        Case("dpo, SPIN", "1 + the data's", "-beta / 2 E[s(y_data)] at the start of an iteration",
             lambda: of_pairs(DPO(beta=0.3), DATA, LOGITS, reference=LOGITS, prefers=lambda y, other: 1.0),
             lambda: -0.15 * mean_slope(DATA)),
        Case("nash_md", "1 + 1 of the mixture", "-E[(P(y > mixture) - tau log(pi / pi_ref)) s(y)]",
             lambda: expected(made["nash_md"](tau=0.3, mixture_coef=0.25), 2),
             lambda: -policy_gradient_of(lambda y: win_rate(y, LOGITS, 0.25) - 0.3 * log_ratio(y))),
        Case("sft, RAFT", "3", "minus the slope of the best of N, by order statistics",
             lambda: best_of(3), lambda: best_of_by_hand(3)),
    ]  # fmt: skip


def fixed_points() -> list[Case]:
    """Where the expected gradient of an objective vanishes, and what is left of it there."""
    best = optimum(0.7)
    zero = lambda: np.zeros(3)  # noqa: E731
    return [
        *(
            Case(name, draws, "pi_ref exp(r / beta) / Z", lambda name=name, size=size, more=more: expected(
                ONLINE[name](beta=0.7), size, best, **more), zero)
            for name, draws, size, more in (("rloo", "2", 2, {}), ("remax", "1 + greedy", 1, {"greedy_reward": [0.6]}))
        ),
        Case("ppo", "1", "pi_ref exp(r / beta) / Z",
             lambda: expected(ONLINE["ppo"](beta=0.7, **PLAIN_PPO), 1, best), zero),
        Case("dpo", "2", "pi_ref exp(r / beta) / Z, labels by Bradley-Terry",
             lambda: of_pairs(DPO(beta=0.7), best, best, best), zero),
        Case("xpo", "1 + 1 of the reference", "there, only the bonus is left: alpha E[s(y_ref)]",
             lambda: of_pairs(ONLINE["xpo"](beta=0.7, alpha=0.2), best, REF_LOGITS, best),
             lambda: 0.2 * mean_slope(REF_LOGITS, best)),
        Case("nash_md", "1 + 1 of the mixture", "pi = pi_ref exp(P(y > mixture of pi) / tau) / Z",
             lambda: expected(ONLINE["nash_md"](tau=0.3, mixture_coef=0.25), 2, equilibrium(0.3, 0.25)), zero),
        Case("dpo, SPIN", "1 + the data's", "the distribution of the data",
             lambda: of_pairs(DPO(beta=0.3), DATA, DATA_LOGITS, DATA_LOGITS, DATA_LOGITS, lambda y, other: 1.0), zero),
    ]  # fmt: skip
