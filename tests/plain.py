"""What modifiers do to log-ratios, and objectives to them, once more in plain Python: no tensor, no code of ours.

A completion is a list of tokens, each (log pi, log pi_ref, log sum_v pi_v^2, a uniform number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.testing import completions

Completion = Sequence[tuple[float, float, float, float]]


class Two(NamedTuple):
    """A pair."""

    chosen: Completion
    rejected: Completion


def tokens(*pairs: tuple[float, float], salt: int = 0) -> Completion:
    """From (log pi, log pi_ref); the other two numbers mean nothing, and all differ."""
    return [(own, ref, -0.3 - (7 * k % 11) / 5, ((13 * k + 5) % 17) / 17) for k, (own, ref) in enumerate(pairs, salt)]


PAIRS = [
    Two(tokens((-1.0, -1.5), (-0.2, -0.9), (-2.5, -2.0)),
        tokens((-0.7, -0.4), (-3.0, -1.0), (-1.1, -1.2), (-0.6, -0.9), (-2.0, -2.0), salt=4)),
    Two(tokens((-0.5, -0.6), (-1.8, -0.3), (-2.2, -1.7), (-0.9, -0.7), salt=3), tokens((-0.3, -2.1), (-1.4, -1.6), salt=8)),
    Two(tokens((-4.0, -4.2), (-0.1, -0.2), salt=5), tokens((-2.0, -1.1), (-0.8, -0.5), salt=11)),
    Two(tokens((-0.1, -9.0), (-0.2, -9.0), salt=1), tokens((-8.0, -0.5), salt=7)),
]  # fmt: skip
LISTS = [
    (PAIRS[0].chosen, PAIRS[1].chosen, PAIRS[2].rejected),
    (PAIRS[2].chosen, PAIRS[0].rejected, PAIRS[1].rejected),
]
"""Two lists of three, the best first."""


def ratio(y: Completion) -> float:
    """log pi(y) - log pi_ref(y)."""
    return math.fsum(own - ref for own, ref, _, _ in y)


# Modifiers: the log-ratios of a pair


def length_normalization(pair: Two) -> tuple[float, float]:
    return ratio(pair.chosen) / len(pair.chosen), ratio(pair.rejected) / len(pair.rejected)


def margin(pair: Two, m: float, beta: float) -> tuple[float, float]:
    return ratio(pair.chosen) - m / beta / 2, ratio(pair.rejected) + m / beta / 2


def length_desensitization(pair: Two, alpha: float) -> tuple[float, float]:
    m = min(map(len, pair))
    w, x = (ratio(y[:m]) + alpha * ratio(y[m:]) for y in pair)
    return w, x


def length_downsampling(pair: Two) -> tuple[float, float]:
    m = min(map(len, pair))
    w, x = (ratio(sorted(y, key=lambda token: token[3])[:m]) for y in pair)
    return w, x


DERIVATIVES: dict[str, Callable[[float], float]] = {
    "reverse_kl": math.log,
    "forward_kl": lambda u: 1 - 1 / u,
    "js": lambda u: math.log(2 * u / (1 + u)),
    "alpha": lambda u: (1 - u**-0.3) / 0.3,
    "chi_squared": lambda u: 2 * (u - 1),
}
"""f'(u) - f'(1) of each divergence, Wang et al. 2309.16240, table 1; alpha is 0.3."""


def f_divergence(y: Completion, name: str) -> float:
    return DERIVATIVES[name](math.exp(ratio(y)))


def wpo_weighting(pair: Two, clamp: bool) -> float:
    w, x = (math.fsum(own - collision for own, _, collision, _ in y) / len(y) for y in pair)
    return min(1.0, math.exp(w + x)) if clamp else math.exp(w + x)


# Objectives: the loss from the log-ratios


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


LOSSES: dict[str, Callable[[float, float, float], float]] = {
    "dpo": lambda w, x, beta: softplus(-beta * (w - x)),
    "ipo": lambda w, x, beta: (w - x - 1 / (2 * beta)) ** 2,
    "rso_hinge": lambda w, x, beta: max(0.0, 1 - beta * (w - x)),
    "apo_zero": lambda w, x, beta: sigmoid(-beta * w) + sigmoid(beta * x),
}
"""(chosen log-ratio, rejected log-ratio, beta) to the loss of a pair."""


def apo_zero_unpaired(r: float, desirable: bool, beta: float) -> float:
    return sigmoid(-beta * r if desirable else beta * r)


def kto(ratios: Sequence[float], desirable: Sequence[bool], mismatched: Sequence[float], beta: float) -> list[float]:
    z0 = max(0.0, math.fsum(mismatched) / len(mismatched))
    return [sigmoid(-beta * (r - z0) if good else beta * (r - z0)) for r, good in zip(ratios, desirable, strict=True)]


def pl_dpo(ratios: Sequence[float], beta: float) -> float:
    rewards = [beta * r for r in ratios]
    return math.fsum(math.log(math.fsum(map(math.exp, rewards[k:]))) - rewards[k] for k in range(len(rewards)))


# The same as an objective sees them


def scored(ys: Sequence[Completion], shape: tuple[int, ...] | None = None) -> Scored:
    columns = [[[token[i] for token in y] for y in ys] for i in range(4)]
    own, ref, collision, uniform = columns
    return completions(own, ref, statistics={"log_collision_prob": collision}, uniform=uniform, shape=shape)


def as_pair(pairs: Sequence[Two] = PAIRS) -> Pair:
    return Pair(scored([one.chosen for one in pairs]), scored([one.rejected for one in pairs]))


def as_unpaired() -> tuple[Unpaired, list[Completion], list[bool], list[Completion]]:
    """With the completions, their labels, and the mismatched ones."""
    own = [y for pair in PAIRS for y in pair]
    other = [*own[2:], *own[:2]]
    good = [True, False] * len(PAIRS)
    return Unpaired(scored(own), torch.tensor(good), scored(other)), own, good, other


def as_ranked() -> Ranked:
    return Ranked(scored([y for row in LISTS for y in row], (len(LISTS), len(LISTS[0]))))


def slope(loss: torch.Tensor, example: Pair) -> list[float]:
    """The gradient of a summed loss by the chosen tokens' log-probs."""
    return torch.autograd.grad(loss.sum(), example.chosen.tokens.log_prob, retain_graph=True)[0].tolist()
