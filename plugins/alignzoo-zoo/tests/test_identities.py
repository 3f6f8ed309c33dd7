"""What must hold between objectives: one is another in a limit, and at the start all are what the papers say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, RANKED, UNPAIRED, build, completion, exactly, losses
from notation import Completion, Pair, Single, log_sigmoid, sigmoid

EVERY = [row for rows in PAIRS.values() for row in rows]


# One is another


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


# With scores, win rates, quantiles and labels


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


# One side alone, tokens, and lists


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
    simpo = times(1 / beta, losses("simpo", EVERY, beta=beta, gamma=0.6 * beta))
    assert losses("repo", EVERY) == pytest.approx(simpo, abs=1e-6)


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


# Ties, named references and triples


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


def test_todo_is_dpo_rk_in_alpha():
    assert losses("todo", EVERY, beta=0.3, alpha=0.8) == exactly(losses("dpo_rk", EVERY, beta=0.3, nu=math.exp(0.8)))


def test_without_guidance_token_weights_are_dpo():
    assert losses("tgdpo", EVERY, alpha=0.0) == exactly(losses("dpo", EVERY))
    assert losses("tis_dpo", EVERY, spread=0.0) == exactly(losses("dpo", EVERY))
    same = [replace(row, chosen=agreeing(row.chosen), rejected=agreeing(row.rejected)) for row in EVERY]
    assert losses("tgdpo", same) == exactly(losses("dpo", same))
    assert losses("tis_dpo", same) == exactly(losses("dpo", same))


def agreeing(y: Completion) -> Completion:
    """With further models that agree with the reference."""
    return replace(y, refs={name: y.ref_tokens for name in y.refs})


@pytest.mark.parametrize("rows", [rows for rows in RANKED.values() if len(rows[0]) > 2])
def test_without_gold_tpo_l_is_simpo(rows):
    pairs = [Pair(row[1], row[-1]) for row in rows]
    assert losses("tpo_l", rows, beta=2.0, gamma=1.0, alpha=0.0) == exactly(losses("simpo", pairs, beta=2.0, gamma=1.0))
