"""Do the intervals of `alignzoo.compare.stats` have the true difference as often as they say, and do others?

Run as: python benchmarks/interval_coverage.py

Comparisons with a known difference are made up: two objectives, S seeds, N examples, and a margin for each

    margin = mean + example + seed + its own example + its own seed + noise

where `example` and `seed` are the same for both objectives and cancel in pairs. Noisy margins have no `own example`:
seeds agree about no example. An accuracy is the share of margins above zero. The objective's own seed effect is set so
that its part of the difference's standard deviation is a multiple of the part that examples and noise have: 0 to 5.
Exits with 1 when the coverage of the 2,000 leaves 93% to 97% for three or five seeds.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import alignzoo
from alignzoo.compare.stats import METHOD, difference, student

RESULTS = Path(__file__).parent / "results"
KINDS = ("margin", "heavy-tailed margin", "noisy margin", "accuracy")
SIZES = ((2, 200), (3, 200), (3, 1000), (5, 200), (5, 1000))
SEED_EFFECTS = (0.0, 0.5, 1.0, 2.0, 5.0)
COMPARISONS, RIVALS, RESAMPLES = 2000, 500, 1000
MEANS = (0.5, 0.8)
EXAMPLE, OWN_EXAMPLE, NOISE, SHARED_SEED = 2.0, 0.5, 0.7, 0.2
"""Standard deviations."""
BOUNDS = (0.93, 0.97)
Array = NDArray[np.float64]


class Setting:
    """Comparisons of one kind and size, with their true difference."""

    def __init__(self, kind: str, seeds: int, examples: int, effect: float) -> None:
        self.kind, self.seeds, self.examples, self.effect = kind, seeds, examples, effect
        self._dice = np.random.default_rng([KINDS.index(kind), seeds, examples, round(10 * effect)])
        self.own_seed = 0.0
        if effect:
            without = float(np.std([np.mean(a - b) for a, b in (self.draw() for _ in range(400))]))
            spread, slope = self._spread(), 1.0
            if kind == "accuracy":
                slope = NormalDist().pdf(MEANS[0] / spread) / spread
            self.own_seed = effect * without * math.sqrt(seeds / 2) / slope

    def draw(self) -> tuple[Array, Array]:
        """Both objectives' figures, (S, N)."""
        s, n, normal = self.seeds, self.examples, self._dice.normal
        shared = EXAMPLE * normal(size=n) + SHARED_SEED * normal(size=(s, 1))
        both = []
        for mean in MEANS:
            example, noise = normal(size=n), normal(size=(s, n))
            if self.kind == "heavy-tailed margin":  # Student's with 3 degrees of freedom, of variance 1
                example, noise = (self._dice.standard_t(3, x.shape) / math.sqrt(3) for x in (example, noise))
            own = self.own_seed * normal(size=(s, 1)) + (self.kind != "noisy margin") * OWN_EXAMPLE * example
            both.append(mean + shared + own + NOISE * noise)
        low, high = ((x > 0).astype(float) for x in both) if self.kind == "accuracy" else both
        return high, low

    @property
    def truth(self) -> float:
        """Of the difference, over all seeds and examples that there might be."""
        if self.kind != "accuracy":
            return MEANS[1] - MEANS[0]
        low, high = (NormalDist().cdf(mean / self._spread()) for mean in MEANS)
        return high - low

    def _spread(self) -> float:
        return math.sqrt(EXAMPLE**2 + SHARED_SEED**2 + OWN_EXAMPLE**2 + self.own_seed**2 + NOISE**2)


def over_seeds_alone(d: Array) -> tuple[float, float]:
    """Student's interval of the seeds' means: as if every seed had its own test set."""
    means = d.mean(1)
    half = student(len(d) - 1) * means.std(ddof=1) / math.sqrt(len(d))
    return means.mean() - half, means.mean() + half


def resampling(seeds: int, examples: int, both: bool) -> Callable[[Array], tuple[float, float]]:
    """The percentile bootstrap over examples, or over seeds and examples (Owen's pigeonhole bootstrap)."""
    dice = np.random.default_rng(7)
    columns = dice.multinomial(examples, np.full(examples, 1 / examples), RESAMPLES) / examples
    rows = (
        dice.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
        if both
        else np.full((1, seeds), 1 / seeds)
    )

    def bootstrap(d: Array) -> tuple[float, float]:
        low, high = np.quantile(((columns @ d.T) * rows).sum(1), (0.025, 0.975))
        return float(low), float(high)

    return bootstrap


def measure(setting: Setting) -> dict[str, Any]:
    """Coverage and mean width."""
    rivals: dict[str, Callable[[Array], tuple[float, float]]] = {
        "two_way_bootstrap": resampling(setting.seeds, setting.examples, both=True),
        "bootstrap_of_examples": resampling(setting.seeds, setting.examples, both=False),
        "t_over_seeds": over_seeds_alone,
    }
    truth, covered, widths = setting.truth, [], []
    hits = dict.fromkeys(rivals, 0)
    for n in range(COMPARISONS):
        high, low = setting.draw()
        found = difference(high, low)
        covered.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
        if n < RIVALS:
            for name, rival in rivals.items():
                start, end = rival(high - low)
                hits[name] += bool(start <= truth <= end)
    return {
        "kind": setting.kind, "seeds": setting.seeds, "examples": setting.examples, "seed_effect": setting.effect,
        "truth": truth, "coverage": float(np.mean(covered)), "coverage_of_first": float(np.mean(covered[:RIVALS])),
        "width": float(np.mean(widths)), **{name: hit / RIVALS for name, hit in hits.items()},
    }  # fmt: skip


def markdown(entries: list[dict[str, Any]], seconds: float, versions: dict[str, str]) -> str:
    head = ["kind", "seeds", "examples", "seed effect", "truth", "width", f"{COMPARISONS:,}", f"{RIVALS}",
            "two-way bootstrap", "bootstrap of examples", "t over seeds"]  # fmt: skip
    rows = [
        [
            one["kind"], str(one["seeds"]), f"{one['examples']:,}", f"{one['seed_effect']:g}", f"{one['truth']:.4f}", f"{one['width']:.3f}",
            *(f"{100 * one[key]:.1f}" for key in ("coverage", "coverage_of_first", "two_way_bootstrap", "bootstrap_of_examples", "t_over_seeds")),
        ]
        for one in entries
    ]  # fmt: skip
    table = "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---", *["---:"] * 10], *rows))
    few, enough = ([one for one in entries if (one["seeds"] < 3) == two] for two in (True, False))

    def spread(some: list[dict[str, Any]], key: str) -> str:
        values = [100 * one[key] for one in some]
        return f"{min(values):.1f} to {max(values):.1f}"

    pooled = 100 * float(np.mean([one["coverage"] for one in enough]))
    return f"""# Do 95% intervals have the true difference in 95% of cases?

Percent of made-up comparisons whose interval has the true difference. `seed effect`: standard deviation that the
objective's own seeds put into the difference, in multiples of what examples and noise put in; 5 is dominant (96% of the
variance). Heavy-tailed margins are Student's with 3 degrees of freedom; on noisy ones seeds agree about no example.
The method is `alignzoo.compare.stats`: its first column has {COMPARISONS:,} comparisons (one standard error is 0.5),
the second the first {RIVALS} of them (1.0), on which the others are measured too.

> {METHOD}

| over all settings with three or five seeds | coverage |
| --- | ---: |
| alignzoo, {COMPARISONS:,} comparisons each | {spread(enough, "coverage")}, {pooled:.1f} on average |
| alignzoo, {RIVALS} comparisons each | {spread(enough, "coverage_of_first")} |
| two-way bootstrap, percentile | {spread(enough, "two_way_bootstrap")} |
| bootstrap of the examples, percentile | {spread(enough, "bootstrap_of_examples")} |
| Student's t over the seeds' means | {spread(enough, "t_over_seeds")} |

With two seeds alignzoo's have {spread(few, "coverage")}: one degree of freedom is too little to be exact, and the
intervals are very wide. Use three.

{table}

Command: `python benchmarks/interval_coverage.py`
({seconds:.0f} s on one core; {", ".join(f"{name} {value}" for name, value in versions.items())}).
"""


def main() -> int:
    start = time.perf_counter()
    entries = [
        measure(Setting(kind, seeds, examples, effect))
        for kind in KINDS for seeds, examples in SIZES for effect in SEED_EFFECTS
    ]  # fmt: skip
    versions = {"alignzoo": alignzoo.__version__, "numpy": version("numpy"), "Python": platform.python_version()}
    RESULTS.mkdir(exist_ok=True)
    result = {"versions": versions, "comparisons": COMPARISONS, "method": METHOD, "entries": entries}
    (RESULTS / "interval_coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "interval_coverage.md").write_text(markdown(entries, time.perf_counter() - start, versions))
    missed = [one for one in entries if one["seeds"] > 2 and not BOUNDS[0] <= one["coverage"] <= BOUNDS[1]]
    for one in missed:
        print(f"covers {one['coverage']:.3f}: {one}")
    print(f"{len(entries)} settings, {len(missed)} outside {BOUNDS}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
