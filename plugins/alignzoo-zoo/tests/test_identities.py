"""Identities of losses on pairs and on single completions: one is another in a limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, UNPAIRED, build, completion, exactly, losses
from notation import Completion, Pair, Single, log_sigmoid

EVERY = [row for rows in PAIRS.values() for row in rows]


@pytest.mark.parametrize(
    ("name", "fields", "other", "others"),
    [
        ("cdpo", {"label_smoothing": 0.0}, "dpo", {}),
        ("robust_dpo", {"label_smoothing": 0.0, "beta": 0.1}, "dpo", {}),
        ("r_dpo", {"alpha": 0.0}, "dpo", {}),
        ("ld_dpo", {"alpha": 1.0}, "dpo", {}),
        ("tdpo2", {"alpha": 0.0}, "dpo", {}),
        ("tdpo2", {"alpha": 1.0}, "tdpo1", {}),
        ("dpop", {"penalty": 0.0, "beta": 0.1}, "dpo", {}),
        ("odpo", {"alpha": 0.0}, "dpo", {}),
        ("rpo", {"alpha": 0.0}, "dpo", {}),
        ("dpo_shift", {"shift": 1.0}, "dpo", {}),
        ("f_dpo", {"divergence": "reverse_kl"}, "dpo", {}),
        ("tr_dpo", {"beta": 0.1}, "dpo", {}),
        ("beta_dpo", {"alpha": 0.0, "keep": 1.0}, "dpo", {}),
        ("alpha_dpo", {"alpha": 0.0, "beta": 2.0, "gamma": 0.5}, "simpo", {"beta": 2.0, "gamma": 0.5}),
        ("unlikelihood", {"alpha": 0.0}, "preferred_ft", {}),
        ("bema_dpo", {}, "dpo", {}),
        ("d2po", {"gamma": 1.0}, "dpo", {}),
        ("focal_po", {"gamma": 0.0}, "dpo", {}),
        ("modpo", {"w": 1.0}, "dpo", {}),
        ("gpo", {"link": "logistic"}, "dpo", {}),
        ("gpo", {"link": "hinge", "beta": 0.05}, "rso_hinge", {}),
        ("rainbow_po", {"alpha": 1.0, "beta": 2.0}, "ln_dpo", {}),
        ("rainbow_po", {"alpha": 0.0, "beta": 2.0, "gamma": 0.5}, "simpo", {"beta": 2.0, "gamma": 1.0}),
        ("focal_bradley_terry", {"gamma": 1.0, "barrier": 0.0, "bound": 1.0}, "bradley_terry", {"centering": 0.0}),
    ],
)
@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_it_is_another(name, fields, other, others, rows):
    if name == "focal_bradley_terry":  # where the pair is ranked wrongly
        rows = [row for row in EVERY if row.chosen.scalar < row.rejected.scalar]
    assert losses(name, rows, **fields) == exactly(losses(other, rows, **others))


@pytest.mark.parametrize(
    ("name", "fields", "other", "others", "rel"),
    [
        ("f_dpo", {"divergence": "alpha", "alpha": 1e-7}, "dpo", {}, 1e-5),
        ("f_dpo", {"divergence": "alpha", "alpha": 1 - 1e-9}, "f_dpo", {"divergence": "forward_kl"}, 1e-5),
        ("alpha_po", {"alpha": 1e-7, "beta": 2.0, "gamma": 1.0}, "simpo", {}, 1e-5),
    ],
)
@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_it_goes_to_another(name, fields, other, others, rel, rows):
    assert losses(name, rows, **fields) == pytest.approx(losses(other, rows, **others), rel=rel)


@pytest.mark.parametrize("name", ["ld_dpo", "sampo", "r_dpo"])
def test_with_equal_lengths_it_is_dpo(name):
    rows = PAIRS["equal lengths"]
    assert losses(name, rows) == exactly(losses("dpo", rows))
    assert losses(name, PAIRS["ragged"]) != exactly(losses("dpo", PAIRS["ragged"]))


@pytest.mark.parametrize("name", ["aot", "aot_unpaired", "dr_dpo"])
def test_in_a_batch_of_one_it_is_dpo(name):
    for row in EVERY:
        assert losses(name, [row]) == exactly(losses("dpo", [row]))


def test_with_completions_of_one_token_a_mean_is_a_sum():
    rows = [Pair(completion([(-0.5, -1.5)], 0), completion([(-2.0, -0.7)], 3))]
    assert losses("ln_dpo", rows, beta=0.1) == exactly(losses("dpo", rows, beta=0.1))
    assert losses("simpo", rows, beta=0.1, gamma=0.0) == exactly(losses("cpo", rows, beta=0.1, alpha=0.0))


@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_robust_dpo_is_unbiased_whatever_the_noise(rows):
    """The paper's lemma: labels flipped with probability e, its mean is DPO's loss with the true labels."""
    noise = 0.3
    flipped = [Pair(row.rejected, row.chosen) for row in rows]
    right = losses("robust_dpo", rows, label_smoothing=noise, beta=0.1)
    wrong = losses("robust_dpo", flipped, label_smoothing=noise, beta=0.1)
    mixed = [(1 - noise) * one + noise * other for one, other in zip(right, wrong, strict=True)]
    assert mixed == exactly(losses("dpo", rows))


@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_sums_of_others(rows):
    def add(*several: list[float]) -> list[float]:
        return [math.fsum(values) for values in zip(*several, strict=True)]

    assert losses("cal_dpo", rows) == exactly(add(losses("dpo", rows, beta=1.0), losses("sppo_hard", rows)))
    sft = losses("preferred_ft", rows)
    assert losses("cpo", rows) == exactly(add(losses("cpo", rows, alpha=0.0), sft))
    assert losses("slic_hf", rows, regularization=1.0) == exactly(add(losses("slic_hf", rows, regularization=0.0), sft))


@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_what_is_pointwise_is_the_sum_of_its_unpaired_halves(rows):
    alone = [Single(y, good, y) for row in rows for y, good in [(row.chosen, True), (row.rejected, False)]]

    def both(name: str, **settings) -> list[float]:
        halves = losses(name, alone, **settings)
        return [halves[i] + halves[i + 1] for i in range(0, len(halves), 2)]

    assert losses("apo_zero", rows) == exactly(both("apo_zero_unpaired"))
    assert losses("bco_pair", rows) == exactly(both("bco", state={"desirable": 0.7, "undesirable": -0.7}))


def test_kto_is_apo_zero_where_its_kl_estimate_is_not_positive():
    below = [replace(row, mismatched=completion([(-2.0, -1.0)], 0)) for row in UNPAIRED["ragged"]]
    assert losses("kto", below) == exactly(losses("apo_zero_unpaired", below))
    above = [replace(row, mismatched=completion([(-1.0, -2.0)], 0)) for row in UNPAIRED["ragged"]]
    assert losses("kto", above) != exactly(losses("apo_zero_unpaired", above))


def test_wpo_is_dpo_where_the_policys_tokens_are_as_likely_as_its_own():
    """Where log p = log sum_v p_v^2 at every token, the weight is one."""
    rows = [Pair(*(replace(y, log_collision_prob=y.tokens) for y in (row.chosen, row.rejected))) for row in EVERY]
    assert losses("wpo", rows, beta=0.1) == exactly(losses("dpo", rows, beta=0.1))
    assert losses("wpo", rows, beta=0.1, clamp=False) == exactly(losses("dpo", rows, beta=0.1))


@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_dr_dpo_goes_to_the_mean_of_dpo_and_to_its_best_pair(rows):
    dpo = losses("dpo", rows)
    assert losses("dr_dpo", rows, beta_prime=1e6) == pytest.approx([sum(dpo) / len(dpo)] * len(dpo), abs=1e-5)
    assert losses("dr_dpo", rows, beta_prime=1e-3) == pytest.approx([min(dpo)] * len(dpo), abs=2e-3)


def test_bpo_gives_a_gradient_to_the_smaller_side_alone():
    """With the logistic link it is DPO's loss of twice the smaller reward; a tie gives each side half."""
    example = build(BY_NAME["bpo"], EVERY)
    leaves = [example.chosen._log_prob, example.rejected._log_prob]
    for leaf in leaves:
        leaf.retain_grad()
    loss = BY_NAME["bpo"](link="logistic", alpha=1.0, beta=0.2).loss(example)
    loss.sum().backward()
    for row, value, up, down in zip(EVERY, loss.tolist(), *(leaf.grad.tolist() for leaf in leaves), strict=True):
        least = min(row.chosen.r, -row.rejected.r)
        assert value == pytest.approx(-log_sigmoid(0.2 * least), rel=1e-12)
        assert (up < 0, down > 0) == (row.chosen.r < least + 1e-9, -row.rejected.r < least + 1e-9)
    at = Pair(completion([(-0.5, -1.0)], 0), completion([(-1.5, -1.0)], 3))
    assert losses("bpo", [at], link="logistic", alpha=1.0, beta=0.2) == exactly(losses("dpo", [at], beta=0.1))


def test_minor_dpo_is_dpo_while_the_rejected_completion_is_above_its_reference():
    for row in EVERY:
        alone = -log_sigmoid(0.1 * row.chosen.r)
        expected = losses("dpo", [row])[0] if row.rejected.r > 0 else alone
        assert losses("minor_dpo", [row]) == exactly([expected])


def test_dils_third_estimator_is_bco_pair():
    """Binary cross-entropy of the same two log-ratios, whose bounds LSIF and UKL share at the reference."""
    for row in EVERY:
        bce = -log_sigmoid(row.chosen.r) - log_sigmoid(-row.rejected.r)
        assert losses("bco_pair", [row], beta=1.0) == exactly([bce])
    lsif, ukl = (losses("dil", EVERY, estimator=name) for name in ("lsif", "ukl"))
    for row, one, other in zip(EVERY, lsif, ukl, strict=True):
        assert one == pytest.approx(-math.exp(row.chosen.r) + 0.5 * math.exp(row.rejected.r) ** 2)
        assert other == pytest.approx(losses("preferred_ft", [row])[0] + math.exp(row.rejected.r))


def test_repo_is_the_limit_of_simpo():
    beta = 1e7
    simpo = losses("simpo", EVERY, beta=beta, gamma=0.6 * beta)
    assert losses("repo", EVERY) == pytest.approx([loss / beta for loss in simpo], abs=1e-6)


def test_confpo_is_simpo_where_all_tokens_are_as_likely():
    flat = [
        Pair(*(replace(y, tokens=(y.mean,) * y.n) for y in (row.chosen, row.rejected))) for row in EVERY
    ]  # fmt: skip
    assert losses("confpo", flat) == exactly(losses("simpo", EVERY))


def test_d2pos_other_exponent_is_another_beta():
    """The authors' code discounts the first token too."""
    gamma = 0.7
    for row in EVERY:
        reward = [
            math.fsum(gamma ** (t + 1) * one for t, one in enumerate(y.ratios)) for y in (row.chosen, row.rejected)
        ]
        expected = -log_sigmoid(0.1 * (reward[0] - reward[1]))
        assert losses("d2po", [row], beta=0.1 * gamma, gamma=gamma) == exactly([expected])


def test_grm_without_its_text_is_bradley_terry_and_with_nothing_else_a_language_model():
    assert losses("grm", EVERY, lambda_=0.0) == exactly(losses("bradley_terry", EVERY, centering=0.0))
    nll = [-row.chosen.logp for row in EVERY]
    assert losses("grm", EVERY, lambda_=1.0, regularization="nll") == exactly(nll)
    start = [replace(row, chosen=at_zero(row.chosen), rejected=at_zero(row.rejected)) for row in EVERY]
    assert losses("grm", EVERY, lambda_=1.0, regularization="dpo") == exactly(losses("dpo", start))


def at_zero(y: Completion) -> Completion:
    """With a reference that is sure of every token."""
    return replace(y, ref_tokens=(0.0,) * y.n)


def test_mallows_po_is_dpo_and_ipo_where_the_dispersion_is_one():
    """Its c is the inverse of -log H; another dispersion is another beta."""
    h = 0.3
    rows = [Pair(*(replace(y, ref_normalized_entropy=(h,) * y.n) for y in (row.chosen, row.rejected))) for row in EVERY]
    c = -1 / math.log(h)
    assert losses("mallows_po", rows, c=c) == exactly(losses("dpo", EVERY))
    assert losses("mallows_po", rows, c=2 * c) == exactly(losses("dpo", EVERY, beta=0.2))
    assert losses("mallows_po", rows, c=c, link="square") == exactly(losses("ipo", EVERY))


def test_without_guidance_token_weights_are_dpo():
    assert losses("tgdpo", EVERY, alpha=0.0) == exactly(losses("dpo", EVERY))
    assert losses("tis_dpo", EVERY, spread=0.0) == exactly(losses("dpo", EVERY))
    same = [replace(row, chosen=agreeing(row.chosen), rejected=agreeing(row.rejected)) for row in EVERY]
    assert losses("tgdpo", same) == exactly(losses("dpo", same))
    assert losses("tis_dpo", same) == exactly(losses("dpo", same))


def agreeing(y: Completion) -> Completion:
    """With further models that agree with the reference."""
    return replace(y, refs={name: y.ref_tokens for name in y.refs})
