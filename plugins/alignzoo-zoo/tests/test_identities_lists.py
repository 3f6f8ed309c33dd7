"""Identities of losses on lists, of reward models, and of losses that take ties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import PAIRS, RANKED, completion, exactly, losses
from notation import Pair, log_sigmoid

EVERY = [row for rows in PAIRS.values() for row in rows]


@pytest.mark.parametrize(
    ("name", "fields", "other"),
    [
        ("pl_dpo", {}, "dpo"),
        ("infonca", {"temperature": 1e-4, "beta": 0.1}, "dpo"),
        ("nca", {"temperature": 1e-4}, "nca_pair"),
    ],
)
def test_a_list_of_two_with_a_sure_score_is_a_pair(name, fields, other):
    assert losses(name, RANKED["two of two"], **fields) == exactly(losses(other, PAIRS["ragged"]))


def test_rrhf_of_a_list_is_the_sum_over_its_pairs():
    """Of the hinge alone: the likelihood of the best is there once."""
    for rows in RANKED.values():
        for row in rows:
            couples = [(better, worse) for k, better in enumerate(row) for worse in row[k + 1 :]]
            assert losses("rrhf", [row], alpha=0.0) == exactly([sum(losses("rrhf", couples, alpha=0.0))])


def test_pros_temperatures_are_distances_of_scores():
    """With scores one apart, PRO of two is Plackett-Luce of the mean log-probs."""
    for row in RANKED["two of two"]:
        better, worse = replace(row[0], score=3.0), replace(row[1], score=2.0)
        expected = -log_sigmoid(better.mean - worse.mean)
        assert losses("pro", [(better, worse)], alpha=0.0) == exactly([expected])
        further = replace(worse, score=-1.0)
        assert losses("pro", [(better, further)], alpha=0.0) == exactly([-log_sigmoid(4 * (better.mean - worse.mean))])


def test_lipo_of_two_is_dpo_times_the_weight_of_the_swap():
    lists, pairs = RANKED["two of two"], PAIRS["ragged"]
    swap = 1 / math.log(2) - 1 / math.log(3)
    expected = [
        (2**row.chosen.score - 2**row.rejected.score) * swap * loss
        for row, loss in zip(pairs, losses("dpo", pairs), strict=True)
    ]
    assert losses("lipo_lambda", lists, beta=0.1) == exactly(expected)


def test_a_reward_model_without_margin_is_bradley_terry():
    rows = [Pair(replace(row.chosen, margin=0.0), replace(row.rejected, margin=0.0)) for row in EVERY]
    assert losses("bradley_terry_margin", rows, centering=0.1) == exactly(losses("bradley_terry", rows, centering=0.1))


def test_reward_models_of_a_list_of_two_are_bradley_terry():
    pairs, lists = PAIRS["ragged"], RANKED["two of two"]
    expected = losses("bradley_terry", pairs, centering=0.0)
    assert losses("plackett_luce", lists) == exactly(expected)
    assert losses("bradley_terry_list", lists) == exactly(expected)
    one = [Pair(replace(row.chosen, margin=1.0), replace(row.rejected, margin=1.0)) for row in pairs]
    assert losses("bradley_terry_scaled", one, centering=0.1) == exactly(losses("bradley_terry", one, centering=0.1))


def test_plackett_luce_of_scores_is_pl_dpos_of_rewards():
    for rows in RANKED.values():
        asked = [tuple(replace(y, scalar=0.3 * y.r) for y in row) for row in rows]
        assert losses("plackett_luce", asked) == exactly(losses("pl_dpo", rows, beta=0.3))


def test_eurus_adds_a_classifier_to_bradley_terry():
    """Its second part is `bco_pair` of scores in the place of rewards."""
    for row in EVERY:
        w, x = row.chosen.scalar, row.rejected.scalar
        as_rewards = Pair(completion([(w, 0.0)], 0), completion([(x, 0.0)], 0))
        both = losses("bradley_terry", [row], centering=0.0)[0] + losses("bco_pair", [as_rewards], beta=1.0)[0]
        assert losses("bradley_terry_absolute", [row]) == exactly([both])


def outcomes(name: str, at: float, **fields) -> list[float]:
    """Probabilities of a win, a loss and a tie of one pair with h (or the difference of scores) as given."""
    y = completion([(at, 0.0)], 0, scalar=at)
    other = completion([(0.0, 0.0)], 0, scalar=0.0)
    rows = [Pair(y, other), Pair(other, y), Pair(y, other, True)]
    return [math.exp(-loss) for loss in losses(name, rows, **fields)]


@pytest.mark.parametrize("at", [0.0, 0.7, -3.0, 12.0])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("dpo_rk", {"beta": 1.0}), ("dpo_rk", {"beta": 0.3, "nu": 1.1}), ("dpo_d", {"beta": 1.0}),
        ("todo", {"beta": 1.0}),
        ("bradley_terry_ties", {"centering": 0.0}), ("bradley_terry_ties", {"model": "davidson", "centering": 0.0}),
    ],
)  # fmt: skip
def test_win_loss_and_tie_are_all_outcomes(name, fields, at):
    assert math.fsum(outcomes(name, at, **fields)) == exactly(1.0)


def test_the_defaults_make_half_of_the_equal_pairs_ties():
    for name, fields in (("dpo_rk", {}), ("dpo_d", {}), ("bradley_terry_ties", {"centering": 0.0})):
        assert outcomes(name, 0.0, **fields) == exactly([0.25, 0.25, 0.5])


def test_however_many_ties_there_are_their_loss_is_finite():
    """-log p of a win is alpha - z, and a tie is sure, up to e^-alpha."""
    wins, ties = ([replace(row, tied=tied) for row in EVERY] for tied in (False, True))
    margins = [row.chosen.r - row.rejected.r for row in EVERY]
    assert losses("todo", wins, alpha=1e4, beta=1.0) == pytest.approx([1e4 - z for z in margins])
    assert losses("todo", ties, alpha=1e4, beta=1.0) == pytest.approx([0.0] * len(EVERY), abs=1e-10)


def test_bradley_terry_ties_have_the_given_share_at_equal_scores():
    for model in ("rao_kupper", "davidson"):
        assert outcomes("bradley_terry_ties", 0.0, model=model, p=0.2, centering=0.0) == exactly([0.4, 0.4, 0.2])


def test_without_ties_they_are_dpo_and_bradley_terry():
    """In the limit of nu = 1, or 0 for Davidson's."""
    wins = [replace(row, tied=False) for row in EVERY]
    near = {"rel": 1e-6, "abs": 1e-9}
    assert losses("dpo_rk", wins, nu=1 + 1e-9) == pytest.approx(losses("dpo", wins), **near)
    assert losses("dpo_d", wins, nu=1e-12) == pytest.approx(losses("dpo", wins), **near)
    assert losses("bradley_terry_ties", wins, p=1e-9) == pytest.approx(losses("bradley_terry", wins), **near)


@pytest.mark.parametrize("at", [0.0, 0.7, -3.0])
def test_davidsons_ties_are_those_of_the_r_package(at):
    """BradleyTerry2's GenDavidsonTie with tie.scale 1: logit of a tie by p, a win among pairs without one."""
    nu, p = 0.3, 1 / (1 + math.exp(-at))
    delta, weight = math.log(nu), 0.5
    logit = delta - 2 * weight * math.log(weight) + weight * math.log(p) + weight * math.log(1 - p)
    win, lose, tie = outcomes("dpo_d", at, beta=1.0, nu=nu)
    assert tie == exactly(1 / (1 + math.exp(-logit)))
    assert win / (win + lose) == exactly(p)


def test_todo_is_dpo_rk_in_alpha():
    assert losses("todo", EVERY, beta=0.3, alpha=0.8) == exactly(losses("dpo_rk", EVERY, beta=0.3, nu=math.exp(0.8)))


@pytest.mark.parametrize("rows", [rows for rows in RANKED.values() if len(rows[0]) > 2])
def test_without_gold_tpo_l_is_simpo(rows):
    pairs = [Pair(row[1], row[-1]) for row in rows]
    assert losses("tpo_l", rows, beta=2.0, gamma=1.0, alpha=0.0) == exactly(losses("simpo", pairs, beta=2.0, gamma=1.0))
