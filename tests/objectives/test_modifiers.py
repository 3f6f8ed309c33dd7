"""Modifiers around an objective: their order, what is modified beside the loss, and what a modifier may not be put
around."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import plain
import pytest
import torch
from plain import PAIRS, Two, ratio, softplus
from zoo import MODIFIERS, OBJECTIVES, make, modified

from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.compatibility import incompatibility
from alignzoo.objectives.composition import Modified
from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.objectives.modifiers.margin import Margin
from alignzoo.testing.synthetic_batch import batch_for

BETA = 0.4
DPO = make("dpo", beta=BETA)
JS = MODIFIERS["f_divergence"](divergence="js")
PUBLIC = MODIFIERS["length_desensitization"](alpha=0.25)


def exactly(values):
    return pytest.approx(values, rel=1e-11, abs=1e-13)


def losses(*modifiers: Modifier, objective: Objective = DPO) -> list[float]:
    return modified(objective, *modifiers).loss(plain.as_pair()).tolist()


# Order


def js(r: float) -> float:
    return math.log(2) - softplus(-r)


def test_the_first_has_the_last_word_on_log_ratios():
    """It is the innermost: what the ones around it have made is what it changes."""

    def dpo(change) -> list[float]:
        return [softplus(-BETA * (change(pair.chosen) - change(pair.rejected))) for pair in PAIRS]

    assert losses(JS, LengthNormalization()) == exactly(dpo(lambda y: js(ratio(y) / len(y))))
    assert losses(LengthNormalization(), JS) == exactly(dpo(lambda y: js(ratio(y)) / len(y)))


def test_a_length_treatment_is_normalized_when_it_is_written_last():
    def loss(pair: Two) -> float:
        w, x = plain.length_desensitization(pair, 0.25)
        return softplus(-BETA * (w / len(pair.chosen) - x / len(pair.rejected)))

    assert losses(LengthNormalization(), PUBLIC) == exactly([loss(pair) for pair in PAIRS])


def test_the_first_changes_the_loss_first():
    """Smoothing around a margin asks the swapped pair for the margin too; weights around both multiply their result."""

    def loss(pair: Two) -> float:
        h = BETA * (ratio(pair.chosen) - ratio(pair.rejected))
        return 0.8 * softplus(-(h - 1.5)) + 0.2 * softplus(-(-h - 1.5))

    smoothed = [loss(pair) for pair in PAIRS]
    assert losses(Margin(value=1.5), LabelSmoothing(epsilon=0.2)) == exactly(smoothed)
    weighted = [plain.wpo_weighting(pair, True) * one for pair, one in zip(PAIRS, smoothed, strict=True)]
    all_three = losses(Margin(value=1.5), LabelSmoothing(epsilon=0.2), MODIFIERS["wpo_weighting"]())
    assert all_three == exactly(weighted)


def test_three_around_three_kinds_of_change():
    """Public length, then per token, then a divergence, then smoothed."""

    def loss(pair: Two) -> float:
        w, x = plain.length_desensitization(pair, 0.25)
        h = BETA * (js(w / len(pair.chosen)) - js(x / len(pair.rejected)))
        return 0.9 * softplus(-h) + 0.1 * softplus(h)

    assert losses(JS, LengthNormalization(), PUBLIC, LabelSmoothing(epsilon=0.1)) == exactly(
        [loss(pair) for pair in PAIRS]
    )
    assert losses(LabelSmoothing(epsilon=0.1), JS, LengthNormalization(), PUBLIC) == exactly(
        [loss(pair) for pair in PAIRS]
    )


# What is modified beside the loss


def test_the_reward_is_of_the_modified_log_ratio():
    completions = plain.scored([pair.chosen for pair in PAIRS])
    got = modified(DPO, JS, LengthNormalization()).implicit_reward(completions)
    assert got.tolist() == exactly([BETA * js(ratio(pair.chosen) / len(pair.chosen)) for pair in PAIRS])


@pytest.mark.parametrize(
    "name", ["label_smoothing", "margin", "length_desensitization", "length_downsampling", "wpo_weighting"]
)
def test_the_reward_of_one_completion_does_not_depend_on_another(name):
    """What treats a pair as a pair leaves the implicit reward of each as it is."""
    completions = plain.scored([pair.chosen for pair in PAIRS])
    assert modified(DPO, name).implicit_reward(completions).tolist() == DPO.implicit_reward(completions).tolist()


class AboveItsMean(Objective):
    """Keeps the last batch's mean log-ratio."""

    name = "above_its_mean"
    data = "unpaired"
    scope = "batch"

    def initial_state(self):
        return {"mean": 0.0}

    def next_state(self, example):
        return {"mean": float(example.completion.log_ratio.detach().mean())}

    def loss(self, example):
        return example.state["mean"] - example.completion.log_ratio


def test_a_running_mean_is_of_what_the_loss_sees():
    example, own, _, _ = plain.as_unpaired()
    objective = modified(AboveItsMean(), JS, LengthNormalization())
    state = objective.next_state(example)
    means = [js(ratio(y) / len(y)) for y in own]
    assert state == {"mean": exactly(math.fsum(means) / len(means))}
    loss = objective.loss(replace(example, _state=state))
    assert loss.tolist() == exactly([state["mean"] - mean for mean in means])
    assert objective.initial_state() == {"mean": 0.0}


@pytest.mark.parametrize("name", ["length_normalization", "length_desensitization", "f_divergence"])
def test_pairs_that_are_left_out_of_a_modified_loss_are_left_out_of_its_weight(name):
    """Beta-DPO drops outliers by their margins: those that it sees."""
    objective = modified(make("beta_dpo", keep=0.5, beta=1.0), name)
    example = batch_for(objective, rows=12).example
    kept = objective.weight(example)
    assert kept.sum() == 6
    assert torch.equal(objective.loss(example) > 0, kept > 0)
    assert not torch.equal(kept, objective.inner.weight(example))


def test_a_moving_reference_moves_as_the_objective_says():
    objective = modified(make("tr_dpo", alpha=0.3, every=4), "length_normalization", "label_smoothing")
    assert [objective.reference_update(step) for step in range(1, 9)] == [0, 0, 0, 0.3, 0, 0, 0, 0.3]


def test_a_modified_objective_needs_what_it_and_its_modifiers_need():
    objective = modified("odpo", "length_desensitization", "length_downsampling", "wpo_weighting")
    declared = {
        key: getattr(objective, key) for key in ("data", "scope", "head", "reference", "tokens", "needs_uniform")
    }
    assert declared == {
        "data": "pair", "scope": "example", "head": "language_model", "reference": "token", "tokens": True, "needs_uniform": True,
    }  # fmt: skip
    assert (objective.statistics, objective.columns, objective.mismatched) == (
        ("log_collision_prob",),
        ("score",),
        False,
    )
    assert modified("tdpo1", "length_desensitization").reference == "live"
    assert modified("tr_dpo", "length_desensitization").reference == "moving"
    assert modified("kto", "length_normalization").mismatched
    assert modified("aot_unpaired", "length_normalization").scope == "batch"
    assert [piece.name for piece in modified("dpo", "margin", "label_smoothing").components] == [
        "dpo",
        "margin",
        "label_smoothing",
    ]


# What has no meaning


def loss_of(objective: Objective, scored_for: Modified) -> list[float]:
    return objective.loss(batch_for(scored_for).example).tolist()


@pytest.mark.parametrize("around", MODIFIERS)
def test_a_modifier_changes_the_loss_exactly_where_it_is_allowed(around):
    allowed = 0
    narrow = {"low": -0.1, "high": 0.1} if around == "humanline" else {}  # within the kit's log-ratios of tokens
    for name in OBJECTIVES:
        whole = modified(name, MODIFIERS[around](**narrow))
        why = incompatibility(whole)
        if why and "does not read" not in why:
            continue
        unchanged = loss_of(whole, whole) == pytest.approx(loss_of(whole.inner, whole), rel=1e-9)
        assert unchanged == bool(why), name
        allowed += not why
    assert allowed > 20


NOT_READ = r"{} changes the log-ratio, which {}\(.*\){} does not read"


@pytest.mark.parametrize(
    ("name", "around", "why"),
    [
        ("kto", ["margin"], "margin applies to pair data, and kto takes unpaired"),
        ("pl_dpo", ["label_smoothing"], "label_smoothing applies to pair data, and pl_dpo takes ranked"),
        ("sft", ["wpo_weighting"], "wpo_weighting applies to pair data, and sft takes chosen"),
        ("sft", ["length_normalization"], "length_normalization changes the log-ratio, and sft has no reference"),
        ("simpo", ["margin"], "margin changes the log-ratio, and simpo has no reference"),
        ("cpo", ["length_desensitization"], "length_desensitization changes the log-ratio, and cpo has no reference"),
        ("bradley_terry", ["length_normalization"], "length_normalization reads log-probs, and bradley_terry trains a reward model, which has none"),
        ("bradley_terry", ["wpo_weighting"], "wpo_weighting reads log-probs, and bradley_terry trains a reward model, which has none"),
        *[("aot", [one], NOT_READ.format(one, "aot", "")) for one in ("length_normalization", "f_divergence", "margin", "length_desensitization", "length_downsampling")],
        *[("ld_dpo", [one], NOT_READ.format(one, "ld_dpo", "")) for one in ("length_normalization", "f_divergence", "margin", "length_downsampling")],
        ("sampo", ["length_normalization"], NOT_READ.format("length_normalization", "sampo", "")),
        ("dpo", ["length_desensitization", "length_normalization"], NOT_READ.format("length_normalization", "dpo", " with length_desensitization")),
        ("dpo", ["length_desensitization", "length_downsampling"], NOT_READ.format("length_downsampling", "dpo", " with length_desensitization")),
        ("dpo", ["length_downsampling", "label_smoothing", "f_divergence"], NOT_READ.format("f_divergence", "dpo", " with length_downsampling with label_smoothing")),
        ("ln_dpo", ["length_normalization"], "length_normalization is already part of ln_dpo"),
        ("f_dpo", ["f_divergence"], "f_divergence is already part of f_dpo"),
        ("chi_po", ["f_divergence"], "f_divergence is already part of chi_po"),
        ("ld_dpo", ["length_desensitization"], "length_desensitization is already part of ld_dpo"),
        ("sampo", ["length_downsampling"], "length_downsampling is already part of sampo"),
        ("wpo", ["wpo_weighting"], "wpo_weighting is already part of wpo"),
        ("cdpo", ["label_smoothing"], "label_smoothing is already part of cdpo"),
        ("robust_dpo", ["label_smoothing"], "label_smoothing is already part of robust_dpo"),
        ("exo_pair", ["label_smoothing"], "label_smoothing is already part of exo_pair"),
        ("dpo", ["length_normalization", "length_normalization"], "length_normalization is listed twice"),
        ("dpo", ["label_smoothing", "margin", "label_smoothing"], "margin must be the first modifier"),
        ("dpo", ["length_normalization", "margin"], "margin must be the first modifier: length_normalization would change the margin"),
        ("dpo", ["label_smoothing", "margin"], "margin must be the first modifier: label_smoothing would change the margin"),
        ("ln_dpo", ["margin"], "margin moves beta times the log-ratio, and ln_dpo has another implicit reward"),
        ("f_dpo", ["margin"], "margin moves beta times the log-ratio, and f_dpo has another implicit reward"),
        *[(name, ["label_smoothing"], "label_smoothing mixes the losses of single pairs")
          for name in ("aot", "dr_dpo", "beta_dpo")],
        ("dr_dpo", ["wpo_weighting"], "wpo_weighting weights the losses of single pairs"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_reported(name, around, why):
    said = incompatibility(modified(name, *around))
    assert re.match(why, said) or said.startswith(why), said


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("rpo", ["length_normalization"]),  # its likelihood term reads no log-ratio; its preference term does
        ("tdpo1", ["length_normalization", "length_desensitization"]),
        ("tr_dpo", ["margin", "length_desensitization"]),
        ("aot", []),
        ("ld_dpo", ["label_smoothing", "wpo_weighting"]),
        ("simpo", ["label_smoothing", "wpo_weighting"]),
        ("bradley_terry_margin", ["label_smoothing"]),
        ("bco", ["length_normalization", "f_divergence"]),
        ("r_dpo", ["length_normalization"]),
        ("ipo", ["length_normalization"]),
    ],
)
def test_what_has_a_meaning_is_let_through(name, around):
    assert incompatibility(modified(name, *around)) == ""


def test_ipo_on_means_is_length_normalized_already():
    assert incompatibility(modified(make("ipo", log_ratio="mean"), "length_normalization")).endswith(
        "is already part of ipo"
    )


class Peeks(Objective):
    """Reads the log-ratio, but only to hold it constant."""

    name = "peeks"

    def loss(self, pair):
        return pair.chosen.log_prob * pair.margin.detach()


class Breaks(Objective):
    """Has a fault of its own."""

    name = "breaks"

    def loss(self, pair):
        raise ZeroDivisionError


class Summed(Modifier):
    """Makes a log-ratio of tokens, as somebody's plugin may."""

    name = "summed"
    data = ("pair", "ranked", "unpaired", "chosen")
    reference = "token"
    tokens = True

    def scored(self, scored):
        return scored.with_log_ratio(scored.tokens.sum(scored.tokens.log_ratio))


@pytest.mark.parametrize("data", ["pair", "chosen", "unpaired", "ranked"])
def test_a_plugins_objective_and_modifier_are_asked_too_whatever_data_they_take(data):
    def one(reads):
        def loss(self, example):
            sides = [example] if data == "chosen" else list(example.sides().values())
            return sum((side.log_ratio if reads else side.log_prob - side.ref_log_prob) for side in sides)

        return type(
            "Own", (Objective,), {"__doc__": "x", "__module__": __name__, "name": "own", "data": data, "loss": loss}
        )()

    assert incompatibility(modified(one(True), Summed())) == ""
    assert "own() does not read" in incompatibility(modified(one(False), Summed()))
    assert "own() with summed does not read" in incompatibility(modified(one(True), Summed(), LengthNormalization()))


def test_a_log_ratio_that_is_held_constant_is_read():
    assert incompatibility(modified(Peeks(), "length_normalization")) == ""


def test_an_objective_that_fails_is_the_kits_affair():
    assert incompatibility(modified(Breaks(), "length_normalization")) == ""
