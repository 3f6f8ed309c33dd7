"""Best of N from M draws: the estimate is the mean over every subset, as brute force counts them."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from alignzoo.evaluation.best_of_draws import best_of_weights, first_best, kl_bound, score_table, weighted

SCORES = np.array([[0.3, -1.0, 2.5, 0.3, 0.9, -4.0], [1.0, 1.0, 1.0, 0.0, 0.0, 3.0]])
VALUES = np.array([[5.0, 1.0, -2.0, 7.0, 0.5, 3.0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])


def brute_force(scores, values, count: int) -> float:
    """The mean over all subsets of the value of the best draw; of equal ones, the mean value."""
    found = []
    for subset in combinations(range(len(scores)), count):
        best = max(scores[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if scores[i] == best]))
    return float(np.mean(found))


@pytest.mark.parametrize("count", range(1, 7))
def test_every_n_is_the_mean_over_all_subsets(count):
    weights = best_of_weights(SCORES, count)
    assert weights.sum(1) == pytest.approx([1, 1])
    for scores, values, score, value in zip(
        SCORES, VALUES, weighted(SCORES, weights), weighted(VALUES, weights), strict=True
    ):
        assert score == pytest.approx(np.mean([max(s) for s in combinations(scores, count)]))
        assert value == pytest.approx(brute_force(scores, values, count))


def test_equal_scores_are_picked_at_random():
    """The mean over all orders of the draws of the first best is the same."""
    scores, values = SCORES[1], VALUES[1]
    for count in (2, 3, 5):
        by_order = [
            values[order[int(np.argmax(scores[list(order)][:count]))]] for order in map(list, permutations(range(6)))
        ]
        assert weighted(VALUES, best_of_weights(SCORES, count))[1] == pytest.approx(np.mean(by_order))


def test_the_first_n_draws_give_another_estimate_of_the_same():
    dice = np.random.default_rng(0)
    scores = dice.standard_normal((20_000, 4))
    for count, want in ((1, 0.0), (2, 0.5642), (4, 1.0294)):  # means of the largest of N normal numbers
        for weights in (first_best(scores, count), best_of_weights(scores, count)):
            assert weighted(scores, weights).mean() == pytest.approx(want, abs=0.03)


def test_a_draw_without_a_score_is_never_preferred_and_one_without_a_value_does_not_count():
    scores = np.array([[np.nan, 1.0, 0.0]])
    assert best_of_weights(scores, 3).tolist() == [[0, 1, 0]]
    assert best_of_weights(scores, 1).tolist() == [pytest.approx([1 / 3] * 3)]
    assert weighted(np.array([[2.0, np.nan, 4.0]]), np.array([[0.2, 0.6, 0.2]])).tolist() == [pytest.approx(3)]
    assert np.isnan(weighted(np.array([[np.nan, 1.0]]), np.array([[1.0, 0.0]])))[0]
    assert score_table([{"reward": 1.0}, {"reward": None}, {}, {"reward": 2.0}], 2).tolist()[1][1] == 2


def test_n_is_between_1_and_the_number_of_draws():
    for count in (0, 7):
        with pytest.raises(ValueError, match="of 6 draws"):
            best_of_weights(SCORES, count)


def test_the_bound_is_the_papers_and_above_the_kl_of_a_small_case():
    """For draws from K equally likely replies of different scores the KL is a finite sum."""
    assert [round(kl_bound(n), 4) for n in (1, 4, 16, 64, 128)] == [0, 0.6363, 1.8351, 3.1745, 3.8598]
    size = 10
    for count in (1, 2, 4, 64):
        ranks = np.arange(1, size + 1) / size
        best = ranks**count - (ranks - 1 / size) ** count
        kl = float((best * np.log(best * size, where=best > 0, out=np.zeros(size))).sum())
        assert kl <= kl_bound(count) + 1e-12
