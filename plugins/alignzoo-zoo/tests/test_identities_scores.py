"""Identities of losses that read scores, win rates, quantiles or labels of safety."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, build, completion, exactly, losses
from notation import Completion, Pair, log_sigmoid, sigmoid

EVERY = [row for rows in PAIRS.values() for row in rows]


def scored(rows: list[Pair], chosen: float, rejected: float) -> list[Pair]:
    return [Pair(replace(row.chosen, score=chosen), replace(row.rejected, score=rejected)) for row in rows]


def times(factor: float, values: list[float]) -> list[float]:
    return [factor * value for value in values]


def test_reward_rpos_backward_kl_is_cdpo_with_the_scores_as_labels_minus_their_entropy():
    """So its gradient is that of soft-label DPO, which Compose-RL calls rcdpo."""
    for d in (0.3, 2.0):
        p = sigmoid(d)
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        cdpo = losses("cdpo", EVERY, beta=0.5, label_smoothing=1 - p)
        assert losses("reward_rpo", scored(EVERY, d, 0.0), beta=0.5) == exactly([one - entropy for one in cdpo])


def test_reward_rpos_forward_kl_is_exo():
    e = 0.2
    rows = scored(EVERY, math.log((1 - e) / e), 0.0)
    exo = losses("exo_pair", EVERY, beta=0.5, label_smoothing=e)
    assert losses("reward_rpo", rows, variant="fwd_kl", beta=0.5) == exactly(exo)


def test_the_squared_losses_are_one_up_to_scale():
    """NVIDIA's sq is REBEL times beta^2; REBEL with a constant gap is IPO; GPO's square is IPO with tau = beta / 2."""
    beta = 0.4
    rebel = losses("rebel", EVERY, eta=1 / beta)
    assert losses("reward_rpo", EVERY, variant="sq", beta=beta) == exactly(times(beta**2, rebel))
    assert losses("rebel", scored(EVERY, 0.5, 0.0), eta=1 / beta) == exactly(losses("ipo", EVERY, beta=beta))
    ipo = losses("ipo", EVERY, beta=beta / 2)
    assert losses("gpo", EVERY, link="square", beta=beta) == exactly(times(beta**2, ipo))


def test_sppo_with_sure_win_rates_is_half_of_sppo_hard():
    rows = [Pair(replace(row.chosen, win_rate=1.0), replace(row.rejected, win_rate=0.0)) for row in EVERY]
    assert losses("sppo", rows, beta=0.1) == exactly(times(0.5, losses("sppo_hard", EVERY, beta=0.1)))


def test_mappo_is_dpo_with_sure_scores_and_dpo_shift_with_a_constant_gap():
    assert losses("mappo", scored(EVERY, 1.0, 0.0)) == exactly(losses("dpo", EVERY))
    assert losses("mappo", scored(EVERY, 0.9, 0.2)) == exactly(losses("dpo_shift", EVERY, shift=0.7))
    assert losses("mappo", scored(EVERY, 7.0, 1.0)) == exactly(losses("dpo", EVERY))


def with_columns(y: Completion) -> Completion:
    return replace(y, columns={"mine": y.score, "a": y.other_score / 2, "b": y.other_score})


def test_a_recipe_names_the_columns_of_scores():
    """By another name the same numbers are the same loss; two columns count by their weights."""
    rows = [replace(row, chosen=with_columns(row.chosen), rejected=with_columns(row.rejected)) for row in EVERY]
    for name in ("reward_rpo", "rebel", "mappo"):
        assert losses(name, rows, score="mine") == exactly(losses(name, EVERY)), name
    assert losses("modpo", rows, others={"a": 1.0, "b": 0.5}) == exactly(losses("modpo", EVERY))


@pytest.mark.parametrize("transform", ["identity", "log"])
@pytest.mark.parametrize("beta", [0.05, 0.7])
def test_qrpos_partition_function_is_that_of_a_uniform_quantile(transform, beta):
    """Z is the mean of e^(g(u) / beta) over u in [0, 1], here by a midpoint sum: the loss is zero at the optimum."""
    g = {"identity": lambda u: u, "log": math.log}[transform]
    middles = [(k + 0.5) / 200_000 for k in range(200_000)]
    log_z = math.log(math.fsum(math.exp(g(u) / beta) for u in middles) / len(middles))
    sides = [replace(completion([(g(u) / beta - log_z, 0.0)], 0), quantile=u) for u in (0.8, 0.3)]
    assert losses("qrpo", [Pair(*sides)], beta=beta, transform=transform) == pytest.approx([0.0], abs=1e-10)


def labeled(chosen: int, rejected: int) -> list[Pair]:
    return [Pair(replace(row.chosen, safe=chosen), replace(row.rejected, safe=rejected)) for row in EVERY]


def test_safe_dpo_is_dpo_of_relabeled_pairs():
    swapped = [Pair(row.rejected, row.chosen) for row in EVERY]
    assert losses("safe_dpo", labeled(1, 1)) == exactly(losses("dpo", EVERY))
    assert losses("safe_dpo", labeled(1, 0), delta=0.0) == exactly(losses("dpo", EVERY))
    assert losses("safe_dpo", labeled(0, 1), delta=0.0) == exactly(losses("dpo", swapped))
    assert losses("safe_dpo", labeled(0, 0)) == [0.0] * len(EVERY)
    margin = [-log_sigmoid(0.1 * (row.chosen.r - row.rejected.r) - 3.0) for row in EVERY]
    assert losses("safe_dpo", labeled(1, 0), delta=3.0) == exactly(margin)


def test_safe_dpo_gives_no_weight_to_pairs_of_two_unsafe_completions():
    rows = [*labeled(1, 1)[:1], *labeled(0, 1)[:1], *labeled(0, 0)[:1], *labeled(1, 0)[:1]]
    assert BY_NAME["safe_dpo"]().weight(build(BY_NAME["safe_dpo"], rows)).tolist() == [1, 1, 0, 1]


def test_bfpo_of_two_safe_completions_is_ipo_and_its_targets_fall_with_safety():
    assert losses("bfpo", labeled(1, 1), beta=0.2) == exactly(losses("ipo", EVERY, beta=0.2))
    targets = [1.0, 0.5, -0.5, -1.0]
    for labels, target in zip([(1, 0), (1, 1), (0, 0), (0, 1)], targets, strict=True):
        expected = [(row.chosen.r - row.rejected.r - target / 0.2) ** 2 for row in EVERY]
        assert losses("bfpo", labeled(*labels), beta=0.2) == exactly(expected)
