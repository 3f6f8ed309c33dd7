"""The same losses as HALOs', written again in `halos`, on our own batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import halos
import pytest
from cases import BY_NAME, PAIRS, UNPAIRED, build, completion
from notation import Pair
from peers import Case, relative
from test_start import START

Theirs = Callable[[Any], Sequence[float]]


def each(function: Callable[..., float], **settings: float) -> Theirs:
    """Of every pair."""
    return lambda rows: [function(row, **settings) for row in rows]


def changed(rows: Sequence[Pair]) -> list[Pair]:
    """Pairs in which no token is as likely as it was: HALOs doesn't count those."""
    kept = [row for row in rows if 0 not in (*row.chosen.ratios, *row.rejected.ratios)]
    assert kept
    return kept


@dataclass(frozen=True)
class Halo:
    """A case, HALOs' numbers for a batch of rows, and the rows on which the two are to be the same."""

    case: Case
    theirs: Theirs
    rows: Sequence[Sequence[Any]] = tuple(PAIRS.values())
    whole: bool = False
    """HALOs' is one number for the batch: ours is its weighted mean."""

    def __str__(self) -> str:
        return str(self.case)

    def both(self, rows: Sequence[Any]) -> list[tuple[float, float]]:
        cls, objective = BY_NAME[self.case.name], self.case.objective
        example = build(cls, rows)
        loss, theirs = objective.loss(example).tolist(), list(self.theirs(rows))
        if self.whole:
            loss = [math.fsum(loss) / math.fsum(objective.weight(example).tolist())]
        return list(zip(loss, theirs, strict=True))

    @property
    def difference(self) -> float:
        return max(relative(self.both(rows)) for rows in self.rows)


LISTS = tuple(UNPAIRED.values())
HALOS = [
    Halo(Case("dpo", "dpo", {"beta": 0.1}), each(halos.dpo, beta=0.1)),
    Halo(Case("cdpo", "cdpo", {"label_smoothing": 0.2}), each(halos.cdpo, beta=0.1, epsilon=0.2)),
    Halo(
        Case(
            "ipo", "ipo", {"log_ratio": "mean"},
            "ours by default sums, as the paper's eq. 17; log_ratio=mean is HALOs', where every token has changed",
        ),
        each(halos.ipo, tau=0.1), [changed(PAIRS["ragged"]), changed(PAIRS["far"]), changed(PAIRS["equal lengths"])],
    ),
    Halo(
        Case("simpo", "simpo", {"beta": 2.0, "gamma": 1.0}, "our gamma is the paper's: HALOs' ratio times beta"),
        each(halos.simpo, beta=2.0, gamma_beta_ratio=0.5),
    ),
    Halo(Case("slic_hf", "slic", {"delta": 1.0}), each(halos.slic, beta=1.0, lambda_coef=0.1)),
    Halo(Case("orpo", "orpo", {"lambda_": 0.25}, "both NLLs are means"), each(halos.orpo, scale=0.25)),
    Halo(Case("bradley_terry", "bradley-terry", {"centering": 0.0}, "ours centers"), each(halos.bradley_terry)),
    Halo(Case("sft", "sft", {}, "both are means over tokens"), lambda rows: [halos.sft(rows)], whole=True),
    Halo(
        Case("preferred_ft", "sft", {}, "as HALOs was: a mean over completions"),
        lambda rows: [halos.sft_by_sequence(rows)], whole=True,
    ),
    Halo(
        Case("kto", "kto", {}, "z0 is a mean over all mismatched completions; HALOs' is over those that changed"),
        lambda rows: halos.kto(rows, beta=0.1), LISTS,
    ),
    Halo(
        Case("kto", "kto", {"desirable_weight": 1.33, "undesirable_weight": 0.5}),
        lambda rows: halos.kto(rows, 0.1, 1.33, 0.5), LISTS,
    ),
    Halo(
        Case("apo_zero_unpaired", "kto-zero", {}, "KTO with z0 = 0 is APO-zero on single completions"),
        lambda rows: halos.kto_zero(rows, beta=0.1), LISTS,
    ),
]  # fmt: skip

LOSSES = {
    "bradley-terry", "cdpo", "csft", "dpo", "dpo-sigmoid", "grpo", "ipo", "kto", "kto-info", "kto-logsigmoid",
    "kto-simple", "kto-surprisal", "kto-zero", "orpo", "ppo", "sft", "simpo", "slic",
}  # fmt: skip
"""config/loss of the repository, over its history."""

NOT_OURS = {
    "csft": "conditional SFT: a matter of the data, a control token before each completion",
    "dpo-sigmoid": "an ablation: -sigmoid in the place of -log sigmoid",
    "grpo": "on-policy",
    "ppo": "needs a value head",
    **dict.fromkeys(["kto-info", "kto-logsigmoid", "kto-simple", "kto-surprisal"], "ablations of KTO, in no paper"),
}


def differences() -> list[tuple[Case, float]]:
    """Of every case."""
    return [(halo.case, halo.difference) for halo in HALOS]


@pytest.mark.parametrize("halo", HALOS, ids=str)
def test_it_is_halos(halo):
    assert halo.difference < 1e-10


def test_every_loss_of_halos_is_compared_or_is_not_ours():
    assert {halo.case.peer for halo in HALOS} | set(NOT_OURS) == LOSSES
    assert not {halo.case.peer for halo in HALOS} & set(NOT_OURS)


def test_halos_ipo_is_undefined_at_the_start_and_ours_is_what_the_paper_says():
    """0 / 0 there. Ours divides by the length."""
    ours = BY_NAME["ipo"](log_ratio="mean", beta=0.1).loss(build(BY_NAME["ipo"], START))
    assert ours.tolist() == pytest.approx([25.0] * len(START))
    with pytest.raises(ZeroDivisionError):
        halos.ipo(START[0], tau=0.1)


def test_halos_ipo_leaves_out_tokens_that_did_not_change():
    """Where one is as likely as it was, the two are different losses."""
    row = PAIRS["ragged"][0]
    assert 0 in row.rejected.ratios
    ours = BY_NAME["ipo"](log_ratio="mean", beta=0.1).loss(build(BY_NAME["ipo"], [row])).item()
    assert ours != pytest.approx(halos.ipo(row, tau=0.1), rel=1e-3)


def test_halos_kl_estimate_leaves_out_completions_that_did_not_change():
    likelier, same = completion([(-1.0, -2.0)], 0), completion([(-1.0, -1.0)], 0)
    for mismatched, alike in ((likelier, True), (same, False)):
        rows = [replace(row, mismatched=likelier) for row in UNPAIRED["ragged"]]
        rows[0] = replace(rows[0], mismatched=mismatched)
        ours = BY_NAME["kto"](beta=0.5).loss(build(BY_NAME["kto"], rows)).tolist()
        assert (ours == pytest.approx(halos.kto(rows, 0.5), rel=1e-10)) is alike


def test_halos_slic_by_token_is_another_loss():
    """Of a hinge and a mean NLL: in a recipe slic_hf with regularization 0, and sft. Ours is the paper's sum."""
    for row in [row for rows in PAIRS.values() for row in rows]:
        width = max(row.chosen.n, row.rejected.n)
        hinge = BY_NAME["slic_hf"](regularization=0.0).loss(build(BY_NAME["slic_hf"], [row])).item()
        assert halos.slic_by_token(row, 1.0, 0.1) == pytest.approx(hinge - 0.1 * row.chosen.logp / width)
        if width > 1:
            assert halos.slic_by_token(row, 1.0, 0.1) != pytest.approx(halos.slic(row, 1.0, 0.1))
