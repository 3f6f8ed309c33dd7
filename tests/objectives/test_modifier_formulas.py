"""Every modifier around objectives of every kind of loss and data, in float64 against plain Python."""

from __future__ import annotations

import math

import plain
import pytest
import torch
from plain import LISTS, LOSSES, PAIRS, Two, ratio, slope
from zoo import MODIFIERS, make, modified

from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.objectives.modifiers.margin import Margin

BETA = 0.4
ON_PAIRS = [
    (LengthNormalization(), plain.length_normalization),
    (Margin(value=0.7), lambda pair: plain.margin(pair, 0.7, BETA)),
    (MODIFIERS["length_desensitization"](alpha=0.25), lambda pair: plain.length_desensitization(pair, 0.25)),
    (MODIFIERS["length_desensitization"](alpha=0.0), lambda pair: plain.length_desensitization(pair, 0.0)),
    (MODIFIERS["length_downsampling"](), plain.length_downsampling),
    *[
        (
            MODIFIERS["f_divergence"](divergence=name, alpha=0.3),
            lambda pair, name=name: tuple(plain.f_divergence(y, name) for y in pair),
        )
        for name in plain.DERIVATIVES
    ],
]
"""A modifier and what it makes of a pair's log-ratios."""
EVERY_LOSS = pytest.mark.parametrize("name", LOSSES)


def exactly(values):
    return pytest.approx(values, rel=1e-11, abs=1e-13)


@EVERY_LOSS
@pytest.mark.parametrize(("modifier", "ratios"), ON_PAIRS, ids=lambda one: str(one) if hasattr(one, "name") else "")
def test_a_pairs_loss_is_the_objectives_of_the_modified_log_ratios(name, modifier, ratios):
    got = modified(make(name, beta=BETA), modifier).loss(plain.as_pair())
    assert got.tolist() == exactly([LOSSES[name](*ratios(pair), BETA) for pair in PAIRS])
    untouched = [LOSSES[name](ratio(pair.chosen), ratio(pair.rejected), BETA) for pair in PAIRS]
    changes = getattr(modifier, "divergence", "") != "reverse_kl"
    assert (got.tolist() != exactly(untouched)) is changes


@EVERY_LOSS
@pytest.mark.parametrize("share", [0.0, 0.1, 0.45])
def test_label_smoothing_mixes_the_loss_with_that_of_the_swapped_pair(name, share):
    got = modified(make(name, beta=BETA), LabelSmoothing(epsilon=share)).loss(plain.as_pair())

    def loss(pair: Two) -> float:
        w, x = ratio(pair.chosen), ratio(pair.rejected)
        return (1 - share) * LOSSES[name](w, x, BETA) + share * LOSSES[name](x, w, BETA)

    assert got.tolist() == exactly([loss(pair) for pair in PAIRS])


@EVERY_LOSS
@pytest.mark.parametrize("clamp", [True, False])
def test_likelihood_weights_multiply_the_loss_and_have_no_gradient(name, clamp):
    example = plain.as_pair()
    got = modified(make(name, beta=BETA), MODIFIERS["wpo_weighting"](clamp=clamp)).loss(example)
    weights = [plain.wpo_weighting(pair, clamp) for pair in PAIRS]
    own = [LOSSES[name](ratio(pair.chosen), ratio(pair.rejected), BETA) for pair in PAIRS]
    assert got.tolist() == exactly([weight * loss for weight, loss in zip(weights, own, strict=True)])
    assert (max(weights) > 1) is not clamp
    constant = torch.tensor(weights, dtype=torch.float64)
    assert slope(got, example) == exactly(slope(constant * make(name, beta=BETA).loss(example), example))


EACH = [
    (LengthNormalization(), lambda y: ratio(y) / len(y)),
    *[
        (MODIFIERS["f_divergence"](divergence=name, alpha=0.3), lambda y, name=name: plain.f_divergence(y, name))
        for name in plain.DERIVATIVES
    ],
]
"""A modifier of single completions and what it makes of a log-ratio."""
OF_EACH = pytest.mark.parametrize(("modifier", "of"), EACH, ids=lambda one: str(one) if hasattr(one, "name") else "")


@OF_EACH
def test_single_completions_are_modified_each_by_itself(modifier, of):
    example, own, good, _ = plain.as_unpaired()
    got = modified(make("apo_zero_unpaired", beta=BETA), modifier).loss(example)
    assert got.tolist() == exactly(
        [plain.apo_zero_unpaired(of(y), label, BETA) for y, label in zip(own, good, strict=True)]
    )


@OF_EACH
def test_ktos_mismatched_completions_are_modified_too(modifier, of):
    example, own, good, other = plain.as_unpaired()
    got = modified(make("kto", beta=BETA), modifier).loss(example)
    assert got.tolist() == exactly(plain.kto([of(y) for y in own], good, [of(y) for y in other], BETA))


@OF_EACH
def test_lists_are_modified_completion_by_completion(modifier, of):
    got = modified(make("pl_dpo", beta=BETA), modifier).loss(plain.as_ranked())
    assert got.tolist() == exactly([plain.pl_dpo([of(y) for y in row], BETA) for row in LISTS])


def test_the_batches_reach_both_sides_of_every_bend():
    """A clamp, a hinge or a longer side that no batch reaches would not tell a formula from one without it."""
    weights = [plain.wpo_weighting(pair, clamp=False) for pair in PAIRS]
    assert min(weights) < 1 < max(weights)
    lengths = [len(pair.chosen) - len(pair.rejected) for pair in PAIRS]
    assert min(lengths) < 0 < max(lengths)
    hinge = [1 - BETA * (ratio(pair.chosen) - ratio(pair.rejected)) for pair in PAIRS]
    assert min(hinge) < 0 < max(hinge)


@pytest.mark.parametrize("name", ["apo_zero", "cal_dpo", "nca_pair"])
def test_a_margin_is_asked_for_half_of_each_side_where_a_loss_looks_at_each_by_itself(name):
    """h alone would not say what becomes of the two."""
    m, pair = 0.8, plain.as_pair()
    by_hand = pair.with_sides(
        pair.chosen.with_log_ratio(pair.chosen.log_ratio - m / BETA / 2),
        pair.rejected.with_log_ratio(pair.rejected.log_ratio + m / BETA / 2),
    )
    objective = make(name, beta=BETA)
    assert modified(objective, Margin(value=m)).loss(pair).tolist() == exactly(objective.loss(by_hand).tolist())


def test_a_margin_is_in_units_of_the_reward_whatever_beta_is():
    """DPO's loss is log 2 where the chosen reward leads by the margin, for every beta."""
    for beta in (0.05, 0.5, 2.0):
        lead = 1.5 / beta  # in nats
        pair = plain.as_pair([Two([(lead, 0.0, -1.0, 0.5)], [(0.0, 0.0, -1.0, 0.5)])])
        assert modified(make("dpo", beta=beta), Margin(value=1.5)).loss(pair).item() == exactly(math.log(2))


def test_an_objective_without_beta_has_log_ratios_for_rewards():
    from alignzoo.interfaces.objective import Objective

    class Plain(Objective):
        """A hinge in nats."""

        name = "plain_hinge"

        def loss(self, pair):
            return (1 - pair.margin).relu()

    got = modified(Plain(), Margin(value=2.0)).loss(plain.as_pair())
    wanted = [max(0.0, 1 - (ratio(pair.chosen) - ratio(pair.rejected) - 2.0)) for pair in PAIRS]
    assert got.tolist() == exactly(wanted)


@pytest.mark.parametrize("name", plain.DERIVATIVES)
@pytest.mark.parametrize("nats", [-1e4, -25.0, 25.0, 1e4])
def test_divergences_stay_finite_however_far_the_policy_has_moved(name, nats):
    pair = plain.as_pair([Two([(nats, 0.0, -1.0, 0.5)], [(-nats, 0.0, -1.0, 0.5)])])
    loss = modified("dpo", MODIFIERS["f_divergence"](divergence=name)).loss(pair)
    assert all(map(math.isfinite, [*loss.tolist(), *slope(loss, pair)]))
