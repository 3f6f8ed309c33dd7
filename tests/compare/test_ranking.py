"""Ranks with a correction for the number of comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measured import Runs, about

from alignzoo.compare.ranking import holm, rank
from alignzoo.compare.statistics import Interval, interval, p_value, student
from alignzoo.compare.table import build


def test_holms_adjusted_p_values_are_the_textbooks():
    """Four p-values with factors 4, 3, 2, 1; the third is below the second, and is raised to it."""
    found = holm({"a": 0.01, "b": 0.02, "c": 0.025, "d": 0.5})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("df", [1, 2, 7, 30])
def test_a_p_value_is_that_of_students_t(df):
    """At the critical value of a level it is what the level leaves; with one degree of freedom Student's t is Cauchy's."""
    for level in (0.5, 0.95, 0.999):
        found = Interval(mean=-student(df, level), low=0, high=0, se=1.0, seeds=1, examples=1, dropped=0, df=df)
        assert p_value(found) == pytest.approx(1 - level, rel=1e-6)
    cauchy = Interval(mean=1e5, low=0, high=0, se=1.0, seeds=1, examples=1, dropped=0, df=1)
    assert p_value(cauchy) == pytest.approx(2 * math.atan(1e-5) / math.pi, rel=1e-9)


def test_a_p_value_with_many_degrees_of_freedom_is_the_normal_one():
    for df in (1e5, math.inf):
        found = Interval(mean=6.0, low=0, high=0, se=1.0, seeds=1, examples=1, dropped=0, df=df)
        assert p_value(found) == pytest.approx(math.erfc(6 / math.sqrt(2)), rel=1e-2)


def test_degrees_of_freedom_are_satterthwaites():
    assert interval(np.random.default_rng(0).normal(size=(1, 50))).df == pytest.approx(49)
    assert interval(np.array([[1.0], [2.0], [4.0]])).df == pytest.approx(2)
    rng = np.random.default_rng(1)
    both = interval(rng.normal(size=50) + 0.1 * rng.normal(size=(3, 50)) + np.array([[0.0], [0.1], [0.3]]))
    assert 2 < both.df < 51


def test_differences_of_nothing_are_no_evidence():
    assert p_value(interval(np.zeros((2, 5)))) == 1.0
    assert p_value(interval(np.array([[3.0]]))) == 1.0
    assert p_value(interval(np.ones((2, 5)))) == 0.0


def test_rows_that_nothing_beats_share_a_rank(tmp_path):
    runs = Runs(tmp_path)
    for label, accuracy in {"a": 0.9, "b": 0.9, "c": 0.6, "d": 0.3}.items():
        for seed in range(3):
            runs.add(label, seed, accuracy=accuracy)
    table = build(about(), runs.entries, baseline="a")
    found = rank(table, table.column("preference_accuracy"))
    assert found.ranks == {"a": 1, "b": 1, "c": 3, "d": 4}
    assert len(found.p_values) == 6
    assert not found.apart("b", "a")
    assert found.apart("d", "c")
    with pytest.raises(ValueError, match="kl has no better direction"):
        rank(table, table.column("kl"))
