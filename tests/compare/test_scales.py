"""Intervals of shares, costs and areas under a curve against printed values, and a slice of their coverage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from alignzoo.compare import simulated
from alignzoo.compare.coverage import of_mean, of_share
from alignzoo.compare.scales import COST, POSITIVE, SHARE, estimate, paired
from alignzoo.compare.statistics import interval
from alignzoo.evaluation.area import pseudovalues

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "interval_coverage.json"


def share(events: int, n: int) -> np.ndarray:
    return (np.arange(n) < events).astype(float)[None]


def test_a_share_has_wilsons_interval():
    """Of 3 in 40, Wilson's with z is [0.0258, 0.1986] (statsmodels 0.14, proportion_confint); ours has Student's t."""
    found = estimate(share(3, 40), SHARE)
    assert (found.low, found.high) == pytest.approx((0.0258360, 0.1986423), abs=0.008)
    p, n, c = 0.075, 39, found.critical  # se^2 = p (1 - p) / 39
    for end in (found.low, found.high):
        assert (p - end) ** 2 == pytest.approx(c**2 * end * (1 - end) / n)


@pytest.mark.parametrize("events", [0, 12])
def test_all_alike_is_no_certainty_and_prompts_count_once(events):
    one, twice = (
        estimate(share(events, 12), SHARE),
        estimate(np.repeat(share(events, 12), 2, 1), SHARE, np.arange(24) // 2),
    )
    width = 2.200985**2 / (12 + 2.200985**2)  # Wilson's at 0 of 12 with t at 11 degrees of freedom
    assert one.high - one.low == pytest.approx(width, abs=1e-5)
    assert (twice.low, twice.high, twice.clusters) == (one.low, one.high, 12)


def test_no_bound_leaves_the_figures_range():
    few = np.r_[np.zeros(30), 50.0][None]
    assert estimate(few, POSITIVE).low == 0
    assert estimate(few).low < 0
    high = paired(share(40, 40), share(1, 40), SHARE)
    assert high.high == 1


def test_costs_have_a_geometric_mean_and_a_relative_difference():
    """Expected: scipy 1.16, stats.gmean and stats.t.interval of the logs."""
    seconds = np.array([[61.0], [66.0], [90.0]])
    found = estimate(seconds, COST)
    assert (found.mean, found.low, found.high) == pytest.approx((71.29166538, 42.77676129, 118.81454788))
    by = paired(seconds, 2 * seconds * np.array([[1.0], [1.1], [1 / 1.1]]), COST)
    assert by.mean == pytest.approx(-0.5)
    assert -1 < by.low < by.high < 0


def labeled(scores: np.ndarray, good: np.ndarray) -> np.ndarray:
    right = np.sign(scores[good][:, None] - scores[~good][None]) / 2 + 0.5
    out = np.empty(len(scores))
    out[good], out[~good] = right.mean(1), right.mean(0)
    return out


def test_the_area_under_the_curve_has_delongs_variance():
    """S10 / m + S01 / n of DeLong et al. 1988, equation 4, and the covariance of two areas in their difference."""
    dice = np.random.default_rng(0)
    good = np.arange(200) % 4 == 0
    one, other = (labeled(dice.normal(size=200) + good, good) for _ in range(2))
    (values, weights), (others, _) = (pseudovalues(row, good, ~good) for row in (one, other))
    assert values.mean() == pytest.approx(one[good].mean())

    def delong(row: np.ndarray) -> float:
        return math.sqrt(row[good].var(ddof=1) / 50 + row[~good].var(ddof=1) / 150)

    found = estimate(values[None], SHARE, weights=weights)
    assert found.se == pytest.approx(delong(one), rel=0.01)  # N / (N - 1) for m / (m - 1) and n / (n - 1)
    assert found.effective == pytest.approx(4 * 50 * 150 / 200)
    assert paired(values[None], others[None], SHARE, weights=weights).se == pytest.approx(delong(one - other), rel=0.01)


def test_completions_of_one_prompt_have_obuchowskis_variance():
    """Each prompt's sums of both placements: var is C / (C - 1) sum (d10 / m + d01 / n)^2 (1997, equations 4 to 6)."""
    dice = np.random.default_rng(1)
    prompts = np.repeat(np.arange(60), 3)
    good = np.tile([True, False, False], 60)
    row = labeled(dice.normal(size=60)[prompts] + 0.5 * dice.normal(size=180) + good, good)
    values, weights = pseudovalues(row, good, ~good)
    d = (row - row[good].mean()) / np.where(good, 60, 120)
    want = math.sqrt(60 / 59 * (np.bincount(prompts, d) ** 2).sum())
    assert estimate(values[None], SHARE, prompts, weights).se == pytest.approx(want)


def test_a_few_prompts_that_differ_one_way_are_no_proof():
    """McNemar's exact p of 4 differences, all one way, is 1/8; of 8 it is 1/128."""
    for differing, apart in ((4, False), (8, True)):
        found = paired(share(100 + differing, 200), share(100, 200), SHARE)
        assert (found.low > 0) is apart
    assert paired(share(9, 20), share(9, 20), SHARE).high > 0


def test_what_is_simulated_is_looked_up():
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text()).get("looked_up", {})
        for name, sizes in found.items():
            shipped = getattr(simulated, name)
            assert {str(n): [list(case) for case in cases] for n, cases in shipped.items()} == sizes, name
    assert of_share(200, 30.0) is None
    assert of_share(200, 2.0) is not None
    assert of_mean(2000, 0.1) is None
    assert of_mean(10, 3.0) < 0.93  # lognormal at sigma 1.5


@pytest.mark.parametrize("case", ["share 0.1", "lognormal 0.5", "lognormal 1", "area", "clustered"])
def test_coverage(case):
    """400 seeded cases above 10 events or at the size that is promised; 93% to 99%, less two standard errors."""
    dice, hits = np.random.default_rng(list(case.encode())), 0
    for _ in range(400):
        if case == "share 0.1":
            truth, found = 0.1, estimate((dice.random((1, 150)) < 0.1).astype(float), SHARE)
        elif case.startswith("lognormal"):
            sigma = float(case.split()[1])
            truth, found = math.exp(sigma**2 / 2), interval(dice.lognormal(0, sigma, (1, 30 if sigma < 1 else 300)))
        elif case == "area":
            good = np.arange(120) % 3 == 0
            truth = NormalDist().cdf(1 / math.sqrt(2))
            values, weights = pseudovalues(labeled(dice.normal(size=120) + good, good), good, ~good)
            found = estimate(values[None], SHARE, weights=weights)
        else:
            prompts = np.repeat(np.arange(60), dice.integers(1, 6, 60))
            z = math.sqrt(0.7) * dice.normal(size=60)[prompts] + math.sqrt(0.3) * dice.normal(size=(1, len(prompts)))
            truth, found = 0.5, estimate((z > 0).astype(float), SHARE, prompts)
        hits += found.low <= truth <= found.high
    assert 0.908 <= hits / 400 <= 0.995
