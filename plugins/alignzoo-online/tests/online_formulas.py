"""The papers' formulas in plain numbers: one prompt, G draws, a number a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Draw:
    new: tuple[float, ...]
    """log pi of each token."""
    old: tuple[float, ...]
    ref: tuple[float, ...]
    reward: float

    @property
    def ratios(self) -> list[float]:
        return [math.exp(a - b) for a, b in zip(self.new, self.old, strict=True)]

    @property
    def log_prob(self) -> float:
        return math.fsum(self.new)

    @property
    def penalized(self) -> float:
        """log pi_old - log pi_ref of the draw."""
        return math.fsum(self.old) - math.fsum(self.ref)


def clip(x: float, low: float, high: float) -> float:
    return max(1 - low, min(1 + high, x))


def surrogate(ratio: float, a: float, low: float, high: float) -> float:
    return -min(ratio * a, clip(ratio, low, high) * a)


def standardized(draws: Sequence[Draw], eps: float, rewards: Sequence[float] | None = None) -> list[float]:
    rewards = [one.reward for one in draws] if rewards is None else rewards
    return [(r - fmean(rewards)) / (stdev(rewards) + eps) for r in rewards]


def k3(draw: Draw) -> list[float]:
    return [math.exp(r - p) - 1 - (r - p) for p, r in zip(draw.new, draw.ref, strict=True)]


def grpo(draws, beta, clip, eps):
    """2402.03300 eq. 3: 1/G sum_i 1/|o_i| sum_t."""
    advantages = standardized(draws, eps)
    return fmean(
        fmean(surrogate(rho, a, clip, clip) + beta * k for rho, k in zip(one.ratios, k3(one), strict=True))
        for one, a in zip(draws, advantages, strict=True)
    )


def dr_grpo(draws, clip, limit):
    """2503.20783: no 1/|o_i|, no std; a constant in their place."""
    mean = fmean(one.reward for one in draws)
    sums = [math.fsum(surrogate(rho, one.reward - mean, clip, clip) for rho in one.ratios) for one in draws]
    return fmean(sums) / limit


def dapo(draws, low, high, eps, overlong, limit):
    """2503.14476 eq. 8 and 13: the sum over all tokens of the group, and their number."""
    rewards = [
        one.reward - (max(0.0, min(1.0, (len(one.new) - (limit - overlong)) / overlong)) if overlong else 0)
        for one in draws
    ]
    advantages = standardized(draws, eps, rewards)
    total = math.fsum(
        surrogate(rho, a, low, high) for one, a in zip(draws, advantages, strict=True) for rho in one.ratios
    )
    return total, sum(len(one.new) for one in draws)


def gspo(draws, low, high, eps):
    """2507.18071 eq. 5-7."""
    advantages = standardized(draws, eps)
    s = [math.exp((one.log_prob - math.fsum(one.old)) / len(one.new)) for one in draws]
    return fmean(surrogate(ratio, a, low, high) for ratio, a in zip(s, advantages, strict=True))


def cispo(draws, limit, eps):
    """2506.13585 eq. 4: the sum over tokens, which the number of the batch's tokens divides."""
    advantages = standardized(draws, eps)
    return math.fsum(
        -min(rho, limit) * a * p
        for one, a in zip(draws, advantages, strict=True)
        for rho, p in zip(one.ratios, one.new, strict=True)
    )


def rloo(draws, beta):
    """2402.14740: each against the mean of the others."""
    rewards = [one.reward - beta * one.penalized for one in draws]
    others = [fmean(r for j, r in enumerate(rewards) if j != i) for i in range(len(rewards))]
    return fmean(-(r - b) * one.log_prob for r, b, one in zip(rewards, others, draws, strict=True))


def remax(draws, beta, greedy):
    return fmean(-(one.reward - beta * one.penalized - greedy) * one.log_prob for one in draws)


def reinforce(draws, baseline):
    return fmean(-(one.reward - baseline) * one.log_prob for one in draws)


def ppo(prompts, values, olds, *, beta, gamma, lam, clip, value_clip, dual, reward_clip=math.inf):
    """1707.06347 eq. 7, 1506.02438 eq. 16: a loss of each prompt, a sum over tokens of policy's and critic's."""
    advantage, target = {}, {}
    for b, draws in enumerate(prompts):
        for i, one in enumerate(draws):
            size = len(one.old)
            rewards = [-beta * (p - r) for p, r in zip(one.old, one.ref, strict=True)]
            rewards[-1] += max(-reward_clip, min(reward_clip, one.reward))
            v = [*olds[b][i], 0.0]
            for t in range(size):
                deltas = [rewards[s] + gamma * v[s + 1] - v[s] for s in range(t, size)]
                advantage[b, i, t] = math.fsum((gamma * lam) ** n * delta for n, delta in enumerate(deltas))
                target[b, i, t] = advantage[b, i, t] + v[t]
    mean = fmean(advantage.values())
    std = math.sqrt(math.fsum((a - mean) ** 2 for a in advantage.values()) / (len(advantage) - 1) + 1e-8)
    found = []
    for b, draws in enumerate(prompts):
        total = []
        for i, one in enumerate(draws):
            for t, rho in enumerate(one.ratios):
                a = (advantage[b, i, t] - mean) / std
                policy = surrogate(rho, a, clip, clip)
                if dual is not None and a < 0:
                    policy = min(policy, -dual * a)
                v, old, g = values[b][i][t], olds[b][i][t], target[b, i, t]
                near = v if value_clip is None else max(old - value_clip, min(old + value_clip, v))
                total.append(policy + max((v - g) ** 2, (near - g) ** 2) / 2)
        found.append(math.fsum(total))
    return found


def reinforce_pp(prompts, beta, clip, eps):
    """2501.03262v2 eq. 8-10: returns of tokens, normalized over all of them."""
    returns = {}
    for b, draws in enumerate(prompts):
        for i, one in enumerate(draws):
            kl = [p - r for p, r in zip(one.old, one.ref, strict=True)]
            for t in range(len(kl)):
                returns[b, i, t] = one.reward - beta * math.fsum(kl[t:])
    mean = fmean(returns.values())
    std = math.sqrt(fmean((value - mean) ** 2 for value in returns.values()))
    advantage = {at: (value - mean) / (std + eps) for at, value in returns.items()}
    return [
        fmean(
            fmean(surrogate(rho, advantage[b, i, t], clip, clip) for t, rho in enumerate(one.ratios))
            for i, one in enumerate(draws)
        )
        for b, draws in enumerate(prompts)
    ]
