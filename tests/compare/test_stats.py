"""Intervals of a comparison: what they reduce to, what must not change them, and how often they have the truth."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from alignzoo.compare.statistics import METHOD, difference, distinguishable, interval, student

Z = NormalDist().inv_cdf(0.975)
T = {1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622, 30: 2.0423, 199: 1.9720}
"""From a printed table: two-sided, 5%."""


def table(seeds=3, examples=40, seed_sd=0.5, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    return 1 + rng.normal(size=examples) + seed_sd * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, examples))


def ends(found):
    return found.mean, found.low, found.high, found.se


@pytest.mark.parametrize("df", T)
def test_students_t_is_the_printed_one(df):
    assert student(df) == pytest.approx(T[df], abs=6e-5)


def test_students_t_at_other_levels():
    assert student(2, 0.99) == pytest.approx(9.9248, abs=1e-4)
    assert student(1, 0.5) == pytest.approx(1)  # Cauchy's quartile
    assert student(10**6) == pytest.approx(Z, abs=1e-5)


def test_one_number_a_run_gives_students_interval_over_seeds():
    seconds = np.array([[10.0], [12.0], [17.0]])
    found = interval(seconds)
    assert (found.seeds, found.examples) == (3, 1)
    assert found.mean == pytest.approx(13)
    assert found.high - found.mean == pytest.approx(T[2] * seconds.std(ddof=1) / math.sqrt(3), rel=1e-4)


def test_one_seed_gives_students_interval_over_examples_and_says_that_it_saw_no_other():
    values = table(seeds=1, examples=200)
    found = interval(values, skewed=False)
    assert found.high - found.mean == pytest.approx(T[199] * values.std(ddof=1) / math.sqrt(200), rel=1e-4)
    assert not found.seed_variance_seen
    assert interval(table()).seed_variance_seen


def test_one_seed_agrees_with_the_paired_bootstrap():
    rng = np.random.default_rng(5)
    one, other = (rng.random((1, 400)) < 0.7).astype(float), (rng.random((1, 400)) < 0.6).astype(float)
    found = difference(one, other)
    d = (one - other)[0]
    means = d[rng.integers(400, size=(20_000, 400))].mean(1)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975])), abs=1 / 400
    )  # one example


def test_seeds_that_are_all_alike_count_as_one():
    values = table(seeds=1)
    assert ends(interval(np.repeat(values, 4, 0))) == pytest.approx(ends(interval(values)))


def test_seeds_that_differ_by_a_constant_have_the_sum_of_both_variances():
    by_example, by_seed = table(seeds=1, examples=50), np.array([[0.0], [0.3], [0.9]])
    found = interval(by_example + by_seed)
    assert found.se**2 == pytest.approx(by_example.var(ddof=1) / 50 + by_seed.var(ddof=1) / 3)


@pytest.mark.slow
def test_the_variance_is_estimated_without_bias():
    """The mean of se^2 over many tables is the variance of the mean over them."""
    rng = np.random.default_rng(2)
    found = [
        interval(rng.normal(size=30) + 0.2 * rng.normal(size=(3, 1)) + 2 * rng.normal(size=(3, 30)))
        for _ in range(4000)
    ]
    truth = 1 / 30 + 0.04 / 3 + 4 / 90
    assert np.mean([one.se**2 for one in found]) == pytest.approx(truth, rel=0.05)
    assert np.var([one.mean for one in found]) == pytest.approx(truth, rel=0.07)


def test_a_seed_effect_widens_the_interval_and_more_seeds_narrow_it():
    def width(seeds, seed_sd):
        return np.mean([interval(table(seeds, 200, seed_sd, n)).se for n in range(50)])

    assert width(3, 1.0) > 3 * width(3, 0.0)
    assert width(12, 1.0) < 0.7 * width(3, 1.0)


def test_pairing_cancels_what_both_share():
    hard, lucky = 10 * np.random.default_rng(1).normal(size=100), np.array([[0.0], [3.0], [-4.0]])
    one, other = (table(examples=100, seed_sd=0, rng_seed=n) + hard + lucky for n in (1, 2))
    assert difference(one, other).se < 0.1 * interval(one).se


def test_a_difference_is_the_interval_of_the_differences():
    one, other = table(rng_seed=1), table(rng_seed=2)
    assert difference(one, other) == interval(one - other)
    back = difference(other, one)
    assert (back.low, back.high) == pytest.approx((-difference(one, other).high, -difference(one, other).low))


def test_no_order_matters():
    values = table()
    rng = np.random.default_rng(3)
    shuffled = values[rng.permutation(3)][:, rng.permutation(40)]
    assert ends(interval(shuffled)) == pytest.approx(ends(interval(values)))


def test_units_do_not_matter():
    values = table()
    found, scaled, shifted = (np.array(ends(interval(x))) for x in (values, 7 * values, values + 1e6))
    assert scaled == pytest.approx(7 * found)
    assert shifted == pytest.approx(found + np.array([1e6, 1e6, 1e6, 0]), abs=1e-7)
    turned = interval(-values)
    assert (turned.low, turned.high) == pytest.approx((-found[2], -found[1]))


def test_the_same_numbers_give_the_same_interval_and_leave_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    assert interval(table()) == interval(table())
    assert (np.random.get_state()[1] == before).all()


def test_a_higher_level_is_wider():
    widths = [interval(table(), level).high for level in (0.5, 0.9, 0.95, 0.99)]
    assert widths == sorted(set(widths))


def test_examples_without_a_number_are_left_out_for_every_seed():
    values = table()
    holes = values.copy()
    holes[1, 4] = holes[0, 7] = np.nan
    found = interval(holes)
    assert (found.examples, found.dropped) == (38, 2)
    assert ends(found) == ends(interval(np.delete(values, [4, 7], 1)))


def test_a_difference_leaves_out_what_either_has_no_number_for():
    one, other = table(rng_seed=1), table(rng_seed=2)
    kept = difference(np.delete(one, [4, 7], 1), np.delete(other, [4, 7], 1))
    one[1, 4] = other[0, 7] = np.nan
    assert ends(difference(one, other)) == ends(kept)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, -3.3])
@pytest.mark.parametrize("shape", [(1, 7), (3, 7), (3, 1)])
def test_ties_have_no_width(constant, shape):
    found = interval(np.full(shape, constant))
    assert ends(found) == (constant, constant, constant, 0.0)
    assert distinguishable(found) == (constant != 0)


def test_a_single_number_says_nothing():
    found = interval(np.array([[0.7]]))
    assert (found.mean, found.low, found.high) == (0.7, -math.inf, math.inf)
    assert not distinguishable(found)


def test_distinguishable_means_that_zero_is_outside():
    far, near = table() + 5, table() - table().mean() + 0.01
    assert distinguishable(interval(far))
    assert distinguishable(interval(-far))
    assert not distinguishable(interval(near))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(5), "expected \\(seeds, examples\\)"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.full((2, 3), np.nan), "no example has a number for every seed"),
        (np.zeros((2, 0)), "no example has a number for every seed"),
        (np.zeros((0, 3)), "no example has a number for every seed"),
    ],
)
def test_what_has_no_interval_is_rejected(values, said):
    with pytest.raises(ValueError, match=said):
        interval(values)


def test_what_can_not_be_paired_is_rejected():
    with pytest.raises(ValueError, match=r"\(3, 40\) and the baseline \(2, 40\)"):
        difference(table(), table(seeds=2))
    with pytest.raises(ValueError, match="infinite"):
        difference(np.full((1, 2), np.inf), np.full((1, 2), np.inf))
    with pytest.raises(ValueError, match="level"):
        interval(table(), 1.0)


def test_the_method_names_its_sources():
    assert all(word in METHOD for word in ("seeds", "prompt", "paired", "Satterthwaite", "Hall", "Wilson", "DeLong"))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("rest", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_is_95_percent_whatever_the_variance_is_made_of(seeds, rest, share):
    """Without chance: an integral over what the variance of so few seeds may come out as (chi-squared, S - 1 degrees).

    The mean has variance 1: `share` of it is the seeds' own, and of what is left `rest` is noise, the examples' the other
    part. Satterthwaite's interval covers 92.2% at its worst with three seeds, a normal one 81%.
    """
    n, half_degrees = 500, (seeds - 1) / 2
    noise, own = rest * (1 - share), (1 - rest) * (1 - share)
    draws = np.linspace(0, 30, 601)[1:] - 0.025
    weights = draws ** (half_degrees - 1) * np.exp(-draws)
    effects = _scaled(np.linspace(-1, 1, seeds), seeds * (share + noise))[:, None]
    example = _scaled(np.tile([1.0, -1.0], n // 2), n * (own + noise))
    contrast = _scaled(np.cos(np.pi * np.arange(seeds) * 2 / seeds), seeds * noise)[:, None]
    mixed = contrast * _scaled(np.tile([1.0, 1.0, -1.0, -1.0], n // 4), n)
    halves = [interval(effects * math.sqrt(draw / half_degrees) + example + mixed).high for draw in draws]
    inside = np.array([math.erf(half / math.sqrt(2)) for half in halves])
    assert 0.949 <= (weights * inside).sum() / weights.sum() <= 0.962


def _scaled(pattern, variance):
    return pattern * math.sqrt(variance / pattern.var(ddof=1))


def test_seeds_that_have_one_mean_by_chance_are_no_proof():
    """Three seeds get three different examples right, and so have the same accuracy; it is not known exactly."""
    found = interval(np.repeat(np.eye(3), [2, 2, 2], 1))
    assert found.mean == pytest.approx(1 / 3)
    assert 0.1 < found.high - found.mean < 0.5


def test_the_standard_error_is_clustered_by_prompt():
    """Expected: statsmodels 0.14 OLS on a constant, cov_type="cluster" without correction, times sqrt(C / (C - 1))."""
    right = np.array([[1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1.0]])
    prompts = np.array(["a", "a", "a", "b", "b", "c", "d", "d", "d", "d", "e", "f"])
    found = interval(right, groups=prompts)
    assert (found.examples, found.clusters) == (12, 6)
    assert found.effective == pytest.approx(144 / 32)
    assert found.se == pytest.approx(0.08606629658238713)
    assert found.mean == pytest.approx(2 / 3)
    order = np.random.default_rng(0).permutation(12)
    assert ends(interval(right[:, order], groups=prompts[order])) == pytest.approx(ends(found))


def test_every_example_of_a_prompt_twice_is_worth_no_more_than_once():
    values = table(examples=60)
    one, twice = interval(values), interval(np.repeat(values, 2, 1), groups=np.repeat(np.arange(60), 2))
    assert ends(twice) == pytest.approx(ends(one))
    assert difference(
        np.repeat(values, 2, 1), np.zeros((3, 120)), groups=np.repeat(np.arange(60), 2)
    ).se == pytest.approx(one.se)


def test_halls_interval_is_where_his_transformation_is_within_the_critical_value():
    values = np.exp(table(seeds=1, examples=30))
    found = interval(values)
    a = found.skewness / math.sqrt(30)
    for end, quantile in ((found.low, found.critical), (found.high, -found.critical)):
        t = (found.mean - end) / found.se
        assert t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6 == pytest.approx(quantile)


COMPARISONS = 500


@pytest.mark.slow
@pytest.mark.parametrize("seed_effect", [0.0, 0.02, 0.05, 0.5])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("kind", ["margin", "accuracy"])
def test_the_true_difference_is_inside_in_95_of_100_comparisons(kind, seeds, seed_effect):
    """500 made-up comparisons of two objectives on 200 examples; the seeds' effect is nothing to dominant.

    The bounds are three standard errors of 500 coins away from 95% (benchmarks/interval_coverage.py has 2,000
    comparisons of each of 75 settings).
    """
    rng = np.random.default_rng([seeds, round(100 * seed_effect), kind == "margin"])
    spread = math.sqrt(4 + 0.25 + 0.5 + seed_effect**2)
    truth = 0.3 if kind == "margin" else NormalDist().cdf(0.8 / spread) - NormalDist().cdf(0.5 / spread)
    inside = 0
    for _ in range(COMPARISONS):
        hard = 2 * rng.normal(size=200)
        margins = [
            mean + hard + 0.5 * rng.normal(size=200) + seed_effect * rng.normal(size=(seeds, 1)) + math.sqrt(0.5) * rng.normal(size=(seeds, 200))
            for mean in (0.5, 0.8)
        ]  # fmt: skip
        low, high = margins if kind == "margin" else [(x > 0).astype(float) for x in margins]
        found = difference(high, low)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / COMPARISONS <= 0.98
