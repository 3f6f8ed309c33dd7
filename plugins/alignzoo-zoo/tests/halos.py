"""HALOs' published losses in plain float arithmetic, one example or one batch at a time: `math` and nothing else.

Written from what ContextualAI/HALOs says its trainers compute (train/trainers.py, and trainers.py before it), in the
notation of `formulas`. Its steps are means over examples. It has no CPO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from notation import Completion, Pair, Single, log_sigmoid, sigmoid


def dpo(row: Pair, beta: float) -> float:
    return -log_sigmoid(beta * row.chosen.r - beta * row.rejected.r)


def cdpo(row: Pair, beta: float, epsilon: float) -> float:
    apart = beta * row.chosen.r - beta * row.rejected.r
    return (1 - epsilon) * -log_sigmoid(apart) + epsilon * -log_sigmoid(-apart)


def per_changed_token(y: Completion) -> float:
    """The log-ratio over the number of tokens whose own is not zero: 0 / 0 where policy and reference are one."""
    return y.r / sum(ratio != 0 for ratio in y.ratios)


def ipo(row: Pair, tau: float) -> float:
    return (per_changed_token(row.chosen) - per_changed_token(row.rejected) - 1 / (2 * tau)) ** 2


def simpo(row: Pair, beta: float, gamma_beta_ratio: float) -> float:
    return -log_sigmoid(beta * (row.chosen.mean - row.rejected.mean - gamma_beta_ratio))


def slic(row: Pair, beta: float, lambda_coef: float) -> float:
    """As it was on whole completions: beta is the hinge's margin, in nats."""
    return max(beta - row.chosen.logp + row.rejected.logp, 0.0) - lambda_coef * row.chosen.logp


def slic_by_token(row: Pair, beta: float, lambda_coef: float) -> float:
    """As it became: the pair's hinge added to each token's NLL, a mean over the tokens that the padded pair has."""
    hinge, width = max(beta - row.chosen.logp + row.rejected.logp, 0.0), max(row.chosen.n, row.rejected.n)
    return hinge - lambda_coef * row.chosen.logp / width


def orpo(row: Pair, scale: float) -> float:
    """On mean log-probs, the NLL too."""

    def log_odds(y: Completion) -> float:
        return y.mean - math.log(1 - math.exp(y.mean))

    return -row.chosen.mean - scale * log_sigmoid(log_odds(row.chosen) - log_odds(row.rejected))


def bradley_terry(row: Pair) -> float:
    return -log_sigmoid(row.chosen.scalar - row.rejected.scalar)


def sft(rows: Sequence[Pair]) -> float:
    """A step's: a mean over tokens."""
    return -math.fsum(row.chosen.logp for row in rows) / sum(row.chosen.n for row in rows)


def sft_by_sequence(rows: Sequence[Pair]) -> float:
    """As it was: a mean over completions of their sums."""
    return -math.fsum(row.chosen.logp for row in rows) / len(rows)


def kto(rows: Sequence[Single], beta: float, desirable: float = 1.0, undesirable: float = 1.0) -> list[float]:
    """The KL estimate is the mean over the mismatched completions that the policy has changed at all, at least 0."""
    rewards = [row.mismatched.r for row in rows]
    kl = max(0.0, math.fsum(rewards) / max(1, sum(reward != 0 for reward in rewards)))
    return [
        desirable * (1 - sigmoid(beta * (row.completion.r - kl)))
        if row.desirable
        else undesirable * (1 - sigmoid(beta * (kl - row.completion.r)))
        for row in rows
    ]


def kto_zero(rows: Sequence[Single], beta: float) -> list[float]:
    """KTO with a reference point of 0."""
    return [1 - sigmoid(beta * row.completion.r * (1 if row.desirable else -1)) for row in rows]
