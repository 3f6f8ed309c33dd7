"""Computed values that rounding alone keeps apart are tied, and a tie is one half wherever it is met."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from zoo import make

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.evaluation.metrics.normalized_accuracy import NormalizedAccuracy
from alignzoo.evaluation.row_metrics import row_metrics
from alignzoo.interfaces import ties
from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch

DOUBLE = torch.float64


def test_the_tolerance_is_1e_5_and_eight_float32_ulps_of_the_largest_sum():
    sums = torch.tensor([0.0, 1.0, -700.0], dtype=DOUBLE), torch.tensor([3.0, -0.5, 20.0], dtype=DOUBLE)
    want = [1e-5 + 8 * float(np.spacing(np.float32(x))) for x in (3.0, 1.0, 700.0)]
    assert ties.tolerance(*sums).tolist() == pytest.approx(want, rel=1e-6)


def test_groups_are_cut_where_sorted_neighbors_are_further_apart():
    values = torch.tensor([3e-5, 0.0, 1.0, 1e-5, 2e-5, 1.00002, 5.0], dtype=DOUBLE)
    assert ties.tie_groups(values, 1.1e-5).tolist() == [0, 0, 1, 0, 0, 2, 3]
    assert ties.tie_groups(torch.tensor([2.0, 1.0, 2.0])).tolist() == [1, 0, 1]


def test_ties_share_the_mean_of_their_ranks():
    groups = torch.tensor([[1, 0, 1, 2], [0, 0, 0, 0]])
    assert ties.by_rank(groups, torch.arange(4.0)).tolist() == [[1.5, 0, 1.5, 3], [1.5] * 4]


def test_a_tie_is_half_a_win():
    better, worse = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([0.5, 1.0, 1.0 + 1e-6, 1.5])
    assert ties.wins(better, worse, 1e-5).tolist() == [1, 0.5, 0.5, 0]
    assert ties.wins(better, worse).tolist() == [1, 0.5, 0, 0]


def test_half_of_a_bends_slope_counts_within_the_rounding():
    x = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(ties.hinge(x, 1e-5).sum(), x)
    assert slope.tolist() == [0, 0.5, 0.5, 0.5, 1]


def flat_of(policy: list[list[float]], reference: list[list[float]], rows: list[int]) -> tuple[Trees, ScoredBatch]:
    """Sequences by their tokens' log-probs, `rows` of them to each row."""
    branches = iter([Branch(np.arange(1, len(one) + 1, dtype=np.int32)) for one in policy])
    items = [Tree(f"row {i}", np.array([1]), tuple(itertools.islice(branches, n))) for i, n in enumerate(rows)]
    values = {
        name: torch.tensor([x for one in side for x in one], dtype=torch.float32)
        for name, side in (("log_prob", policy), ("ref_log_prob", reference))
    }
    return Trees.build(items, {}), ScoredBatch(
        list(range(len(rows))), rows, np.array([len(one) for one in policy]), values
    )


def test_a_log_ratio_is_the_sum_of_the_tokens_differences():
    """Three hundred tokens of -9: the two sums are known to 2e-4, their difference to the last bit of a small number."""
    reference = [[-9.0] * 300, [-9.0] * 200]
    policy = [[-9.0 + 2**-20] * 300, [-9.0] * 200]
    trees, flat = flat_of(policy, reference, [2])
    supply = BatchBuilder(make("dpo"), trees)
    (given,) = supply.examples(flat, supply.objective)
    assert given.example.margin.tolist() == [300 * 2**-20]
    sums = given.example.chosen.log_prob - given.example.chosen.ref_log_prob
    assert sums.tolist() != [300 * 2**-20]


@pytest.mark.parametrize("name", ["dpo", "cpo", "simpo", "ipo", "f_dpo"])
def test_an_accuracy_counts_rounding_as_one_half_and_any_more_as_a_difference(name):
    base = [[-9.0] * 300, [-9.0] * 300]
    ulp = float(np.spacing(np.float32(9)))
    moved = [[x + ulp * (i % 3 == 0) for i, x in enumerate(base[0])], base[1]]
    further = [[x + 64 * ulp for x in base[0]], base[1]]
    trees, flat = flat_of(base + moved + further, base * 3, [2, 2, 2])
    found = row_metrics(BatchBuilder(make(name), trees), flat, ("preference_accuracy", "likelihood_accuracy"))
    assert found["preference_accuracy"].tolist() == [0.5, 0.5, 1]
    assert found["likelihood_accuracy"].tolist() == [0.5, 0.5, 1]


def test_a_metric_counts_rounding_as_one_half():
    one = Pair(scored([-700.0, -700.0]), scored([-700.0 + 1e-4, -699.0]))
    assert NormalizedAccuracy().values(one, make("dpo")).tolist() == [0.5, 0]


def scored(values, columns=None) -> Scored:
    log_prob = torch.tensor(values, dtype=DOUBLE, requires_grad=True)
    zeros = torch.zeros_like(log_prob)
    return Scored(log_prob, zeros + 1, zeros, None, columns or {})


def slopes(objective, example, sides) -> list[list[float]]:
    found = torch.autograd.grad(objective.loss(example).sum(), [side.log_prob for side in sides])
    return [one.tolist() for one in found]


NOISE = [1e-6, -3e-6, 2e-6, 0.0, -1e-6, 4e-6]


@pytest.mark.parametrize("name", ["aot", "aot_unpaired", "alpha_dpo", "dpop", "beta_dpo"])
def test_what_rounding_a_policy_has_at_its_reference_decides_nothing(name):
    """The gradient of a batch is that of exact ties, whichever way the rounding goes."""
    objective = make(name)
    found = []
    for sign in (0.0, 1.0, -1.0):
        chosen, rejected = scored([sign * x for x in NOISE]), scored([-sign * x for x in NOISE[::-1]])
        uniform = torch.tensor([0.9, 0.1, 0.5, 0.7, 0.3, 0.2], dtype=DOUBLE)
        pair = Pair(chosen, rejected, _state=objective.initial_state(), _uniform=uniform)
        found.append(np.array(slopes(objective, pair, [chosen, rejected])))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
    assert np.abs(found[0]).max() > 1e-3


SCORES = [3.0, 2.0, 1.0, 0.0]


def lipo(order) -> np.ndarray:
    """The gradient of LiPO-lambda's loss at rewards of 0 with completions ranked in this order, in plain numbers."""
    rank = {k: place + 1 for place, k in enumerate(order)}
    slope, beta = np.zeros(4), 0.05
    for i, j in itertools.combinations(range(4), 2):
        cost = abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
        weight = (2 ** SCORES[i] - 2 ** SCORES[j]) * cost * beta / 2
        slope[i], slope[j] = slope[i] - weight, slope[j] + weight
    return slope


def test_lipo_lambda_takes_the_mean_over_the_orders_of_ties():
    want = np.mean([lipo(order) for order in itertools.permutations(range(4))], axis=0)
    for noise in ([0.0] * 4, [1e-6, -2e-6, 3e-6, 0.0]):
        lists = scored([noise], {"score": torch.tensor([SCORES], dtype=DOUBLE)})
        assert slopes(make("lipo_lambda"), Ranked(lists), [lists])[0][0] == pytest.approx(want, rel=1e-4)


REWARDS = [0.3, -1.2, 0.8, 2.0]
PLACES = [0, 1, 1, 1]


def plackett_luce(rewards) -> float:
    return math.fsum(math.log(math.fsum(map(math.exp, rewards[k:]))) - rewards[k] for k in range(len(rewards)))


def test_equal_scores_are_in_every_order_for_plackett_luce_and_half_each_for_rrhf():
    ranked = Ranked(scored([REWARDS]), torch.tensor([PLACES]))
    want = statistics.mean(plackett_luce([REWARDS[0], *tied]) for tied in itertools.permutations(REWARDS[1:]))
    assert make("pl_dpo", beta=1.0).loss(ranked).item() == pytest.approx(want, rel=1e-12)
    first = math.fsum(max(0.0, other - REWARDS[0]) for other in REWARDS[1:])
    tied = math.fsum(abs(a - b) / 2 for a, b in itertools.combinations(REWARDS[1:], 2))
    assert make("rrhf", alpha=0.0).loss(ranked).item() == pytest.approx(first + tied, rel=1e-12)


def test_equal_scores_of_a_list_are_neither_right_nor_wrong():
    trees, flat = flat_of([[-1.0], [-2.0], [-3.0]], [[0.0]] * 3, [3])
    trees.columns["score"] = np.array([2.0, 1.0, 1.0], np.float32)
    supply = BatchBuilder(make("pl_dpo"), trees)
    assert supply.places(flat).tolist() == [0, 1, 1]
    found = row_metrics(supply, flat, ("preference_accuracy",))
    assert found["preference_accuracy"].tolist() == pytest.approx([(1 + 1 + 0.5) / 3])
