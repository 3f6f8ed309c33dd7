"""Simulate how often the 95% intervals of a comparison cover the true value.

Run as: python benchmarks/interval_coverage.py

Every case starts from a latent normal value of each example and seed, z = prompt + own + noise, of variance 1:

    normal          z                                   lognormal s     exp(s z)
    share p         1 where z is below its quantile p   area            labeled completions whose scores are z + d * label

Clustered cases have prompts of 1 to 5 examples; a half of the variance is the prompt's. Paired differences of two
objectives over seeds whose own effect is nothing to dominant are compared with a bootstrap and with Student's t over
seeds. Writes results/interval_coverage.{json,md} and the table that reports look coverage up in,
alignzoo/compare/simulated.py. Exits with 1 when a case that must cover 93% to 99% is outside by more than two of its standard errors.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import alignzoo
from alignzoo.compare.coverage import BOUNDS, ENOUGH
from alignzoo.compare.scales import SHARE, estimate, paired
from alignzoo.compare.statistics import METHOD, Interval, interval, student
from alignzoo.evaluation.area import pseudovalues

RESULTS = Path(__file__).parent / "results"
LOOKED_UP = Path(alignzoo.__file__).parent / "compare" / "simulated.py"
REPEATS = 1000
RESAMPLES, RIVALS = 1000, 300
SIZES, SEEDS = (30, 100, 300, 2000), (1, 3, 5)
SHARES, SIGMAS, AREAS = (0.02, 0.5, 0.98), (0.5, 1.0), ((0.76, 2), (0.9, 10))
PROMPTS = (3, 5, 10, 20, 30, 50, 100, 300)
"""Of the cases that are looked up."""
Array = NDArray[np.float64]
NORMAL = NormalDist()


class Draw:
    """Values of `seeds` by examples, with the prompts of the examples."""

    def __init__(self, dice: np.random.Generator, seeds: int, prompts: int, clustered: bool) -> None:
        sizes = dice.integers(1, 6, prompts) if clustered else np.ones(prompts, dtype=int)
        self.groups = np.repeat(np.arange(prompts), sizes)
        n, shared = len(self.groups), 0.5 if clustered else 0.0
        lasting = math.sqrt(shared) * dice.normal(size=prompts)[self.groups] + math.sqrt(0.7 - shared) * dice.normal(
            size=n
        )
        self.z: Array = lasting + math.sqrt(0.3) * dice.normal(size=(seeds, n))

    def share(self, p: float) -> Interval:
        return estimate((self.z < NORMAL.inv_cdf(p)).astype(float), SHARE, self.groups)

    def mean(self, sigma: float) -> Interval:
        return interval(np.exp(sigma * self.z) if sigma else self.z, groups=self.groups)

    def area(self, distance: float, every: int) -> Interval:
        """One example in `every` is desirable."""
        good = np.arange(self.z.shape[1]) % every == 0
        scores = self.z + distance * good
        placed = [placements(row, good) for row in scores]
        found = [pseudovalues(row, good, ~good) for row in placed]
        return estimate(np.stack([values for values, _ in found]), SHARE, self.groups, found[0][1])


def placements(scores: Array, good: NDArray[np.bool_]) -> Array:
    """Share of the other kind that is on its right side; there are no ties."""
    out = np.empty(len(scores))
    out[good] = np.searchsorted(np.sort(scores[~good]), scores[good]) / (~good).sum()
    out[~good] = 1 - np.searchsorted(np.sort(scores[good]), scores[~good]) / good.sum()
    return out


def events(found: Interval) -> float:
    p = found.mean
    return min(p, 1 - p) * p * (1 - p) / found.se**2 if found.se else 0.0


def cover(
    name: str, seeds: int, prompts: int, clustered: bool, truth: float, get: Callable[[Draw], Interval], repeats: int
) -> dict[str, Any]:
    """Coverage over `repeats` draws, and the medians by which a case is looked up."""
    dice = np.random.default_rng([*name.encode(), seeds, prompts, clustered])
    found = [get(Draw(dice, seeds, prompts, clustered)) for _ in range(repeats)]
    return {
        "case": name, "clustered": clustered, "prompts": prompts, "seeds": seeds, "truth": truth,
        "coverage": float(np.mean([one.low <= truth <= one.high for one in found])),
        "width": float(np.mean([one.high - one.low for one in found])),
        "effective": float(np.median([one.effective for one in found])),
        "skewness": float(np.median([abs(one.skewness) for one in found])),
        "events": float(np.median([events(one) for one in found])),
    }  # fmt: skip


def kinds() -> Iterator[tuple[str, float, Callable[[Draw], Interval]]]:
    """(name, truth, interval of a draw)."""
    yield "normal", 0.0, lambda draw: draw.mean(0.0)
    for s in SIGMAS:
        yield f"lognormal {s:g}", math.exp(s**2 / 2), lambda draw, s=s: draw.mean(s)
    for p in SHARES:
        yield f"share {p:g}", p, lambda draw, p=p: draw.share(p)
    for area, every in AREAS:
        d = NORMAL.inv_cdf(area) * math.sqrt(2)
        yield f"area {area:g}, 1 in {every}", area, lambda draw, d=d, every=every: draw.area(d, every)


def looked_up(repeats: int) -> dict[str, dict[int, list[tuple[float, float]]]]:
    """The cases that reports look up, one seed: prompts -> (skewness or events, coverage).

    Of independent and of clustered examples the case that is further from 95% counts.
    """
    out: dict[str, dict[int, list[tuple[float, float]]]] = {"MEAN": {}, "SHARE": {}, "AREA": {}}

    def worst(*case: Any) -> dict[str, Any]:
        both = [cover(case[0], 1, case[1], clustered, *case[2:], repeats) for clustered in (False, True)]
        return max(both, key=lambda one: abs(one["coverage"] - 0.95))

    for n in PROMPTS:
        cases = [worst(f"mean {s}", n, math.exp(s**2 / 2) if s else 0.0, lambda draw, s=s: draw.mean(s))
                 for s in (0.0, 0.5, 1.0, 1.5)]  # fmt: skip
        out["MEAN"][n] = [(round(one["skewness"], 2), round(one["coverage"], 3)) for one in cases]
        few = [k for k in (1, 2, 5, 10) if k <= n / 2]
        cases = [worst(f"events {k}", n, k / n, lambda draw, p=k / n: draw.share(p)) for k in few]
        out["SHARE"][n] = [(round(one["events"], 2), round(one["coverage"], 3)) for one in cases]
    for n in PROMPTS:
        cases = []
        for area in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            d = NORMAL.inv_cdf(area) * math.sqrt(2)
            few = [every for every in (2, 10) if 2 * every <= n]
            for every in few or [2]:
                cases.append(
                    cover(
                        f"area {area} {every}", 1, n, False, area, lambda draw, d=d, e=every: draw.area(d, e), repeats
                    )
                )
        for one in cases:
            size = max((p for p in PROMPTS if p <= one["effective"] * 1.05), default=min(PROMPTS))
            out["AREA"].setdefault(size, []).append((round(one["events"], 2), round(one["coverage"], 3)))
    return {kind: {n: sorted(cases) for n, cases in sorted(by.items())} for kind, by in out.items()}


def difference_over_seeds(kind: str, seeds: int, effect: float, n: int = 200) -> dict[str, Any]:
    """Two objectives whose own seeds' effect is `effect` times what examples and noise put into their difference."""
    dice = np.random.default_rng([seeds, round(10 * effect), len(kind)])
    means, own_example, noise = (0.5, 0.8), 0.5, 0.7
    without = math.sqrt(2 * (own_example**2 + noise**2 / seeds) / n)
    own_seed = effect * without * math.sqrt(seeds / 2)
    spread = math.sqrt(4 + own_example**2 + own_seed**2 + noise**2)
    share = kind == "accuracy"
    truth = NORMAL.cdf(means[1] / spread) - NORMAL.cdf(means[0] / spread) if share else means[1] - means[0]
    hits = dict.fromkeys(("alignzoo", "two-way bootstrap", "t over seeds"), 0)
    for repeat in range(REPEATS):
        hard = 2 * dice.normal(size=n)
        low, high = (
            mean + hard + own_example * dice.normal(size=n) + own_seed * dice.normal(size=(seeds, 1)) + noise * dice.normal(size=(seeds, n))
            for mean in means
        )  # fmt: skip
        if share:
            low, high = (low > 0).astype(float), (high > 0).astype(float)
        found = paired(high, low, SHARE if share else "")
        hits["alignzoo"] += found.low <= truth <= found.high
        if repeat < RIVALS:
            for name, ends in (("two-way bootstrap", bootstrap), ("t over seeds", over_seeds)):
                start, end = ends(high - low, dice)
                hits[name] += bool(start <= truth <= end)
    return {"kind": kind, "seeds": seeds, "effect": effect} | {
        name: hit / (REPEATS if name == "alignzoo" else RIVALS) for name, hit in hits.items()
    }


def over_seeds(d: Array, _: np.random.Generator) -> tuple[float, float]:
    """Student's interval of the seeds' means: as if every seed had its own test set."""
    means = d.mean(1)
    half = student(len(d) - 1) * means.std(ddof=1) / math.sqrt(len(d))
    return means.mean() - half, means.mean() + half


def bootstrap(d: Array, dice: np.random.Generator) -> tuple[float, float]:
    """Owen's pigeonhole bootstrap (2007, arXiv:0712.1111), percentiles."""
    rows, columns = (dice.multinomial(k, np.full(k, 1 / k), RESAMPLES) / k for k in d.shape)
    low, high = np.quantile(((columns @ d.T) * rows).sum(1), (0.025, 0.975))
    return float(low), float(high)


def promised(one: dict[str, Any]) -> bool:
    """Whether a case is one whose interval is shown without a simulated coverage."""
    kind, _, parameter = one["case"].partition(" ")
    if kind == "lognormal":
        return one["prompts"] >= (30 if parameter == "0.5" else 300)
    return kind == "normal" or min(one["events"], one["effective"]) > ENOUGH


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows))


def markdown(result: dict[str, Any], seconds: float) -> str:
    cases, over = result["cases"], result["over_seeds"]
    held = [100 * one["coverage"] for one in cases if promised(one)]
    by: dict[tuple[str, bool], dict[tuple[int, int], dict[str, Any]]] = {}
    for one in cases:
        by.setdefault((one["case"], one["clustered"]), {})[one["prompts"], one["seeds"]] = one
    rows = [
        [f"{name}{', clustered' if clustered else ''}",
         *(f"{100 * some[n, s]['coverage']:.1f}{'' if promised(some[n, s]) else '*'}" for n in SIZES for s in SEEDS)]
        for (name, clustered), some in by.items()
    ]  # fmt: skip
    seeds = [[one["kind"], str(one["seeds"]), f"{one['effect']:g}", *(f"{100 * one[name]:.1f}" for name in list(one)[3:])]
             for one in over]  # fmt: skip
    shown = [
        [kind.lower(), f"{n}", ", ".join(f"{place:g}: {100 * share:.1f}" for place, share in cases)]
        for kind, sizes in result["looked_up"].items() for n, cases in sizes.items()
    ]  # fmt: skip
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return f"""# Coverage of the 95% intervals

Percent of {REPEATS:,} simulated cases whose interval covers the true value; one standard error is {100 * math.sqrt(0.95 * 0.05 / REPEATS):.1f}
(half as many, and 1.0, with 2,000 prompts).

> {METHOD}

Above 10 prompts and 10 events, for lognormal figures from 30 prompts at sigma 0.5 and from 300 at sigma 1, coverage is
{min(held):.1f} to {max(held):.1f}. `*` marks cases below that. "1 in 10": one completion in ten is desirable. Clustered: prompts of 1
to 5 examples with half of the variance.

{table(["figure; prompts x seeds", *(f"{n:,} x {s}" for n in SIZES for s in SEEDS)], rows)}

## Paired differences over seeds

200 examples. Seed effect: standard deviation that the objective's own seeds put into the difference, in multiples of what
examples and noise put in. The rivals are measured on the first {RIVALS}.

{table(["figure", "seeds", "seed effect", "alignzoo", "two-way bootstrap", "t over seeds"], seeds)}

## What reports look up

Below the limits above a report prints the simulated coverage behind an interval, that of the nearest case here: of means by
prompts and sample skewness, of shares and areas by prompts and events (skewness or events: coverage).

{table(["figure", "prompts", "cases"], shown)}

Command: `python benchmarks/interval_coverage.py` ({seconds:.0f} s of one core; {versions}).
"""


def module(cases: dict[str, dict[int, list[tuple[float, float]]]]) -> str:
    lines = [
        '"""Simulated coverage by prompts: (skewness or events, coverage).',
        "",
        "Written by benchmarks/interval_coverage.py.",
        '"""',
        "",
    ]
    for name, sizes in cases.items():
        lines += [
            f"{name} = {{",
            *(f"    {n}: ({', '.join(map(str, some))},)," for n, some in sizes.items()),
            "}  # fmt: skip",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    start = time.process_time()
    cases = [
        cover(name, seeds, prompts, clustered, truth, get, REPEATS if prompts < 2000 else REPEATS // 2)
        for name, truth, get in kinds() for clustered in (False, True) for prompts in SIZES for seeds in SEEDS
    ]  # fmt: skip
    over = [
        difference_over_seeds(kind, s, e) for kind in ("margin", "accuracy") for s in (2, 3, 5) for e in (0.0, 1.0, 5.0)
    ]
    found = looked_up(REPEATS)
    versions = {"alignzoo": alignzoo.__version__, "numpy": version("numpy"), "Python": platform.python_version()}
    result = {"versions": versions, "cases": cases, "over_seeds": over, "looked_up": found}
    LOOKED_UP.write_text(module(found))
    (RESULTS / "interval_coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "interval_coverage.md").write_text(markdown(result, time.process_time() - start))
    slack = 2 * math.sqrt(0.95 * 0.05 / REPEATS)
    missed = [one for one in cases if promised(one) and not BOUNDS[0] - slack <= one["coverage"] <= BOUNDS[1] + slack]
    for one in missed:
        print(f"covers {one['coverage']:.3f}: {one}")
    print(f"{len(cases)} cases, {len(missed)} outside {BOUNDS}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
