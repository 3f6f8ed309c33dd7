"""Frontiers of reward against KL, with intervals, as figure 2 of the DPO paper has them.

The paper does not say how (Rafailov et al. 2023, section 6.1). Here a method has several settings, and each of its
runs is measured at several checkpoints, on the same prompts. A checkpoint is a point: its mean sequence KL and its
mean reward. The start, at a KL of 0, is a point of every method.

The frontier of a method and seed is the upper concave hull of its points. Choosing the best of many noisy points
flatters them, so the hull's corners are chosen on one half of the prompts and read on the other, then the halves
change places, and both readings are averaged. Between corners the frontier is a straight line. Beyond the last corner
it is not reached: a KL is reached where all halves and seeds have the frontier there.

Intervals are percentiles of a bootstrap over prompts, within each half, and over seeds. Every draw repeats the choice
of corners. With one seed an interval says nothing of other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.statistics import interval

Numbers = NDArray[np.float64]

DRAWS = 1000
"""Draws of the bootstrap."""
NANO = 9
"""Decimals of a mean KL that count: sums that round differently are equal."""
LEAST_REACHED = 0.95
"""Share of the draws that must reach a KL for an interval there."""


@dataclass(frozen=True)
class Checkpoints:
    """Reward and KL of each prompt at a method's checkpoints.

    They are those of all its settings, and the start at a KL of 0. Seeds may have other numbers of checkpoints.
    """

    kl: Sequence[Numbers]
    """Of each seed, the log-ratio or exact KL of each checkpoint's replies, in nats, shape (checkpoints, prompts)."""
    reward: Sequence[Numbers]
    """Of each seed, the rewards, of the same shape."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A frontier, or the difference of two, at a KL."""

    kl: float
    value: float | None
    """None if it is not reached."""
    bounds: tuple[float, float] | None = None
    """Its 95% interval; None where too few of the bootstrap's draws reach it."""
    reached: float = 1.0
    """Share of the bootstrap's draws that reach the KL."""


def hull(kl: Numbers, reward: Numbers) -> list[int]:
    """Return the corners of the upper concave hull of points, by rising KL.

    Points right of the best reward belong to it too: a method that spends more KL for less reward shows it. Of points
    at the same KL the one with the highest reward counts. Source: Andrew 1979, the monotone chain.

    Args:
        kl: Shape (P,).
        reward: Shape (P,).
    """
    corners: list[int] = []
    for i in np.lexsort((-reward, kl)).tolist():
        if corners and kl[i] == kl[corners[-1]]:
            continue
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (reward[b] - reward[a]) * (kl[i] - kl[a]) > (reward[i] - reward[a]) * (kl[b] - kl[a]):
                break
            corners.pop()
        corners.append(i)
    return corners


def read(kl: Numbers, reward: Numbers, at: Numbers) -> Numbers:
    """Return the straight lines between points, shape of `at`; nan beyond the last point.

    Args:
        kl: KL of the points in any order, shape (P,).
        reward: Their rewards, shape (P,).
        at: KLs, at least 0.
    """
    order = np.argsort(kl, kind="stable")
    return np.interp(at, kl[order], reward[order], left=np.nan, right=np.nan)


def frontier(kl: Numbers, reward: Numbers, first: NDArray[np.bool_], at: Numbers, weights: Numbers) -> Numbers:
    """Return the frontier of one method and seed, chosen and read on different prompts.

    Args:
        kl: The method's points, shape (P, N).
        reward: Shape (P, N).
        first: True for the prompts of the first half, shape (N,).
        at: KLs to read it at, shape (K,).
        weights: How often each prompt counts, shape (N,).

    Returns:
        The mean of both readings, shape (K,); nan where one half does not reach.
    """
    halves = []
    for half in (first, ~first):
        own = weights[half] / weights[half].sum()
        halves.append((np.round(kl[:, half] @ own, NANO), reward[:, half] @ own))
    readings = []
    for (kl_chosen, reward_chosen), (kl_read, reward_read) in (halves, halves[::-1]):
        corners = hull(kl_chosen, reward_chosen)
        readings.append(read(kl_read[corners], reward_read[corners], at))
    found: Numbers = np.mean(readings, axis=0)
    return found


class Frontiers:
    """Frontiers of several methods at the same KLs, with one bootstrap for all."""

    def __init__(
        self, methods: Mapping[str, Checkpoints], first: NDArray[np.bool_], at: Sequence[float], draws: int = DRAWS,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Compute the frontiers and their bootstrap.

        Args:
            methods: Name -> its checkpoints. All have the same prompts, and the same seeds in the same order.
            first: True for the prompts of the first half, shape (N,).
            at: KLs, in nats.
            draws: Draws of the bootstrap.
            seed: Seed of the bootstrap.

        Raises:
            ValueError: A method has other numbers of prompts or seeds, or a half has no prompt.
        """
        self.at = np.asarray(at, dtype=np.float64)
        self._methods, self._first = methods, first
        seeds = {len(one.kl) for one in methods.values()}
        if len(seeds) != 1:
            raise ValueError(f"methods have {sorted(seeds)} seeds; expected the same number")
        if not first.any() or first.all():
            raise ValueError("a half has no prompt")
        self.seeds = seeds.pop()
        random = np.random.default_rng(seed)
        once = np.ones(len(first))
        every_seed = list(range(self.seeds))
        self._values = {name: self._value(name, once, every_seed) for name in methods}
        self._draws: dict[str, list[Numbers]] = {name: [] for name in methods}
        for _ in range(draws):
            weights = _resampled(first, random)
            drawn = random.integers(0, self.seeds, self.seeds).tolist()
            for name in methods:
                self._draws[name].append(self._value(name, weights, drawn))

    def _value(self, name: str, weights: Numbers, seeds: Sequence[int]) -> Numbers:
        checkpoints = self._methods[name]
        found = {
            seed: frontier(checkpoints.kl[seed], checkpoints.reward[seed], self._first, self.at, weights)
            for seed in set(seeds)
        }
        mean: Numbers = np.mean([found[seed] for seed in seeds], axis=0)
        return mean

    def of(self, name: str) -> list[Reading]:
        """Return the frontier of a method at each KL."""
        return self._readings(self._values[name], np.array(self._draws[name]))

    def difference(self, name: str, other: str) -> list[Reading]:
        """Return the frontier of `name` less that of `other` at each KL, paired in every draw."""
        drawn = np.array(self._draws[name]) - np.array(self._draws[other])
        return self._readings(self._values[name] - self._values[other], drawn)

    def _readings(self, values: Numbers, drawn: Numbers) -> list[Reading]:
        found = []
        for k, kl in enumerate(self.at.tolist()):
            known = drawn[:, k][~np.isnan(drawn[:, k])] if len(drawn) else np.zeros(0)
            reached = len(known) / max(1, len(drawn))
            if np.isnan(values[k]):
                found.append(Reading(kl, None, reached=reached))
            elif reached < LEAST_REACHED:
                found.append(Reading(kl, float(values[k]), reached=reached))
            else:
                low, high = np.quantile(known, [0.025, 0.975]).tolist()
                found.append(Reading(kl, float(values[k]), (low, high), reached))
        return found


def dominates(difference: Sequence[Reading]) -> bool | None:
    """Return True where the difference is above 0 at every KL that both reach.

    It is None if they reach none with an interval. Each KL is tested at 95%, so that all of them together are (an
    intersection of alternatives: Berger 1982, Technometrics 24).
    """
    known = [one.bounds for one in difference if one.bounds is not None]
    return all(low > 0 for low, _ in known) if known else None


def still_rises(last: Numbers, before: Numbers) -> bool:
    """Return True if a reward rises over the last two checkpoints, beyond the prompts' noise.

    Args:
        last: Rewards at the last checkpoint, shape (N,).
        before: Rewards of the same prompts at the one before it, shape (N,).
    """
    return interval((last - before)[None]).low > 0


def _resampled(first: NDArray[np.bool_], random: np.random.Generator) -> Numbers:
    """Return how often each prompt is drawn, shape (N,): as many of each half as it has."""
    weights = np.zeros(len(first))
    for half in (first, ~first):
        places = np.flatnonzero(half)
        weights += np.bincount(random.choice(places, len(places)), minlength=len(first))
    return weights
