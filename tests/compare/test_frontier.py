"""Frontiers of reward against KL: the hull against all chords, readings by hand, and the bootstrap's coverage."""

from __future__ import annotations

import numpy as np
import pytest

from alignzoo.compare.frontier import Checkpoints, Frontiers, Reading, dominates, frontier, hull, read, still_rises


def highest_chord(kl, reward, at):
    """The concave hull by its definition: the highest point at `at` between any two points."""
    best = -np.inf
    for i in range(len(kl)):
        for j in range(len(kl)):
            if kl[i] == kl[j] == at:
                best = max(best, reward[i], reward[j])
            elif kl[i] <= at <= kl[j] and kl[i] < kl[j]:
                best = max(best, reward[i] + (reward[j] - reward[i]) * (at - kl[i]) / (kl[j] - kl[i]))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_hull_is_the_highest_chord(seed):
    random = np.random.default_rng(seed)
    kl, reward = random.gamma(2, 2, 12).round(1), random.normal(size=12).round(1)
    corners = hull(kl, reward)
    assert list(kl[corners]) == sorted(set(kl[corners]))
    at = np.linspace(kl.min(), kl.max(), 23)
    expected = [highest_chord(kl, reward, one) for one in at]
    assert read(kl[corners], reward[corners], at) == pytest.approx(expected)


def test_the_hull_of_equal_and_collinear_points():
    assert hull(np.array([0.0, 1.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0, 0.5])) == [0, 2]
    assert hull(np.array([0.0]), np.array([0.3])) == [0]
    assert hull(np.array([0.0, 0.0]), np.array([0.3, 0.4])) == [1]


def test_beyond_the_last_point_nothing_is_read():
    assert read(np.array([2.0, 0.0]), np.array([1.0, 0.0]), np.array([0.5, 2.0, 2.1])) == pytest.approx(
        [0.25, 1.0, np.nan], nan_ok=True
    )


def test_corners_are_chosen_on_one_half_and_read_on_the_other():
    """Two checkpoints at a KL of 1: each half prefers one, and the other half says what it is worth."""
    kl = np.array([[0, 0], [1, 1], [1.25, 1.25]], dtype=float)
    reward = np.array([[0, 0], [1, 0.2], [0.1, 0.8]], dtype=float)
    first, once = np.array([True, False]), np.ones(2)
    # the first half's corners: start, and (1, 1), and (1.25, 0.1), as the hull keeps what lies right of the best
    # read on the second: 0.2 at a KL of 1; the second's corners: start and (1.25, 0.8), read on the first: 0.08
    assert frontier(kl, reward, first, np.array([1.0]), once) == pytest.approx([(0.2 + 0.1 / 1.25) / 2])
    # a prompt that counts twice weighs nothing more where it is alone in its half
    assert frontier(kl, reward, first, np.array([1.0]), np.array([2.0, 1.0])) == pytest.approx([(0.2 + 0.08) / 2])


def test_a_kl_is_reached_if_both_halves_do():
    kl, reward = np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])
    found = frontier(kl, reward, np.array([True, False]), np.array([1.0, 2.0]), np.ones(2))
    assert found == pytest.approx([(1 / 3 + 1) / 2, np.nan], nan_ok=True)


def made(random, slope, prompts=40, seeds=1, checkpoints=4):
    """The start and checkpoints at KLs of 1, 2, ... whose reward is slope * sqrt(KL) and noise of each prompt."""
    levels = np.arange(0.0, checkpoints + 1)[:, None]
    shape = len(levels), prompts
    kl = [levels + (levels > 0) * random.normal(0, 0.3, shape) for _ in range(seeds)]
    reward = [slope * np.sqrt(levels) + random.normal(0, 0.3, shape) for _ in range(seeds)]
    return Checkpoints(kl, reward)


def test_methods_are_compared_with_the_same_draws():
    random = np.random.default_rng(0)
    high, low = made(random, 1.0), made(random, 0.5)
    first = np.arange(40) % 2 == 0
    found = Frontiers({"high": high, "low": low, "twin": high}, first, [1, 2, 8], draws=200)
    one, _, far = found.of("high")
    assert one.value == pytest.approx(1.0, abs=0.2)
    assert one.bounds[0] < one.value < one.bounds[1]
    assert far == Reading(8.0, None, reached=0.0)
    assert [(r.value, r.bounds) for r in found.difference("high", "twin")[:2]] == [(0.0, (0.0, 0.0))] * 2
    assert dominates(found.difference("high", "low")) is True
    assert dominates(found.difference("low", "high")) is False
    assert dominates(found.difference("high", "low")[2:]) is None
    again = Frontiers({"high": high, "low": low, "twin": high}, first, [1, 2, 8], draws=200)
    assert again.of("high") == found.of("high")


def test_seeds_are_part_of_the_interval():
    random = np.random.default_rng(1)
    alike, apart = made(random, 1.0, seeds=3), made(random, 1.0, seeds=3)
    apart = Checkpoints(apart.kl, [own + shift for own, shift in zip(apart.reward, (-0.5, 0.0, 0.5), strict=True)])
    first = np.arange(40) % 2 == 0
    found = Frontiers({"alike": alike, "apart": apart}, first, [2.0], draws=200)
    narrow, wide = found.of("alike")[0], found.of("apart")[0]
    assert np.ptp(wide.bounds) > 2 * np.ptp(narrow.bounds)


@pytest.mark.slow
def test_the_interval_of_one_method_covers_its_frontier():
    """At a KL of 2, a corner of the true frontier: 95% intervals of many samples of prompts contain it."""
    random = np.random.default_rng(2)
    first = np.arange(60) % 2 == 0
    hits = 0
    for _ in range(100):
        found = Frontiers({"one": made(random, 1.0, prompts=60)}, first, [2.0], draws=150)
        reading = found.of("one")[0]
        hits += reading.bounds[0] <= np.sqrt(2) <= reading.bounds[1]
    assert hits >= 88  # of 95 expected; the chance of fewer is below 0.5%


def test_wrong_shapes_are_refused():
    random = np.random.default_rng(3)
    first = np.arange(40) % 2 == 0
    with pytest.raises(ValueError, match="seeds"):
        Frontiers({"a": made(random, 1.0), "b": made(random, 1.0, seeds=2)}, first, [1.0], draws=1)
    with pytest.raises(ValueError, match="half"):
        Frontiers({"a": made(random, 1.0)}, np.ones(40, dtype=bool), [1.0], draws=1)


def test_a_reward_that_still_rises():
    random = np.random.default_rng(4)
    before = random.normal(size=50)
    assert still_rises(before + 0.2 + random.normal(0, 0.1, 50), before)
    assert not still_rises(before + random.normal(0, 1, 50), before)
    assert not still_rises(before - 0.2, before)
