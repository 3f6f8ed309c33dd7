"""The same losses as Liger-Kernel's, on the log-probs of its inputs; benchmarks/peers/liger_losses.py recorded them."""

from __future__ import annotations

import math

import pytest
from peers import Case, Record
from test_peer_trl import SMOOTHED

RECORD = Record("peer_liger.json")
nll = RECORD.token_mean_nll

pytestmark = pytest.mark.skipif(not RECORD.path.is_file(), reason=f"no {RECORD.path}")


def token_mean_less_ours() -> float:
    """Our NLL of ORPO and RPO is a mean over pairs of the mean over y_w's tokens, Liger's one over all tokens."""
    return nll() + math.fsum(row.chosen.mean for row in RECORD.pairs) / len(RECORD.pairs)


SIMPO = {"beta": 2.0, "gamma": 0.5}
CASES = [
    Case("dpo", "sigmoid"),
    Case("cdpo", "sigmoid_label_smoothing", {"label_smoothing": 0.0}, "ours with 0: Liger ignores its label_smoothing"),
    Case("ln_dpo", "sigmoid_average", {"beta": 0.1}),
    Case("dpo", "sigmoid_nll", differs="+ 0.2 sft", plus=lambda: 0.2 * nll()),
    Case("pl_dpo", "sigmoid", differs="a list of two"),
    Case(
        "rpo", "sigmoid_nll", {"alpha": 0.2}, "our NLL is each pair's mean, the paper's; Liger's is over all tokens",
        plus=lambda: 0.2 * token_mean_less_ours(),
    ),
    Case("rso_hinge", "hinge", {"beta": 0.1}, "RSO's, with log-ratios; SLiC-HF's own hinge is slic_hf"),
    Case("exo_pair", "exo_pair", {"label_smoothing": 1e-3}),
    Case("nca_pair", "nca_pair", {"beta": 0.1}),
    Case("robust_dpo", "robust", {"beta": 0.1}),
    Case("bco_pair", "bco_pair", {"beta": 0.1}, "neither has the paper's shift, which is in bco"),
    Case("sppo_hard", "sppo_hard", {"beta": 0.1}),
    Case("apo_zero", "apo_zero"),
    Case("apo_down", "apo_down"),
    Case("discopop", "discopop", {"beta": 0.1, "temperature": 0.05}),
    Case("cpo", "cpo_no_nll", {"alpha": 0.0}),
    Case("cpo", "cpo", {"alpha": 0.0}, "our NLL is the paper's sum; alpha=0 and + sft is Liger's", plus=nll),
    Case("simpo", "cpo_average", {"beta": 0.1, "gamma": 0.0}, "CPO sums in its paper; averaged it is SimPO"),
    Case("cpo", "cpo_label_smoothing", {"alpha": 0.0}, "label_smoothing is a modifier here", modifiers=SMOOTHED),
    Case("simpo", "simpo", SIMPO, "neither scales gamma by beta"),
    Case("simpo", "simpo_default", SIMPO, "SimPO has no NLL; + sft is what Liger does by default", plus=nll),
    Case("orpo", "orpo_no_nll", {"lambda_": 0.1}, "less our NLL", plus=lambda: token_mean_less_ours() - nll()),
    Case(
        "orpo", "orpo", {"lambda_": 0.1}, "our NLL is each pair's mean, the paper's; Liger's is over all tokens",
        plus=token_mean_less_ours,
    ),
    Case("kto", "kto", differs="Liger is given z0, ours estimates it: the mean log-ratio of mismatched completions"),
    Case("apo_zero_unpaired", "kto_no_kl", differs="KTO with z0 = 0 is APO-zero on single completions"),
]  # fmt: skip

NOT_OURS = {
    "simpo_label_smoothing": "smooths the logit with its margin: swapping the sides, ours, leaves the margin's sign",
}


def differences() -> list[tuple[Case, float]]:
    """Of every case."""
    return [(case, RECORD.difference(case)) for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_ligers(case):
    assert RECORD.difference(case) < RECORD.tolerance(case.peer)


def test_every_loss_of_liger_is_compared_or_is_not_ours():
    assert set(RECORD.losses) == {case.peer for case in CASES} | set(NOT_OURS)


def test_liger_was_given_our_kl_estimate():
    estimate = math.fsum(single.mismatched.r for single in RECORD.singles) / 8
    assert estimate == pytest.approx(RECORD.losses["kto"]["kl"], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "peer", "fields"),
    [("cpo", "cpo", {}), ("orpo", "orpo", {}), ("simpo", "simpo_default", SIMPO), ("kto", "kto_no_kl", {})],
)
def test_where_definitions_differ_the_losses_do(name, peer, fields):
    """Were they equal, the cases above would say nothing."""
    assert RECORD.difference(Case(name, peer, fields)) > 1e-4
