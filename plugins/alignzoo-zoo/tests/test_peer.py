"""The same losses as TRL 1.16, on the log-probs that TRL computed; benchmarks/peers/trl_losses.py recorded them.

Where the definitions differ, the case says which is ours, why, and what makes theirs of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from alignzoo_zoo import OBJECTIVES
from cases import build
from formulas import Completion, Pair, Single

from alignzoo.objectives import CDPO, DPO, IPO, SFT

RECORD = Path(__file__).parents[3] / "tests" / "objectives" / "peer_trl.json"
BY_NAME = {cls.name: cls for cls in [DPO, CDPO, IPO, SFT, *OBJECTIVES]}

pytestmark = pytest.mark.skipif(not RECORD.is_file(), reason=f"no {RECORD}")


@lru_cache
def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text())


def arrays(side: dict[str, Any]) -> list[Completion]:
    columns = [side["token_log_probs"], side["ref_token_log_probs"], side["log_collision"]]
    return [Completion(*map(tuple, each)) for each in zip(*columns, strict=True)]


def pairs() -> list[Pair]:
    """The four pairs, with the reward model's outputs."""
    inputs, reward = record()["inputs"], record()["losses"]["reward"]["inputs"]

    def side(name: str) -> Iterator[Completion]:
        numbers = zip(arrays(inputs[name]), reward[f"{name}_rewards"], reward["margin"], strict=True)
        for one, scalar, margin in numbers:
            yield Completion(one.tokens, one.ref_tokens, one.collision, scalar=scalar, margin=margin)

    return [Pair(*both) for both in zip(side("chosen"), side("rejected"), strict=True)]


def singles() -> list[Single]:
    """The chosen ones, then the rejected ones; prompts with the completion of the row before in KTO's record."""
    rows = pairs()
    mismatched = arrays(record()["losses"]["kto"]["inputs"]["mismatched"])
    own = [(row.chosen, True) for row in rows] + [(row.rejected, False) for row in rows]
    return [Single(one, desirable, other) for (one, desirable), other in zip(own, mismatched, strict=True)]


# What TRL adds, or has in another place


def token_mean_nll() -> float:
    """TRL's NLL: one mean over all chosen tokens of the batch. In a recipe: `+ sft`, weighted."""
    loss, weight = ours("sft", {})
    return math.fsum(loss) / math.fsum(weight)


def prompt_and_chosen_nll() -> float:
    """ORPO's NLL in TRL: one mean over all tokens of prompts and chosen completions."""
    prompts = record()["losses"]["orpo"]["inputs"]["prompt_token_log_probs"]
    tokens = [token for row, prompt in zip(pairs(), prompts, strict=True) for token in (*prompt, *row.chosen.tokens)]
    return -math.fsum(tokens) / len(tokens)


def own_orpo_nll() -> float:
    """ORPO's NLL here: the mean over pairs of the mean over y_w's tokens."""
    return -math.fsum(row.chosen.mean for row in pairs()) / 4


@dataclass(frozen=True)
class Case:
    """Our objective with `fields` is TRL's `peer`, times `times`, plus `plus()`; `differs` says why."""

    name: str
    peer: str
    fields: dict[str, Any] = field(default_factory=dict)
    differs: str = ""
    times: float = 1.0
    plus: Callable[[], float] | None = None

    def __str__(self) -> str:
        return f"{self.name} is {self.peer}" + (f" ({self.differs})" if self.differs else "")


CASES = [
    Case("dpo", "sigmoid"),
    Case("cdpo", "sigmoid_label_smoothing", {"label_smoothing": 0.0}, "ours with 0: TRL ignores its label_smoothing"),
    Case("ipo", "ipo", {"log_ratio": "mean"}, "ours by default sums, as the paper's eq. 17; log_ratio=mean is TRL's"),
    Case("sft", "sft"),
    Case("robust_dpo", "robust"),
    Case("rso_hinge", "hinge"),
    Case("rso_hinge", "hinge_beta_1", {"beta": 1.0}),
    Case("exo_pair", "exo_pair", {"label_smoothing": 0.1}),
    Case("exo_pair", "exo_pair_0.001", {"label_smoothing": 1e-3}),
    Case("nca_pair", "nca_pair"),
    Case("bco_pair", "bco_pair", differs="neither has the paper's shift"),
    Case("sppo_hard", "sppo_hard", {"beta": 0.1}),
    Case("aot", "aot_unsmoothed"),
    Case("aot_unpaired", "aot_unpaired_unsmoothed"),
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
    Case("cpo", "cpo_no_nll", {"alpha": 0.0}),
    Case("cpo", "cpo", {"alpha": 0.0}, "our NLL is the paper's sum; alpha=0 and + sft is TRL's", plus=token_mean_nll),
    Case("slic_hf", "cpo_hinge", {"delta": 10.0, "regularisation": 0.0}, "TRL's is in units of 1 / beta", times=0.1),
    Case("simpo", "simpo", {"beta": 2.0, "gamma": 0.5}, "neither scales gamma by beta"),
    Case("simpo", "cpo_simpo", {"beta": 2.0, "gamma": 0.5}, "+ sft", plus=token_mean_nll),
    Case("alpha_po", "alphapo", {"beta": 2.0, "gamma": 0.5, "alpha": 0.25}),
    Case(
        "orpo", "orpo", {"lambda_": 0.1}, "our NLL is y_w's mean as in the paper; TRL's is over prompt and chosen",
        plus=lambda: prompt_and_chosen_nll() - own_orpo_nll(),
    ),
    Case("kto", "kto"),
    Case("kto", "kto_weighted", {"undesirable_weight": 0.5}),
    Case("apo_zero_unpaired", "apo_zero_unpaired"),
    Case("apo_zero", "apo_zero_unpaired", differs="half: its examples are twice as many", times=0.5),
    Case("bradley_terry_margin", "reward", {"centering": 0.01}),
]  # fmt: skip

NOT_OURS = {
    "aot": "label smoothing of AOT", "aot_unpaired": "label smoothing of AOT",
    "mpo": "a sum: a recipe's objective [dpo, bco_pair, sft]", "cpo_label_smoothing": "label smoothing of CPO",
    "cpo_hinge_nll": "cpo_hinge and the NLL of cpo", "cpo_ipo": "IPO without a reference",
}  # fmt: skip


def ours(name: str, fields: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The loss of each example, and what it counts for."""
    cls = BY_NAME[name]
    example = build(cls, singles() if cls.data == "unpaired" else pairs())
    return cls(**fields).loss(example).tolist(), cls(**fields).weight(example).tolist()


def difference(case: Case) -> float:
    """The largest relative one, of the batch and, where TRL's loss is a mean over examples, of each."""
    loss, weight = ours(case.name, case.fields)
    theirs = record()["losses"][case.peer]
    mean = case.times * math.fsum(loss) / math.fsum(weight) + (case.plus() if case.plus else 0.0)
    both = [(mean, theirs["mean"])]
    each = theirs.get("per_example", [])
    if not case.plus and len(each) == len(loss) and case.name not in ("aot", "aot_unpaired"):
        both += [(case.times * one, other) for one, other in zip(loss, each, strict=True)]
    return max(abs(one - other) / max(abs(other), 1e-12) for one, other in both)


def largest_difference() -> dict[str, tuple[str, float]]:
    """By our name: which of TRL's losses is the farthest, and how far, relatively."""
    table: dict[str, tuple[str, float]] = {}
    for case in CASES:
        far = difference(case)
        if case.name not in table or far > table[case.name][1]:
            table[case.name] = (case.peer, far)
    return table


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_trls(case):
    precision = record()["losses"][case.peer]["precision"]
    assert difference(case) < {"float64": 1e-9, "float32": 1e-5}[precision]


def test_every_loss_of_trl_is_compared_or_is_not_ours():
    assert set(record()["losses"]) == {case.peer for case in CASES} | set(NOT_OURS)


def test_ktos_kl_estimate_is_trls():
    estimate = math.fsum(single.mismatched.r for single in singles()) / 8
    assert estimate == pytest.approx(record()["losses"]["kto"]["kl"], rel=1e-9)


def test_where_defaults_differ_the_losses_do():
    """Were they equal, the cases above would say nothing."""
    for name, peer, fields in [
        ("ipo", "ipo", {}),
        ("cpo", "cpo", {}),
        ("orpo", "orpo", {}),
        ("apo_zero", "apo_zero_unpaired", {}),
    ]:
        assert difference(Case(name, peer, fields)) > 1e-3, name


if __name__ == "__main__":
    for name, (peer, far) in largest_difference().items():
        print(f"{name:22} {peer:26} {far:.1e}")
