"""Confidence intervals of means over seeds and held-out examples, clustered by prompt.

A figure is a mean over S seeds and N examples, the same examples for every seed. Seeds and prompts are both random, and
crossed: y_si = mean + seed_s + example_i + rest_si, where examples of one prompt are dependent.

Clusters. The mean is linearized (Liang and Zeger 1986): with e_si the residuals and C prompts, prompt c contributes
z_sc = mean + (C / N) sum of e_si over its examples. The mean of z is the mean of y, and the z of different prompts are
independent, so that everything below is computed on (S, C) values z. With one example a prompt z is y.

Variance. The variance of the mean is estimated without bias by A + B, with

    A = var(the seeds' means) / S, which has S - 1 degrees of freedom,
    B = var(the prompts' means) / C - what the rest adds to that, with C* - 1 (at least 0, see below),

where C* = N^2 / sum n_c^2 for prompts of n_c examples (Carter, Schnepel and Steigerwald 2017). The critical value c is

    c^2 = z^2 + the sum over both of (t^2 - z^2) share^2 (1 + 3 share (1 - share) / degrees of freedom):

Student's t where one of them is all there is, the normal's z where many degrees of freedom stand behind the variance.
To first order in 1 / degrees of freedom that is the interval of Satterthwaite (1946) and Welch (1947), which covers
92.2% at worst with three seeds; the last factor is fitted to the exact coverage, then 94.9% to 95.8% for any share.

Skewness. Hall's transformation (1992) of the t statistic corrects for a, the skewness of the mean: with
T = (mean - mu) / se, g(T) = T + a T^2 / 3 + a^2 T^3 / 27 + a / 6 is nearly symmetric, and the interval is the set of mu
with |g(T)| <= c.

Coverage is simulated by benchmarks/interval_coverage.py. Nothing here is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

METHOD = (
    "95% intervals cover seeds and prompts, as crossed random effects: the variance of a mean is the variance of the "
    "seeds' means plus that of the held-out examples, clustered by prompt, each with its own degrees of freedom "
    "(Satterthwaite 1946, Welch 1947). They are corrected for skewness (Hall 1992). Shares have Wilson intervals at "
    "the effective sample size. Accuracies of single labeled completions have the variance of an area under the curve "
    "(DeLong et al. 1988, clustered after Obuchowski 1997). Costs have geometric means. Differences are paired by "
    "example and seed, which cancels what both objectives share. Two objectives are distinguishable if the interval of "
    "their difference excludes 0."
)
"""Description of the method for a report, at the default level."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval, in the figure's own unit."""

    mean: float
    low: float
    high: float
    se: float
    """Standard error of the mean; the interval is wider than 1.96 of them where seeds or prompts are few."""
    seeds: int
    examples: int
    """Examples with a number for every seed."""
    dropped: int
    """Examples without a number for every seed."""
    clusters: int = 0
    """Number of prompts."""
    effective: float = 0.0
    """C*, the number of equally weighted prompts with the same degrees of freedom."""
    critical: float = math.nan
    """Critical value c, between the normal's z and Student's t; nan where there is no variance to scale."""
    df: float = math.inf
    """Satterthwaite's degrees of freedom of the standard error."""
    skewness: float = 0.0
    """Sample skewness of the prompts' contributions, times the 3/2 power of their share of the variance."""
    coverage: float | None = None
    """Simulated coverage if it may be outside 93% to 99%: see `alignzoo.compare.coverage`."""

    @property
    def seed_variance_seen(self) -> bool:
        """False for one seed: the interval then describes this one model, not the objective."""
        return self.seeds > 1


def interval(
    values: NDArray[np.floating],
    level: float = 0.95,
    groups: ArrayLike | None = None,
    skewed: bool = True,
    weights: ArrayLike | None = None,
) -> Interval:
    """Return the confidence interval of the mean of `values`, shape (S, N).

    It covers the true mean in `level` of cases.

    Args:
        values: Row s holds seed s. Examples that are nan for a seed are left out. N = 1 (seconds of a run) gives
            Student's interval over seeds.
        level: Nominal coverage.
        groups: The prompt of each example, shape (N,), as any values that compare equal for equal prompts. By default
            every example has its own.
        skewed: Apply Hall's correction.
        weights: How much each example counts in the mean that `values` linearize, shape (N,), for the degrees of
            freedom alone. By default all count alike.

    Raises:
        ValueError: Another shape, an infinite value, no example left, or a level outside (0, 1).
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"values have shape {found.shape}; expected (seeds, examples)")
    if np.isinf(found).any():
        raise ValueError("a value is infinite, so there is no mean")
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a number between 0 and 1")
    keep = ~np.isnan(found).any(0)
    kept = found[:, keep]
    seeds, examples = kept.shape
    if not kept.size:
        raise ValueError("no example has a number for every seed")
    first = kept[0, 0]
    mean = float(first + (kept - first).mean())  # exact where all are the same, so that a tie has no width
    at, counts = (None if given is None else np.asarray(given)[keep] for given in (groups, weights))
    centered, effective = _by_prompt(kept - mean, at, counts)
    clusters = centered.shape[1]
    parts = _components(centered, max(1, round(effective) - 1))
    variance = sum(value for value, _ in parts.values())
    about: dict[str, Any] = {"seeds": seeds, "examples": examples, "dropped": found.shape[1] - examples}
    about |= {"clusters": clusters, "effective": effective}
    if not parts:
        return Interval(mean, -math.inf, math.inf, math.inf, **about)
    z = NormalDist().inv_cdf((1 + level) / 2)
    if variance == 0:
        return Interval(mean, mean, mean, 0.0, **about)
    shares = {name: (value / variance, df) for name, (value, df) in parts.items()}
    more = sum((student(df, level) ** 2 - z**2) * w**2 * (1 + 3 * w * (1 - w) / df) for w, df in shares.values())
    se, critical = math.sqrt(variance), math.sqrt(z**2 + more)
    df = 1 / sum(w * w / own for w, own in shares.values())
    skewness = _skewness(centered.mean(0)) * shares.get("examples", (0.0, 1))[0] ** 1.5
    a = skewness / math.sqrt(clusters) if skewed else 0.0
    low, high = mean - se * _hall(critical, a), mean - se * _hall(-critical, a)
    return Interval(mean, low, high, se, **about, critical=critical, df=df, skewness=skewness)


def difference(
    values: NDArray[np.floating],
    baseline_values: NDArray[np.floating],
    level: float = 0.95,
    groups: ArrayLike | None = None,
) -> Interval:
    """Return the interval of the mean difference to a baseline, both of shape (S, N).

    Values are paired by example and by seed. Row s of both is the same seed, so the same order of the data. Raises
    ValueError as `interval` does, and where the shapes differ.
    """
    return interval(paired_difference(values, baseline_values), level, groups)


def paired_difference(values: ArrayLike, baseline_values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` less `baseline_values`.

    Raises:
        ValueError: The shapes differ, or a value is infinite.
    """
    one, other = np.asarray(values, dtype=np.float64), np.asarray(baseline_values, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"values have shape {one.shape} and the baseline {other.shape}; expected equal shapes")
    if np.isinf(one).any() or np.isinf(other).any():
        raise ValueError("a value is infinite, so there is no mean")
    return one - other


def p_value(difference: Interval) -> float:
    """Return the two-sided p-value of a mean difference of 0, from Student's t.

    The degrees of freedom of t are Satterthwaite's.

    Far in the tail, where a correction for many comparisons looks, it is steadier than the interval's critical value,
    which is fitted to the usual levels. It is 1 without a variance to judge by, and for a difference of exactly 0.
    """
    if math.isinf(difference.se) or difference.mean == 0:
        return 1.0
    return 0.0 if difference.se == 0 else _tail(abs(difference.mean / difference.se), difference.df)


def distinguishable(difference: Interval) -> bool:
    """Return True where the interval excludes 0."""
    return difference.low > 0 or difference.high < 0


def _by_prompt(
    residuals: NDArray[np.float64], groups: NDArray[Any] | None, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    """Return the prompts' contributions to the mean, (S, C), and their effective number.

    The latter is how many equal ones they amount to.
    """
    examples = residuals.shape[1]
    weights = np.ones(examples) if weights is None else weights
    if groups is not None:
        index = np.unique(groups, return_inverse=True)[1]
        clusters = int(index.max()) + 1
        weights = np.bincount(index, weights).astype(np.float64)
        if clusters < examples:
            sums = np.stack([np.bincount(index, row, clusters) for row in residuals])
            residuals = sums * clusters / examples
    return residuals, float(weights.sum() ** 2 / (weights @ weights))


def _components(centered: NDArray[np.float64], df: int) -> dict[str, tuple[float, int]]:
    """Return (part of the mean's variance, degrees of freedom) of seeds and of prompts.

    Each is there only if there are several.
    """
    seeds, examples = centered.shape
    by_seed, by_example = centered.mean(1), centered.mean(0)
    parts = {}
    rest = 0.0
    if seeds > 1:
        parts["seeds"] = (float(by_seed @ by_seed) / (seeds * (seeds - 1)), seeds - 1)
        if examples > 1:
            left = centered - by_seed[:, None] - by_example
            rest = float((left * left).sum()) / ((seeds - 1) * (examples - 1) * seeds * examples)
    if examples > 1:
        own = float(by_example @ by_example) / (examples * (examples - 1)) - rest
        # The means of few seeds may coincide by chance, above all for accuracies. The standard error is therefore at
        # least half of the rest's alone: with only the rest, coverage is then 96.1%; with all of it, it would be 98.9%.
        parts["examples"] = (max(0.0, own, rest / 4 - sum(part for part, _ in parts.values())), df)
    return parts


def _skewness(residuals: NDArray[np.float64]) -> float:
    """Return the sample skewness of values with mean 0."""
    second = float(np.mean(residuals**2))
    return float(np.mean(residuals**3)) / second**1.5 if len(residuals) > 2 and second > 0 else 0.0


def _hall(quantile: float, a: float) -> float:
    """Return the T with g(T) = `quantile`, after Hall 1992, JRSS B 54, equation 2.3.

    g(T) - a / 6 is ((1 + a T / 3)^3 - 1) / a.
    """
    if abs(a) < 1e-6:
        return quantile
    return 3 / a * (math.cbrt(1 + a * (quantile - a / 6)) - 1)


def _tail(t: float, df: float) -> float:
    """Return P(|T| > t) under Student's distribution.

    For many degrees of freedom the normal one is used. With T = sqrt(df) tan(angle) the density is proportional to
    cos(angle)^(df - 1).
    """
    if df > 1e6:
        return math.erfc(t / math.sqrt(2))
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scale = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
    edges = np.linspace(math.atan(t / math.sqrt(df)), math.pi / 2, 9)  # in pieces: the mass is near the lower end
    half = np.diff(edges)[:, None] / 2
    found = float((scale * half * weights * np.cos(edges[:-1, None] + half * (nodes + 1)) ** (df - 1)).sum())
    return min(1.0, found)


@lru_cache(maxsize=4096)
def student(df: int, level: float = 0.95) -> float:
    """Return the t with P(|T| < t) = `level` under Student's distribution.

    With T = sqrt(df) tan(angle) the density is proportional to cos(angle)^(df - 1), which the Gauss-Legendre rule
    integrates to twelve digits.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scale = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))

    def inside(angle: float) -> float:
        return float(scale * angle / 2 * (weights * np.cos((nodes + 1) / 2 * angle) ** (df - 1)).sum())

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)
