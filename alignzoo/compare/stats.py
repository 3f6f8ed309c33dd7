"""How sure a figure of a comparison is: intervals over seeds and held-out examples together.

A figure is a mean over S seeds and N examples, the same examples for every seed. Another seed would have given another
model, another test set other examples, so both are random, and crossed: y_si = mean + seed_s + example_i + rest_si.
The variance of the mean is estimated without bias by A + B, with

    A = var(the seeds' means) / S, which has S - 1 degrees of freedom,
    B = var(the examples' means) / N - what the rest adds to that, with about N - 1 (at least 0, see below),

and the interval is mean +- c sqrt(A + B), where c^2 = z^2 + the sum over both of

    (t^2 - z^2) share^2 (1 + 3 share (1 - share) / degrees of freedom):

Student's factor t of one of them where it is all there is, the normal's z where many degrees of freedom stand behind
the variance. To first order in 1 / degrees of freedom that is the interval of Satterthwaite (1946) and Welch (1947).
Theirs covers 92.2% of cases at worst with three seeds; the last factor is fitted to the exact coverage, which is then
94.9% to 95.8% for any share (tests), and 95% in simulations (benchmarks/interval_coverage.py). Nothing is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

METHOD = (
    "95% intervals are over seeds and held-out examples at once: the variance of the seeds' means plus what the "
    "examples add to it, each with the Student factor of its own number (crossed random effects, after Satterthwaite "
    "1946 and Welch 1947), because a bootstrap over a handful of seeds is too narrow. Differences are taken example by "
    "example and seed by seed first, as in a paired bootstrap, so that what is hard or lucky for both objectives "
    "cancels; two objectives are told apart when the interval of their difference leaves out 0."
)
"""What a report says below its table, at the default level. Of the bootstrap: Owen 2007, arXiv:0712.1111."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and what it may be, in the figure's own unit."""

    mean: float
    low: float
    high: float
    se: float
    """Standard error of the mean; the interval is wider than 1.96 of them where seeds or examples are few."""
    seeds: int
    examples: int
    """That have a number for every seed."""
    dropped: int
    """Examples without."""

    @property
    def seed_variance_seen(self) -> bool:
        """False for one seed: the interval then speaks of this one model, not of what the objective gives."""
        return self.seeds > 1


def interval(values: NDArray[np.floating], level: float = 0.95) -> Interval:
    """The mean of `values`, shape (S seeds, N examples), and an interval that has the true mean in `level` of cases.

    Examples that are nan for a seed are left out. N = 1 (seconds of a run) gives Student's interval over seeds, S = 1
    the one over examples, S = N = 1 the whole line. Raises ValueError for another shape, an infinite value, no example
    left, or a level outside (0, 1).
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"values have shape {found.shape}; expected (seeds, examples)")
    if np.isinf(found).any():
        raise ValueError("a value is infinite: its mean says nothing")
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a number between 0 and 1")
    kept = found[:, ~np.isnan(found).any(0)]
    seeds, examples = kept.shape
    if not kept.size:
        raise ValueError("no example has a number for every seed")
    first = kept[0, 0]
    mean = float(first + (kept - first).mean())  # exact where all are the same, so that a tie has no width
    components = _components(kept - mean)
    variance = sum(value for value, _ in components)
    if not components:
        half, se = math.inf, math.inf
    elif variance == 0:
        half, se = 0.0, 0.0
    else:
        se, z = math.sqrt(variance), NormalDist().inv_cdf((1 + level) / 2)
        shares = [(value / variance, df) for value, df in components]
        more = sum((student(df, level) ** 2 - z**2) * w**2 * (1 + 3 * w * (1 - w) / df) for w, df in shares)
        half = se * math.sqrt(z**2 + more)
    return Interval(mean, mean - half, mean + half, se, seeds, examples, found.shape[1] - examples)


def difference(values: NDArray[np.floating], baseline_values: NDArray[np.floating], level: float = 0.95) -> Interval:
    """How much more the mean of `values` is than the baseline's: paired by example and by seed, both (S, N).

    Row s of both is the same seed, so the same order of the data. Raises ValueError as `interval` does, and where the
    shapes differ.
    """
    one, other = np.asarray(values, dtype=np.float64), np.asarray(baseline_values, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"values have shape {one.shape} and the baseline {other.shape}: nothing to pair")
    if np.isinf(one).any() or np.isinf(other).any():
        raise ValueError("a value is infinite: its mean says nothing")
    return interval(one - other, level)


def distinguishable(difference: Interval) -> bool:
    """Whether the interval leaves out 0: the data can tell the two apart."""
    return difference.low > 0 or difference.high < 0


def _components(centred: NDArray[np.float64]) -> list[tuple[float, int]]:
    """(part of the mean's variance, degrees of freedom) of seeds and of examples; none where there is one of each."""
    seeds, examples = centred.shape
    by_seed, by_example = centred.mean(1), centred.mean(0)
    parts = []
    rest = 0.0
    if seeds > 1:
        parts.append((float(by_seed @ by_seed) / (seeds * (seeds - 1)), seeds - 1))
        if examples > 1:
            left = centred - by_seed[:, None] - by_example
            rest = float((left * left).sum()) / ((seeds - 1) * (examples - 1) * seeds * examples)
    if examples > 1:
        own = float(by_example @ by_example) / (examples * (examples - 1)) - rest
        # Few seeds may all have one mean by chance, accuracies above all: the standard error is at least half of what
        # the rest alone gives. At all of it 98.9% would be covered where there is nothing but the rest, and so 96.1%.
        parts.append((max(0.0, own, rest / 4 - sum(part for part, _ in parts)), examples - 1))
    return parts


@lru_cache(maxsize=4096)
def student(df: int, level: float = 0.95) -> float:
    """The t with P(|T| < t) = `level` under Student's distribution.

    With T = sqrt(df) tan(angle) the density is proportional to cos(angle)^(df - 1), which Gauss and Legendre's rule
    integrates to twelve digits over any angle.
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
