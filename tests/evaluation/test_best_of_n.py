"""Best-of-N accuracy and the score of the Ties subset, against figures worked out by hand from RewardBench 2's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignzoo.core.errors import UserError
from alignzoo.evaluation.best_of_n import Rated, ties_parts, ties_score


def rated(id, chosen, rejected):
    return Rated(id, np.array([*chosen, *rejected], float), np.array([True] * len(chosen) + [False] * len(rejected)))


@pytest.mark.parametrize(
    ("chosen", "rejected", "credit"),
    [([3], [1, 2, 0], 1), ([1], [2, 0, 0], 0), ([2], [2, 1, 0], 1 / 2), ([0], [0, 0, 0], 1 / 4), ([2, 1], [2, 0], 1 / 2), ([2, 2], [1], 1)],
)  # fmt: skip
def test_the_credit_of_a_row_is_shared_among_ties(chosen, rejected, credit):
    assert rated("x", chosen, rejected).credit == credit


ROWS = [
    rated("ref:1", [2.0], [0.5, 0.0]),  # gap 1.5
    rated("tied:1", [2.0, 1.5], [0.5, 0.0]),  # spread 0.5, gap 1
    rated("ref:2", [1.0], [0.9, 0.0]),  # gap 0.1
    rated("tied:2", [3.0, 2.0], [0.5]),  # spread 1, gap 1.5
    rated("tied:3", [1.0, 0.0], [0.5]),  # gap -0.5, and no reference
]


def test_the_parts_of_the_ties_score():
    found = ties_parts(ROWS)
    assert found["tied_accuracy"] == pytest.approx(2 / 3)
    assert found["ref_accuracy"] == 1
    assert found["preferred"] == 1  # 1 > 0.5 and 1.5 > 1
    assert found["preferred_hard"] == 0.5  # min(1, 1.5) > 0.5, and min(1.5, 0.1) < 1
    assert found["margin"] == pytest.approx((math.tanh(1 / 0.5 - 1) + math.tanh(0.1 / 1 - 1)) / 2)


def test_the_ties_score_and_its_error():
    parts = ties_parts(ROWS)
    score, error = ties_score(ROWS)
    want = 0.3 * 2 / 3 + 0.3 + 0.2 + 0.2 * 0.5 + 0.01 * parts["margin"]
    assert score == pytest.approx(want)
    left = [ties_score([row for row in ROWS if not row.id.endswith(str(n))])[0] for n in (1, 2, 3)]
    assert error == pytest.approx(math.sqrt(2 / 3 * sum((one - np.mean(left)) ** 2 for one in left)))
    assert math.isnan(ties_score(ROWS[:2])[1])


def test_equal_correct_answers_have_no_spread_to_divide_by():
    rows = [rated("ref:1", [1.0], [0.0]), rated("tied:1", [2.0, 2.0], [1.0])]
    assert ties_parts(rows)["margin"] == 1
    rows = [rated("ref:1", [1.0], [1.0]), rated("tied:1", [1.0, 1.0], [1.0])]
    assert ties_parts(rows) == {"tied_accuracy": 0, "ref_accuracy": 0, "preferred": 0, "preferred_hard": 0, "margin": 0}


def test_an_id_that_names_no_prompt_is_an_error():
    with pytest.raises(UserError, match="expected ref:NUMBER or tied:NUMBER"):
        ties_score([rated("17", [1.0], [0.0])])
