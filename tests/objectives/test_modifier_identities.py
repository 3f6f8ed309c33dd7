"""What a modifier makes of DPO is what somebody published under a name of its own."""

from __future__ import annotations

from dataclasses import replace

import plain
import pytest
import torch
from plain import PAIRS, slope
from zoo import MODIFIERS, make, modified

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.objectives.modifiers.margin import Margin

BETA = 0.3


def exactly(values):
    return pytest.approx(values, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("modifier", "name", "fields"),
    [
        (LengthNormalization(), "ln_dpo", {}),
        (MODIFIERS["length_desensitization"](alpha=0.4), "ld_dpo", {"alpha": 0.4}),
        (MODIFIERS["length_downsampling"](), "sampo", {}),
        (MODIFIERS["wpo_weighting"](clamp=True), "wpo", {"clamp": True}),
        (MODIFIERS["wpo_weighting"](clamp=False), "wpo", {"clamp": False}),
        (LabelSmoothing(epsilon=0.2), "cdpo", {"label_smoothing": 0.2}),
        *[
            (MODIFIERS["f_divergence"](divergence=name, alpha=0.3), "f_dpo", {"divergence": name, "alpha": 0.3})
            for name in plain.DERIVATIVES
        ],
    ],
    ids=lambda one: str(one) if hasattr(one, "name") else None,
)
def test_dpo_with_it_is(modifier, name, fields):
    example, other = plain.as_pair(), make(name, beta=BETA, **fields)
    one = modified(make("dpo", beta=BETA), modifier)
    got, wanted = one.loss(example), other.loss(example)
    assert got.tolist() == exactly(wanted.tolist())
    assert slope(got, example) == exactly(slope(wanted, example))


def test_ipo_length_normalized_is_ipo_on_means():
    example = plain.as_pair()
    ours = modified(make("ipo", beta=BETA), LengthNormalization()).loss(example)
    assert ours.tolist() == exactly(make("ipo", beta=BETA, log_ratio="mean").loss(example).tolist())


def scored_apart(gap: float) -> Pair:
    """The pairs, each with a chosen score that is larger by `gap`."""
    pair = plain.as_pair()
    column = torch.ones(len(PAIRS), dtype=torch.float64)
    return pair.with_sides(
        replace(pair.chosen, _columns={"score": 3 * column + gap}),
        replace(pair.rejected, _columns={"score": 3 * column}),
    )


def test_dpo_with_a_margin_is_odpo_where_all_scores_are_as_far_apart():
    example = scored_apart(torch.e)
    offset = 0.6  # alpha log(e)
    ours = modified(make("dpo", beta=BETA), Margin(value=offset)).loss(example)
    assert ours.tolist() == exactly(make("odpo", beta=BETA, alpha=offset).loss(example).tolist())


def test_margins_add_up_with_odpos_own():
    example = scored_apart(torch.e)
    ours = modified(make("odpo", beta=BETA, alpha=0.6), Margin(value=0.3)).loss(example)
    assert ours.tolist() == exactly(make("odpo", beta=BETA, alpha=0.9).loss(example).tolist())


@pytest.mark.parametrize("name", ["dpo", "ipo", "rso_hinge", "dpop", "nca_pair", "odpo", "bradley_terry_margin"])
def test_label_smoothing_is_the_mean_over_flipped_labels(name):
    """As `data.label_noise` flips them: the completions change places, scores and margins stay."""
    pair = plain.as_pair()
    gap = torch.linspace(0.5, 2.0, len(PAIRS), dtype=torch.float64)

    def known(pair: Pair) -> Pair:
        about = {"score": gap + 1, "margin": gap}, {"score": 1 + 0 * gap, "margin": gap}
        return pair.with_sides(
            *(
                replace(side, _columns=columns, _scalar=side.log_prob)
                for side, columns in zip((pair.chosen, pair.rejected), about, strict=True)
            )
        )

    objective = make(name)
    right, wrong = known(pair), known(Pair(pair.rejected, pair.chosen))
    wanted = 0.8 * objective.loss(right) + 0.2 * objective.loss(wrong)
    got = modified(objective, LabelSmoothing(epsilon=0.2)).loss(right)
    assert got.tolist() == exactly(wanted.tolist())


@pytest.mark.parametrize(
    "modifier",
    [
        LabelSmoothing(epsilon=0.0),
        MODIFIERS["length_desensitization"](alpha=1.0),
        MODIFIERS["f_divergence"](divergence="reverse_kl"),
    ],
    ids=str,
)
def test_with_its_neutral_number_it_changes_nothing(modifier):
    """So that a sweep may begin there."""
    example = plain.as_pair()
    assert modified("dpo", modifier).loss(example).tolist() == exactly(make("dpo").loss(example).tolist())


@pytest.mark.parametrize("name", ["length_desensitization", "length_downsampling"])
def test_a_length_treatment_changes_nothing_where_lengths_are_equal(name):
    same = [pair for pair in PAIRS if len(pair.chosen) == len(pair.rejected)]
    other = [pair for pair in PAIRS if len(pair.chosen) != len(pair.rejected)]
    for pairs, alike in ((same, True), (other, False)):
        example = plain.as_pair(pairs)
        got, own = (one.loss(example).tolist() for one in (modified("dpo", name), make("dpo")))
        assert (got == exactly(own)) is alike
