"""Signs of training that goes wrong: each on data made to show it, and on data made not to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from alignzoo.report import diagnosis
from alignzoo.report.diagnosis import diagnose


def evaluation(step, **figures):
    return {"kind": "eval", "step": step, "n": 400} | figures


def log_probs(chosen, rejected, step=0, ratio=0.0):
    return evaluation(step, chosen_log_prob=chosen, rejected_log_prob=rejected, chosen_log_ratio=ratio)


def random(seed=0):
    return np.random.default_rng(seed)


def pairs(margin, difference=None, weight=None, ratio=None):
    """Records of held-out rows."""
    n = len(margin)
    difference = np.zeros(n) if difference is None else difference
    columns = {
        "margin": margin,
        "chosen_length": 50 + np.maximum(difference, 0),
        "rejected_length": 50 + np.maximum(-difference, 0),
    }
    columns |= {} if weight is None else {"gradient_weight": weight}
    columns |= {} if ratio is None else {"chosen_log_ratio": ratio}
    return [{"id": str(i), **{name: float(values[i]) for name, values in columns.items()}} for i in range(n)]


def test_displacement_is_found_where_chosen_completions_became_less_likely():
    sign = diagnosis.displacement([log_probs(-100, -110), log_probs(-112, -150, 300, -12)])
    assert sign.found
    assert ("chosen log-prob", "-100.00 to -112.00 nats (-12.00)") in sign.numbers
    assert "2410.08847" in sign.advice


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [(-99, -150), (-100.5, -150), (-112, -122)],
    ids=["the chosen rose", "a fall within 1%", "both fell alike, so no margin rose"],
)
def test_no_displacement(chosen, rejected):
    assert diagnosis.displacement([log_probs(-100, -110), log_probs(chosen, rejected, 300)]).found is False


def test_displacement_is_that_of_the_checkpoint_that_was_kept():
    lines = [log_probs(-100, -110), log_probs(-99, -120, 100), log_probs(-112, -150, 300)]
    assert diagnosis.displacement(lines).found
    kept = diagnosis.displacement(lines, step=100)
    assert kept.found is False
    assert ("chosen log-prob", "-100.00 to -99.00 nats (+1.00)") in kept.numbers
    assert diagnosis.kept_step({"selection": {"metric": "loss", "step": 100}}) == 100
    assert diagnosis.kept_step({}) is None


def test_displacement_needs_more_than_the_noise_of_the_rows():
    lines = [log_probs(-100, -110), log_probs(-103, -150, 300, -3)]
    noisy = pairs(np.ones(30), ratio=random().normal(-3, 40, 30))
    steady = pairs(np.ones(30), ratio=random().normal(-3, 1, 30))
    assert diagnosis.displacement(lines, noisy).found is False
    assert diagnosis.displacement(lines, steady).found
    assert diagnosis.displacement(lines[:1]).found is None


@pytest.mark.parametrize("favored", ["longer", "shorter"])
def test_length_exploitation_is_found_where_the_margin_follows_length(favored):
    difference = random().normal(0, 20, 400)
    slope = 0.05 if favored == "longer" else -0.05
    sign = diagnosis.length_exploitation(pairs(slope * difference + random(1).normal(0.5, 1, 400), difference))
    assert sign.found
    names = dict(sign.numbers)
    assert names["favored"] == f"{favored} completions"
    other = {"longer": "shorter", "shorter": "longer"}[favored]
    right = {side: float(names[f"accuracy where the chosen is {side}"][:5]) for side in (favored, other)}
    assert right[favored] > 0.8 > right[other]


def test_no_length_exploitation_where_the_margin_does_not():
    difference = random().normal(0, 20, 400)
    assert diagnosis.length_exploitation(pairs(random(1).normal(0.5, 1, 400), difference)).found is False
    assert diagnosis.length_exploitation(pairs(np.arange(400.0))).found is None  # no lengths differ
    assert diagnosis.length_exploitation([]).found is None


def spearman_by_definition(x, y):
    """Pearson's correlation of mean ranks, each counted one by one."""

    def ranks(values):
        return np.array([sum(values < one) + (sum(values == one) + 1) / 2 for one in values])

    a, b = ranks(x) - np.mean(ranks(x)), ranks(y) - np.mean(ranks(y))
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def test_the_correlation_is_spearmans_with_bonett_and_wrights_interval():
    x, y = random(2).integers(0, 9, 60).astype(float), random(3).normal(size=60)
    y += 0.2 * x
    r, low, high = diagnosis.spearman(x, y)
    assert r == pytest.approx(spearman_by_definition(x, y), abs=1e-12)
    half = 1.959964 * math.sqrt((1 + r * r / 2) / 57)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    assert diagnosis.spearman(x, 2 * x) == pytest.approx((1, 1, 1))


def test_the_interval_of_the_correlation_covers_95_percent():
    """Of a bivariate normal with r = 0.5: Spearman's coefficient is 6 / pi asin(r / 2)."""
    true, draw = 6 / math.pi * math.asin(0.25), random(4)
    covered = 0
    for _ in range(400):
        x = draw.normal(size=80)
        y = 0.5 * x + math.sqrt(0.75) * draw.normal(size=80)
        _, low, high = diagnosis.spearman(x, y)
        covered += low < true < high
    assert 0.92 < covered / 400 < 0.98


def online(rewards, kls):
    return [
        evaluation(50 * n, reward=reward, reward_se=0.02, kl=kl)
        for n, (reward, kl) in enumerate(zip(rewards, kls, strict=True))
    ]


def test_over_optimization_is_found_where_kl_rises_and_the_reward_falls():
    sign = diagnosis.over_optimization(online([0.1, 0.5, 0.4, 0.3], [0, 2, 5, 11]))
    assert sign.found
    assert ("held-out reward", "best 0.500 at step 50, last 0.300 (-0.200, noise 0.039)") in sign.numbers
    assert ("KL from the reference", "2.00 to 11.00 nats since then") in sign.numbers


@pytest.mark.parametrize(
    ("rewards", "kls"),
    [
        ([0.1, 0.5, 0.6, 0.7], [0, 2, 5, 11]),
        ([0.1, 0.5, 0.49, 0.48], [0, 2, 5, 11]),
        ([0.1, 0.5, 0.4, 0.3], [0, 5, 4, 3]),
    ],
    ids=["the reward rises", "a fall within the noise", "the policy came back"],
)
def test_no_over_optimization(rewards, kls):
    assert diagnosis.over_optimization(online(rewards, kls)).found is False


def test_over_optimization_without_draws_reads_accuracy_and_log_ratios():
    def line(step, accuracy, ratio):
        return evaluation(step, preference_accuracy=accuracy, preference_accuracy_se=0.01, chosen_log_ratio=-ratio, rejected_log_ratio=-2 * ratio)  # fmt: skip

    lines = [line(0, 0.5, 0), line(50, 0.7, 4), line(100, 0.6, 40)]
    sign = diagnosis.over_optimization(lines)
    assert sign.found
    assert ("mean absolute log-ratio", "6.00 to 60.00 nats since then") in sign.numbers
    assert diagnosis.over_optimization(lines[:2]).found is None
    rollouts = [{"kind": "rollout", "step": step, "kl": step / 10} for step in range(1, 101)]
    assert (
        dict(diagnosis.over_optimization(lines + rollouts).numbers)["KL from the reference"]
        == "4.80 to 9.80 nats since then"
    )
    bare = [evaluation(step, preference_accuracy=0.5) for step in (0, 1, 2)]
    assert diagnosis.over_optimization(bare).found is None


def test_flipped_labels_are_found_and_listed_worst_first():
    margin = random(5).normal(4, 0.7, 300)
    flipped = random(6).choice(300, 30, replace=False)
    margin[flipped] *= -1
    sign = diagnosis.wrong_labels(pairs(margin))
    assert sign.found
    assert ("rows with a margin below the limit", "30 of 300") in sign.numbers
    worst = [int(id) for id, _ in sign.rows]
    assert worst == sorted(flipped, key=lambda i: margin[i])[:10]
    assert sign.rows[0][1] == f"margin {margin[worst[0]]:.3g}, 50 chosen and 50 rejected tokens"


@pytest.mark.parametrize(
    "mean", [0.5, 2.0, 0.0], ids=["a mediocre model", "a good one", "one that has learned nothing"]
)
def test_no_wrong_labels_where_margins_are_of_one_kind(mean):
    sign = diagnosis.wrong_labels(pairs(random(7).normal(mean, 1, 2000)))
    assert sign.found is False
    assert sign.rows == []


def test_wrong_labels_need_rows():
    assert diagnosis.wrong_labels(pairs(np.ones(9))).found is None


def test_rows_that_dominate_are_found():
    weight = np.ones(200)
    weight[[7, 9]] = 60, 40
    sign = diagnosis.dominating_rows(pairs(np.ones(200), weight=weight))
    assert sign.found
    assert ("share of the largest 2 of 200 rows", f"{100 / 298:.1%}") in sign.numbers
    assert [id for id, _ in sign.rows] == ["7", "9"]


def test_no_row_dominates_where_weights_are_alike():
    sign = diagnosis.dominating_rows(pairs(np.ones(200), weight=random(8).uniform(0.5, 1, 200)))
    assert sign.found is False
    assert sign.rows == []
    assert diagnosis.dominating_rows(pairs(np.ones(99), weight=np.ones(99))).found is None
    assert diagnosis.dominating_rows(pairs(np.ones(200))).found is None


def test_leakage_counts_rows_in_both_splits():
    clean, leaked = {"rows": 0, "prompts": 9}, {"rows": 4, "prompts": 9}
    assert diagnosis.leakage({"overlap": clean}).found is False
    assert diagnosis.leakage({"overlap": leaked}).found
    sign = diagnosis.leakage({"overlap": clean, "evaluation": {"hard": {"overlap": leaked}}})
    assert sign.found
    assert ("rows trained on and in hard", "4, and 9 rows with a prompt that is trained on") in sign.numbers
    assert diagnosis.leakage({}).found is None


def test_an_empty_folder_says_what_each_sign_takes(tmp_path):
    signs = diagnose(tmp_path)
    assert [sign.found for sign in signs] == [None] * 6
    assert all(sign.missing for sign in signs)
    assert (
        signs[1].line()
        == "length exploitation: not known (needs 10 held-out pairs of different lengths in held_out.jsonl)"
    )


def test_a_folder_is_read_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (log_probs(-100, -110), log_probs(-112, -150, 300)))
    )
    (tmp_path / "held_out.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in pairs(np.ones(200), weight=np.ones(200)))
    )
    (tmp_path / "data.json").write_text('{"overlap": {"rows": 0, "prompts": 0}}')
    assert [sign.found for sign in diagnose(tmp_path)] == [True, None, None, False, False, False]
