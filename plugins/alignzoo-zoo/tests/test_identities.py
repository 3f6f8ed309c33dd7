"""What must hold between objectives: one is another in a limit, and at the start all are what the papers say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, RANKED, UNPAIRED, build, completion, exactly, losses
from notation import Completion, Pair, Single, log_sigmoid

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
    ],
)
@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_it_is_another(name, fields, other, others, rows):
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


def test_exo_is_zero_where_the_model_agrees_with_the_smoothed_label():
    beta, e = 0.1, 0.2
    rows = [Pair(completion([(math.log((1 - e) / e) / beta, 0.0)], 0), completion([(0.0, 0.0)], 0))]
    assert losses("exo_pair", rows, beta=beta, label_smoothing=e) == pytest.approx([0.0], abs=1e-14)


def test_discopop_far_from_its_bend_is_logistic_below_and_exponential_above():
    rows = PAIRS["far"]
    dpo = losses("dpo", rows, beta=0.5)
    got = losses("discopop", rows, beta=0.5, temperature=1e-3)
    for row, logistic, loss in zip(rows, dpo, got, strict=True):
        h = row.chosen.r - row.rejected.r
        assert loss == pytest.approx(logistic if h < 0 else math.exp(-0.5 * h), rel=1e-12)


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


# At the start the policy is the reference


def at_start(y: Completion) -> Completion:
    return replace(y, tokens=y.ref_tokens, forward_kl=(0.0,) * y.n, log_collision_prob=y.ref_tokens)


START = [Pair(at_start(row.chosen), at_start(row.rejected)) for row in EVERY]
LOG_2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "fields", "loss"),
    [
        *[
            (name, {}, LOG_2)
            for name in [
                "dpo", "cdpo", "robust_dpo", "dpo_shift", "dpop", "ln_dpo", "ld_dpo", "sampo", "f_dpo", "chi_po",
                "aot", "aot_unpaired", "dr_dpo", "wpo", "tdpo1", "tdpo2", "tr_dpo",
            ]
        ],
        *[("f_dpo", {"divergence": name}, LOG_2) for name in ["reverse_kl", "forward_kl", "js", "alpha"]],
        ("beta_dpo", {"keep": 1.0}, LOG_2),
        ("rso_hinge", {}, 1.0), ("apo_zero", {}, 1.0), ("apo_down", {}, 1.0),
        ("nca_pair", {}, 2 * LOG_2), ("bco_pair", {}, 2 * LOG_2),
        ("ipo", {"beta": 0.1}, 25.0), ("sppo_hard", {"beta": 1e-3}, 5e5), ("cal_dpo", {"beta": 1e-3}, 5e5 + LOG_2),
        ("exo_pair", {}, -LOG_2 - 0.5 * math.log(0.999) - 0.5 * math.log(0.001)),
        ("discopop", {}, (LOG_2 + 1) / 2),
    ],
)  # fmt: skip
def test_at_the_start_a_pairs_loss_is_what_the_paper_says(name, fields, loss):
    assert losses(name, START, **fields) == exactly([loss] * len(START))


def test_at_the_start_the_printed_numbers():
    """As they are quoted."""
    assert losses("exo_pair", START)[0] == pytest.approx(2.761, abs=1e-3)
    assert losses("discopop", START)[0] == pytest.approx(0.8466, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "loss"), [("kto", 0.5), ("apo_zero_unpaired", 0.5), ("bco", LOG_2)]
)  # fmt: skip
def test_at_the_start_an_unpaired_loss_is_what_the_paper_says(name, loss):
    rows = [
        replace(row, completion=at_start(row.completion), mismatched=at_start(row.mismatched))
        for row in UNPAIRED["ragged"]
    ]
    assert losses(name, rows, state=BY_NAME[name]().initial_state()) == exactly([loss] * len(rows))


@pytest.mark.parametrize("rows", RANKED.values(), ids=RANKED)
def test_at_the_start_a_lists_loss_is_what_the_paper_says(rows):
    rows = [tuple(at_start(y) for y in row) for row in rows]
    size = len(rows[0])
    assert losses("pl_dpo", rows) == exactly([math.log(math.factorial(size))] * len(rows))
    assert losses("infonca", rows) == exactly([math.log(size)] * len(rows))
    assert losses("nca", rows) == exactly([2 * LOG_2] * len(rows))
