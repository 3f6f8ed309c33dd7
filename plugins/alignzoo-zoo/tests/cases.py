"""Hand-chosen batches in plain numbers, the same as an objective sees them, and the hyper-parameters to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import notation
import pytest
import torch
from alignzoo_zoo import OBJECTIVES
from notation import Completion, Single

from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.cdpo import CDPO
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.testing import completions

BY_NAME: dict[str, type[Objective]] = {cls.name: cls for cls in [DPO, CDPO, IPO, SFT, *OBJECTIVES]}

Token = tuple[float, float]
ATTRIBUTES = BY_NAME["attribute_regression"].model_fields["attributes"].default


def completion(tokens: Sequence[Token], salt: int, score: float = 0.0, scalar: float | None = None) -> Completion:
    """From (log pi, log pi_ref) of each token. What else is known of a token is of no meaning, but all different."""
    ks = range(salt, salt + len(tokens))
    return Completion(
        tuple(own for own, _ in tokens),
        tuple(ref for _, ref in tokens),
        log_collision_prob=tuple(-0.4 - (7 * k % 11) / 5 for k in ks),
        forward_kl=tuple(0.05 + (5 * k % 7) / 10 for k in ks),
        ref_normalized_entropy=tuple((3 * k % 8 + 0.5) / 11 for k in ks),
        uniform=tuple(((13 * k + 5) % 17) / 17 for k in ks),
        score=score,
        other_score=(5 * salt % 9) / 3 - 1,
        win_rate=(3 * salt % 10 + 0.5) / 10,
        quantile=(7 * salt % 8 + 1) / 8,
        scalar=(5 * salt % 13) / 4 - 1.3 if scalar is None else scalar,
        outputs={name: 0.4 * k * (-1) ** salt + salt % 5 / 3 for k, name in enumerate(ATTRIBUTES)},
        columns={name: score + (salt * k % 3) / 2 for k, name in enumerate(ATTRIBUTES)},
        refs={
            name: tuple(ref + ((11 * k + shift) % 13 - 6) / 4 for k, (_, ref) in zip(ks, tokens, strict=True))
            for shift, name in enumerate(("guide", "positive", "negative"))
        },
    )


def pair(
    chosen: Sequence[Token], rejected: Sequence[Token], scores: Token = (2.0, 1.0), salt: int = 0
) -> notation.Pair:
    """The reward model's outputs and the row's margin come from the scores too. All four pairs of labels are there."""
    own, other = completion(chosen, salt, scores[0], 0.7 * scores[0] - 1.2), 0.3 - 0.9 * scores[1]
    margin = (scores[0] - scores[1]) / 3
    return notation.Pair(
        replace(own, margin=margin, safe=float(salt % 3 > 0)),
        replace(completion(rejected, salt + 6, scores[1], other), margin=margin, safe=float(salt % 2 == 0)),
        tied=salt % 2 == 1,
    )


PAIRS: dict[str, list[notation.Pair]] = {
    "ragged": [
        pair(
            [(-1.0, -1.5), (-0.2, -0.9), (-2.5, -2.0)],
            [(-0.7, -0.4), (-3.0, -1.0), (-1.1, -1.2), (-0.6, -0.9), (-2.0, -2.0)],
        ),
        pair([(-0.5, -0.6), (-1.8, -0.3), (-2.2, -1.7), (-0.9, -0.8)], [(-0.3, -2.1), (-1.4, -1.6)], (3.5, -1.0), 3),
        pair([(-4.0, -4.2), (-0.1, -0.2)], [(-2.0, -1.1), (-0.8, -0.5)], (0.5, 0.2), 5),
        pair(
            [(-0.6, -3.0), (-1.2, -0.7), (-0.4, -2.2), (-3.1, -3.3), (-0.2, -1.9)],
            [(-5.0, -1.0), (-4.0, -2.0), (-2.5, -0.5)], (4.0, 1.0), 8,
        ),
    ],
    "equal lengths": [
        pair([(-1.3, -0.2), (-2.7, -1.1), (-0.5, -0.4)], [(-0.8, -2.3), (-0.9, -1.4), (-1.6, -1.8)], (1.5, 0.5), 2),
        pair([(-0.3, -0.9), (-0.4, -0.7)], [(-2.1, -1.9), (-1.7, -1.8)], (9.0, 8.5), 9),
        pair(
            [(-1.1, -1.2), (-0.7, -0.5), (-2.9, -3.6), (-0.1, -0.3)],
            [(-1.0, -1.4), (-0.2, -0.6), (-3.0, -2.2), (-1.0, -2.0)], (0.0, -2.0), 4,
        ),
    ],
    "far": [
        pair([(-9.0, -2.5)], [(-0.5, -4.0), (-0.2, -3.5), (-0.4, -2.0)], (1.0, -1.0), 1),
        pair([(-0.3, -5.0), (-0.1, -4.5)], [(-7.0, -1.0)], (5.0, 2.0), 6),
        pair([(-0.2, -2.0), (-1.5, -1.7)], [(-3.0, -2.0), (-4.0, -1.5), (-1.2, -0.2)], (3.0, 0.0), 12),
    ],
    "near": [
        pair([(-1.01, -1.0), (-2.0, -1.99)], [(-0.49, -0.5), (-1.5, -1.51), (-0.3, -0.3)], (2.0, 1.9), 7),
        pair([(-0.8, -0.81), (-1.2, -1.21), (-2.3, -2.3)], [(-1.02, -1.0)], (1.0, 0.3), 10),
    ],
}  # fmt: skip


def unpaired(pairs: Sequence[notation.Pair]) -> list[Single]:
    """Chosen ones are desirable; the mismatched completion is the next pair's, of the same kind."""
    after = [*pairs[1:], pairs[0]]
    return [
        single
        for one, other in zip(pairs, after, strict=True)
        for single in (Single(one.chosen, True, other.chosen), Single(one.rejected, False, other.rejected))
    ]


UNPAIRED: dict[str, list[Single]] = {name: unpaired(pairs) for name, pairs in PAIRS.items()} | {
    "all desirable": [Single(one.chosen, True, one.rejected) for one in PAIRS["ragged"]],
}

RANKED: dict[str, list[notation.Ranked]] = {
    "two of two": [(one.chosen, one.rejected) for one in PAIRS["ragged"]],
    "three": [
        (
            completion([(-0.5, -1.5), (-0.2, -0.9)], 0, 3.0),
            completion([(-1.0, -0.4), (-2.0, -1.0), (-0.1, -1.2)], 3, 1.5),
            completion([(-0.3, -0.6)], 7, 1.0),
        ),
        (
            completion([(-2.5, -1.5), (-1.2, -0.9)], 1, 0.9),
            completion([(-0.6, -3.4)], 4, 0.5),
            completion([(-1.3, -0.6), (-0.7, -0.8), (-1.5, -1.1), (-0.2, -0.3)], 2, -0.5),
        ),
    ],
    "four": [
        (
            completion([(-3.0, -1.0), (-0.4, -0.9), (-0.6, -0.7)], 5, 2.0),
            completion([(-0.7, -0.8)], 6, 1.25),
            completion([(-0.2, -1.6), (-1.9, -2.0)], 8, 0.5),
            completion([(-1.0, -4.0), (-0.5, -0.6), (-2.2, -2.9), (-0.3, -0.2), (-1.1, -1.3)], 9, 0.0),
        ),
    ],
}

FIELDS: dict[str, list[dict[str, Any]]] = {
    "robust_dpo": [{"beta": 0.5, "label_smoothing": 0.4}, {"label_smoothing": 0.0}],
    "rso_hinge": [{"beta": 1.0}],
    "exo_pair": [{"beta": 0.5, "label_smoothing": 0.1}],
    "nca_pair": [{"beta": 0.5}],
    "bco_pair": [{"beta": 0.5}],
    "sppo_hard": [{"beta": 0.1}],
    "aot": [{"beta": 1.0}],
    "aot_unpaired": [{"beta": 1.0}],
    "apo_zero": [{"beta": 1.0}],
    "apo_down": [{"beta": 1.0}],
    "discopop": [{"beta": 0.1, "temperature": 0.5}],
    "dpop": [{"beta": 0.1, "penalty": 2.0}],
    "odpo": [{"beta": 0.5, "alpha": 0.3}],
    "r_dpo": [{"beta": 0.5, "alpha": 0.2}],
    "ld_dpo": [{"beta": 0.5, "alpha": 0.1}, {"alpha": 0.0}],
    "sampo": [{"beta": 0.5}],
    "wpo": [{"clamp": False}, {"beta": 0.1}],
    "rpo": [{"beta": 0.5, "alpha": 0.2}],
    "f_dpo": [
        {"divergence": "reverse_kl"}, {"divergence": "forward_kl"}, {"divergence": "alpha"},
        {"divergence": "alpha", "alpha": 0.2, "beta": 0.5}, {"divergence": "js", "beta": 1.0},
        {"divergence": "chi_squared", "beta": 0.5},
    ],
    "chi_po": [{"beta": 0.02, "clip": 10.0}],
    "beta_dpo": [{"beta": 0.5, "alpha": 2.0, "keep": 1.0}, {"keep": 1.0, "alpha": 0.0}, {"beta": 0.3, "keep": 1.0}],
    "dr_dpo": [{"beta": 0.5, "beta_prime": 0.2}],
    "cal_dpo": [{"beta": 0.1}],
    "dpo_shift": [{"beta": 0.5, "shift": 0.5}],
    "ln_dpo": [{"beta": 0.5}],
    "tdpo1": [{"beta": 0.5}],
    "tdpo2": [{"beta": 0.5, "alpha": 1.0}],
    "mallows_po": [{"beta": 0.5, "c": 0.7}, {"link": "square", "beta": 0.5}],
    "grm": [{"regularization": name, "lambda_": 0.3, "beta": 0.5} for name in ("nll", "sft", "dpo")],
    "tr_dpo": [{"beta": 0.5, "alpha": 1.0, "every": 64}],
    "alpha_dpo": [{"beta": 2.0, "gamma": 0.5, "alpha": 0.3}],
    "simpo": [{"beta": 10.0, "gamma": 3.0}],
    "alpha_po": [{"beta": 10.0, "gamma": 0.5, "alpha": -0.1}, {"alpha": 0.1}],
    "orpo": [{"lambda_": 0.5}],
    "cpo": [{"beta": 0.5, "alpha": 0.1}],
    "slic_hf": [{"delta": 3.0, "regularization": 0.5}],
    "rrhf": [{"alpha": 0.1}],
    "unlikelihood": [{"alpha": 1.0}],
    "kto": [{"beta": 0.5, "desirable_weight": 1.33, "undesirable_weight": 0.5}],
    "bco": [{"beta": 0.5}],
    "apo_zero_unpaired": [{"beta": 0.5}],
    "pl_dpo": [{"beta": 0.5}],
    "infonca": [{"beta": 0.5, "temperature": 0.3}],
    "nca": [{"beta": 0.5, "temperature": 0.3}],
    "lipo_lambda": [{"beta": 0.5}],
    "pro": [{"alpha": 0.5}],
    "dpo_rk": [{"beta": 0.5, "nu": 1.5}],
    "dpo_d": [{"beta": 0.5, "nu": 0.3}],
    "todo": [{"beta": 0.5, "alpha": 0.7}],
    "bradley_terry_ties": [{"model": "davidson", "p": 0.2, "centering": 0.0}],
    "tgdpo": [{"beta": 0.5, "alpha": 0.9}],
    "tis_dpo": [{"beta": 0.5, "limit": 0.6, "spread": 0.8}],
    "attribute_regression": [{"attributes": ["coherence", "verbosity"]}],
    "tpo": [{"beta": 0.5, "alpha": 0.3}],
    "tpo_l": [{"beta": 2.0, "gamma": 0.1, "alpha": 0.3}],
    "bradley_terry": [{"centering": 0.0}],
    "bradley_terry_margin": [{"centering": 0.0}],
    "bradley_terry_scaled": [{"centering": 0.0}],
    "focal_bradley_terry": [{"gamma": 1.5, "barrier": 0.2, "bound": 3.0}],
    "gpo": [
        {"link": name, "beta": 0.5}
        for name in ("logistic", "hinge", "square", "truncated_quadratic", "savage", "cauchy", "exponential")
    ],
    "focal_po": [{"beta": 0.5, "gamma": 1.0}],
    "bpo": [{"link": name, "beta": 0.5, "alpha": 1.0} for name in ("logistic", "exponential", "savage", "square")],
    "minor_dpo": [{"beta": 0.5}],
    "dil": [{"estimator": "ukl"}],
    "repo": [{"gamma": 1.0}],
    "confpo": [{"beta": 10.0, "gamma": 3.0}],
    "d2po": [{"beta": 0.5, "gamma": 0.5}],
    "rainbow_po": [{"beta": 2.0, "alpha": 0.7, "gamma": 0.5}],
    "bema_dpo": [{"beta": 0.5}],
    "reward_rpo": [{"variant": name, "beta": 0.5, "eta": 0.3} for name in ("fwd_kl", "sq", "bwd_kl")],
    "rebel": [{"eta": 0.5}],
    "sppo": [{"beta": 0.1}],
    "mappo": [{"beta": 0.5}],
    "modpo": [{"beta": 0.5, "w": 0.2}],
    "qrpo": [{"transform": "log", "beta": 0.5}, {"beta": 0.5}],
    "safe_dpo": [{"beta": 0.5, "delta": 1.0}],
    "bfpo": [{"beta": 0.5, "b1": 2.0, "alpha": 0.2}],
}  # fmt: skip
"""Beside the defaults, which every objective is tried with where `NO_DEFAULTS` does not say otherwise."""

NO_DEFAULTS = {"beta_dpo": "its default drops a share of the batch at random"}

BY_RANK = {"aot", "aot_unpaired"}
"""Their losses belong to ranks, and which row has which is the objective's choice: the batch's sum is compared."""

STATE: dict[str, dict[str, float]] = {
    "beta_dpo": {"mean": 0.05, "deviation": 0.5},
    "bco": {"desirable": 0.5, "undesirable": 0.1},
}
"""What the batches before have left behind."""

DISAGREE = {
    "beta_dpo": "M is beta h in the paper (the discrepancy of implicit rewards), h alone in the authors' code",
    "bco": "delta is the middle of both kinds' running mean rewards in the paper; TRL had one mean over both, weighing "
    "kinds by count",
    "bco_pair": "the paper's bound has no shift; what it trains with has one, as `bco`. TRL's bco_pair has none",
    "rrhf": "the authors' code divides the SFT term by the length, and takes a pair where the data's rewards differ",
    "wpo": "the paper has no cap; the authors' code has",
    "alpha_dpo": "the authors' code takes running averages of mean and deviation, and scales alpha by beta",
    "lipo_lambda": "the paper's scores are in [0, 1], where gains differ less than those of a reward model's",
    "d2po": "the authors' code starts the exponent at 1, which is another beta",
    "confpo": "the authors' code gives up on a completion whose tokens are all as likely; here they all count",
    "qrpo": "the authors' code has Z = beta e^(1 / beta), which is the paper's for a small beta",
    "unlikelihood": "Welleck et al. have -log(1 - p) of each token; the DPO paper's baseline has +alpha log p",
}
"""Where sources differ from each other or from a common reading. The formulas follow the paper, except for the cap of
`wpo`, which is the authors' code's, and for `bco_pair`, which is what others call so."""


def batches(cls: type[Objective]) -> dict[str, Sequence[Any]]:
    """Of an objective's kind of data."""
    found: Mapping[str, Sequence[Any]] = {"unpaired": UNPAIRED, "ranked": RANKED}.get(cls.data, PAIRS)
    short = cls.min_completions if cls.data == "ranked" else 0
    return {name: rows for name, rows in found.items() if not short or len(rows[0]) >= short}


def cases(cls: type[Objective]) -> list[dict[str, Any]]:
    """Hyper-parameters to try."""
    return ([] if cls.name in NO_DEFAULTS else [{}]) + FIELDS.get(cls.name, [])


def build(cls: type[Objective] | Objective, rows: Sequence[Any], state: Mapping[str, float] | None = None) -> Any:
    """A batch as the objective declares it: what is not declared is not there."""
    about = {
        "_state": STATE.get(cls.name, {}) if state is None else state,
        "_uniform": torch.linspace(0.05, 0.95, len(rows), dtype=torch.float64) if cls.needs_uniform else None,
    }
    if cls.data == "ranked":
        flat = [one for row in rows for one in row]
        return Ranked(_scored(cls, flat, (len(rows), len(rows[0]))), **about)
    if cls.data == "unpaired":
        return Unpaired(
            _scored(cls, [row.completion for row in rows]),
            torch.tensor([row.desirable for row in rows]),
            _scored(cls, [row.mismatched for row in rows]) if cls.mismatched else None,
            **about,
        )
    chosen = _scored(cls, [row.chosen for row in rows])
    if cls.data == "chosen":
        return chosen
    tied = torch.tensor([row.tied for row in rows]) if cls.ties else None
    return Pair(chosen, _scored(cls, [row.rejected for row in rows]), tied, **about)


def _scored(
    cls: type[Objective] | Objective, those: Sequence[Completion], shape: tuple[int, ...] | None = None
) -> Scored:
    one = cls if isinstance(cls, Objective) else cls()
    columns, outputs = one.columns, one.outputs
    scored = completions(
        [one.tokens for one in those],
        None if cls.reference == "none" else [one.ref_tokens for one in those],
        statistics={name: [getattr(one, name) for one in those] for name in cls.statistics},
        uniform=[one.uniform for one in those] if cls.needs_uniform else None,
        columns={name: [one.columns.get(name, getattr(one, name, 0.0)) for one in those] for name in columns},
        outputs={name: [one.outputs[name] for one in those] for name in outputs},
        scalar=[one.scalar for one in those] if cls.head == "scalar" else None,
        refs={name: [one.refs[name] for one in those] for name in cls.references},
        shape=shape,
    )
    if cls.head == "scalar":
        return replace(scored, _log_prob=scored._log_prob if cls.language_head else None, _tokens=None)
    if not cls.tokens:
        return replace(scored, _tokens=None)
    if cls.reference == "sequence":
        return replace(scored, _tokens=replace(scored.tokens, _ref_log_prob=None))
    return scored


def losses(name: str, rows: Sequence[Any], state: Mapping[str, float] | None = None, **fields: Any) -> list[float]:
    """Of an objective by its name, with these fields."""
    objective = BY_NAME[name](**fields)
    return objective.loss(build(objective, rows, state)).tolist()


def exactly(values: Any) -> Any:
    """Up to the last bits of a double."""
    return pytest.approx(values, rel=1e-12, abs=1e-14)
