"""What single objectives promise beyond their formula: what they keep, draw, move and ask."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, UNPAIRED, build, completion, exactly, losses
from notation import Pair, log_sigmoid


def test_beta_dpos_beta_is_that_of_the_pairs_it_keeps():
    """The paper filters first. Pairs kept in proportion to a normal density: of these, the outlier goes."""
    rows = [*PAIRS["near"], *PAIRS["near"], PAIRS["far"][1]]
    cls = BY_NAME["beta_dpo"]
    objective, example = cls(keep=0.8, alpha=2.0), build(cls, rows, {"mean": 0.0, "deviation": 0.01})
    kept = objective.weight(example).tolist()
    assert kept == [1.0, 1.0, 1.0, 1.0, 0.0]
    alone = losses("beta_dpo", rows[:4], {"mean": 0.0, "deviation": 0.01}, keep=1.0, alpha=2.0)
    assert objective.loss(example).tolist() == exactly([*alone, 0.0])


def test_bcos_shift_is_halfway_between_the_kinds_whatever_their_numbers():
    """And a kind that is not in the batch keeps its mean."""
    cls, rows = BY_NAME["bco"], UNPAIRED["ragged"]
    objective = cls(beta=0.5, momentum=0.0)
    for some in (rows, rows[:3]):
        state = objective.next_state(build(cls, some, {"desirable": 9.0, "undesirable": 9.0}))
        for kind in (True, False):
            mine = [0.5 * row.completion.r for row in some if row.desirable == kind]
            assert state["desirable" if kind else "undesirable"] == pytest.approx(sum(mine) / len(mine))
    state = cls(momentum=0.5).next_state(build(cls, rows[:1], {"desirable": 0.2, "undesirable": 0.3}))
    assert state == pytest.approx({"desirable": 0.1 + 0.005 * rows[0].completion.r, "undesirable": 0.3})


def test_exo_is_zero_where_the_model_agrees_with_the_smoothed_label():
    beta, e = 0.1, 0.2
    rows = [Pair(completion([(math.log((1 - e) / e) / beta, 0.0)], 0), completion([(0.0, 0.0)], 0))]
    assert losses("exo_pair", rows, beta=beta, label_smoothing=e) == pytest.approx([0.0], abs=1e-14)


def test_sampo_draws_the_same_tokens_of_policy_and_reference_and_all_of_the_shorter():
    """Tokens with the largest uniforms, which are dropped, may be anything."""
    row = PAIRS["ragged"][0]
    dropped = sorted(range(row.rejected.n), key=lambda token: row.rejected.uniform[token])[row.chosen.n :]
    wild = replace(
        row.rejected,
        tokens=tuple(-9.0 if i in dropped else value for i, value in enumerate(row.rejected.tokens)),
        ref_tokens=tuple(-0.1 if i in dropped else value for i, value in enumerate(row.rejected.ref_tokens)),
    )
    assert wild != row.rejected
    assert losses("sampo", [Pair(row.chosen, wild)]) == losses("sampo", [row])


def test_r_dpo_asks_less_of_a_longer_chosen_completion():
    """The paper's reward is r - alpha |y|: a margin that length could explain is worth less."""
    row = PAIRS["ragged"][0]
    longer = replace(row.rejected, tokens=(*row.chosen.tokens, -1.0), ref_tokens=(*row.chosen.ref_tokens, -1.0))
    first, second = losses("r_dpo", [Pair(longer, row.chosen), Pair(row.chosen, longer)], alpha=0.5)
    assert first == pytest.approx(-log_sigmoid(0.5))
    assert second == pytest.approx(-log_sigmoid(-0.5))


@pytest.mark.parametrize(("alpha", "every"), [(0.6, 1), (1.0, 3)])
def test_tr_dpo_moves_its_reference_every_so_many_steps(alpha, every):
    objective = BY_NAME["tr_dpo"](alpha=alpha, every=every)
    assert [objective.reference_update(step) for step in range(1, 7)] == [
        0.0 if step % every else alpha for step in range(1, 7)
    ]


def test_aot_does_not_care_which_rejected_completion_came_with_which_chosen_one():
    rows = PAIRS["ragged"]
    shuffled = [Pair(row.chosen, other.rejected) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    assert sum(losses("aot_unpaired", rows)) == exactly(sum(losses("aot_unpaired", shuffled)))
    assert sum(losses("aot", rows)) == exactly(sum(losses("aot", rows[::-1])))


def test_bema_moves_its_reference_every_so_many_steps_and_corrects_its_lag():
    """By the paper's powers of the step."""
    objective = BY_NAME["bema_dpo"](every=2, kappa=0.5, eta=0.2, lag=6.0, gamma=2.0)
    assert [objective.reference_update(step) for step in (1, 2, 3, 5)] == [0.0, pytest.approx(10**-0.5), 0.0, 0.0]
    assert objective.reference_correction(2) == pytest.approx(10**-0.2)


def test_discopop_far_from_its_bend_is_logistic_below_and_exponential_above():
    rows = PAIRS["far"]
    dpo = losses("dpo", rows, beta=0.5)
    got = losses("discopop", rows, beta=0.5, temperature=1e-3)
    for row, logistic, loss in zip(rows, dpo, got, strict=True):
        h = row.chosen.r - row.rejected.r
        assert loss == pytest.approx(logistic if h < 0 else math.exp(-0.5 * h), rel=1e-12)
