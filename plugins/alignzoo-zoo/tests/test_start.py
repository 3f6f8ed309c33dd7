"""At the start of a run the policy is the reference, and every loss is what its paper says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cases import BY_NAME, PAIRS, RANKED, UNPAIRED, exactly, losses
from notation import Completion, Pair

EVERY = [row for rows in PAIRS.values() for row in rows]


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
                "aot", "aot_unpaired", "dr_dpo", "wpo", "tdpo1", "tdpo2", "tr_dpo", "mallows_po",
                "bema_dpo", "d2po", "minor_dpo", "mappo",
            ]
        ],
        *[("f_dpo", {"divergence": name}, LOG_2) for name in ["reverse_kl", "forward_kl", "js", "alpha"]],
        ("beta_dpo", {"keep": 1.0}, LOG_2), ("gpo", {}, 1.0), ("gpo", {"link": "cauchy"}, LOG_2), ("bpo", {}, 1.0),
        ("gpo", {"link": "savage"}, 0.25), ("focal_po", {}, LOG_2 * 0.5**0.05), ("dil", {}, -0.5),
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
