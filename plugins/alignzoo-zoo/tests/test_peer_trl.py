"""The same losses as TRL's, on the log-probs that TRL computed; benchmarks/peers/trl_losses.py recorded them."""

from __future__ import annotations

import math

import pytest
from peers import Case, Record

from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing

RECORD = Record("peer_trl.json")
SMOOTHED = (LabelSmoothing(epsilon=0.1),)
nll = RECORD.token_mean_nll

pytestmark = pytest.mark.skipif(not RECORD.path.is_file(), reason=f"no {RECORD.path}")


def prompt_and_chosen_nll() -> float:
    """ORPO's NLL in TRL: one mean over all tokens of prompts and chosen completions."""
    prompts = RECORD.losses["orpo"]["inputs"]["prompt_token_log_probs"]
    tokens = [
        token for row, prompt in zip(RECORD.pairs, prompts, strict=True) for token in (*prompt, *row.chosen.tokens)
    ]
    return -math.fsum(tokens) / len(tokens)


def own_orpo_nll() -> float:
    """ORPO's NLL here: the mean over pairs of the mean over y_w's tokens."""
    return -math.fsum(row.chosen.mean for row in RECORD.pairs) / len(RECORD.pairs)


CASES = [
    Case("dpo", "sigmoid"),
    Case("cdpo", "sigmoid_label_smoothing", {"label_smoothing": 0.0}, "ours with 0: TRL ignores its label_smoothing"),
    Case("pl_dpo", "sigmoid", differs="a list of two"),
    Case("tr_dpo", "sigmoid", {"beta": 0.1}, "the reference moves, and the loss is DPO's"),
    Case("ipo", "ipo", {"log_ratio": "mean"}, "ours by default sums, as the paper's eq. 17; log_ratio=mean is TRL's"),
    Case("sft", "sft"),
    Case("robust_dpo", "robust", {"beta": 0.1}),
    Case("rso_hinge", "hinge", {"beta": 0.1}, "RSO's, with log-ratios; SLiC-HF's own hinge is slic_hf"),
    Case("rso_hinge", "hinge_beta_1", {"beta": 1.0}),
    Case("exo_pair", "exo_pair", {"label_smoothing": 0.1}, "the label is smoothed by e; e = 0 is infinite in both"),
    Case("exo_pair", "exo_pair_0.001", {"label_smoothing": 1e-3}),
    Case("nca_pair", "nca_pair", {"beta": 0.1}),
    Case("bco_pair", "bco_pair", {"beta": 0.1}, "neither has the paper's shift, which is in bco"),
    Case("sppo_hard", "sppo_hard", {"beta": 0.1}),
    Case("aot", "aot_unsmoothed"),
    Case("aot", "aot", differs="label_smoothing is a modifier here", modifiers=SMOOTHED),
    Case("aot_unpaired", "aot_unpaired_unsmoothed"),
    Case("aot_unpaired", "aot_unpaired", differs="label_smoothing is a modifier here", modifiers=SMOOTHED),
    Case("apo_zero", "apo_zero"),
    Case("apo_down", "apo_down"),
    Case("discopop", "discopop", {"beta": 0.1, "temperature": 0.05}),
    Case("ln_dpo", "sigmoid_norm", {"beta": 0.1}),
    Case("f_dpo", "f_reverse_kl", {"divergence": "reverse_kl"}),
    Case("f_dpo", "f_forward_kl", {"divergence": "forward_kl"}),
    Case("f_dpo", "f_js_divergence", {"divergence": "js"}),
    Case("f_dpo", "f_alpha_divergence", {"divergence": "alpha", "alpha": 0.5}, "our alpha is 1 - TRL's coefficient"),
    Case("ld_dpo", "ld_dpo"),
    Case("wpo", "wpo", {"beta": 0.1, "clamp": False}, "ours caps weights at 1, as the authors; clamp=False is TRL's"),
    Case("wpo", "wpo", {"beta": 0.1}, "capped: here no weight is above 1"),
    Case(
        "dpo", "mpo", {}, "a sum in a recipe: 0.8 dpo + 0.2 bco_pair + sft", times=0.8,
        plus=lambda: 0.2 * RECORD.mean(Case("bco_pair", "", {"beta": 0.1})) + nll(),
    ),
    Case("cpo", "cpo_no_nll", {"alpha": 0.0}),
    Case("cpo", "cpo", {"alpha": 0.0}, "our NLL is the paper's sum; alpha=0 and + sft is TRL's", plus=nll),
    Case(
        "cpo", "cpo_label_smoothing", {"alpha": 0.0}, "the same; label_smoothing is a modifier here", plus=nll,
        modifiers=SMOOTHED,
    ),
    Case("slic_hf", "cpo_hinge", {"delta": 10.0, "regularization": 0.0}, "TRL's is in units of 1 / beta", times=0.1),
    Case(
        "slic_hf", "cpo_hinge_nll", {"delta": 10.0, "regularization": 0.0}, "the same, + sft", times=0.1, plus=nll,
    ),
    Case("simpo", "simpo", {"beta": 2.0, "gamma": 0.5}, "neither scales gamma by beta"),
    Case("simpo", "cpo_simpo", {"beta": 2.0, "gamma": 0.5}, "+ sft", plus=nll),
    Case("alpha_po", "alphapo", {"beta": 2.0, "gamma": 0.5, "alpha": 0.25}),
    Case(
        "orpo", "orpo", {"lambda_": 0.1}, "our NLL is y_w's mean as in the paper; TRL's is over prompt and chosen",
        plus=lambda: prompt_and_chosen_nll() - own_orpo_nll(),
    ),
    Case("kto", "kto", differs="z0 is the mean log-ratio of mismatched completions in both, beta times r - z0"),
    Case("kto", "kto_weighted", {"undesirable_weight": 0.5}, "both divide by the number of examples"),
    Case("apo_zero_unpaired", "apo_zero_unpaired"),
    Case("apo_zero", "apo_zero_unpaired", differs="half: its examples are twice as many", times=0.5),
    Case("bradley_terry_margin", "reward", {"centering": 0.01}),
]  # fmt: skip

NOT_OURS = {"cpo_ipo": "IPO without a reference, which no paper has"}


def differences() -> list[tuple[Case, float]]:
    """Of every case."""
    return [(case, RECORD.difference(case)) for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_trls(case):
    assert RECORD.difference(case) < RECORD.tolerance(case.peer)


def test_every_loss_of_trl_is_compared_or_is_not_ours():
    assert set(RECORD.losses) == {case.peer for case in CASES} | set(NOT_OURS)


def test_ktos_kl_estimate_is_trls():
    estimate = math.fsum(single.mismatched.r for single in RECORD.singles) / 8
    assert estimate == pytest.approx(RECORD.losses["kto"]["kl"], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "peer"), [("ipo", "ipo"), ("cpo", "cpo"), ("orpo", "orpo"), ("apo_zero", "apo_zero_unpaired")]
)
def test_where_definitions_differ_the_losses_do(name, peer):
    """Were they equal, the cases above would say nothing."""
    assert RECORD.difference(Case(name, peer)) > 1e-3
