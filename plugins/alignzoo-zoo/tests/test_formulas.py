"""Every objective of the catalogue against its paper's formula, written out again in `formulas`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from alignzoo_zoo import OBJECTIVES
from cases import BY_RANK, DISAGREE, FIELDS, NO_DEFAULTS, PAIRS, STATE, UNPAIRED, batches, build, cases
from formulas import FORMULAS
from notation import Completion, Pair, Single

BY_NAME = {cls.name: cls for cls in OBJECTIVES}

TRIED = [
    pytest.param(cls, fields, rows, id=f"{cls.name}({', '.join(f'{k}={v}' for k, v in fields.items())}) {batch}")
    for cls in OBJECTIVES
    if cls.name in FORMULAS
    for fields in cases(cls)
    for batch, rows in batches(cls).items()
]


@pytest.mark.parametrize("name", BY_NAME)
def test_every_objective_has_a_formula(name):
    assert name in FORMULAS


def test_the_tables_name_objectives():
    """A formula of nothing, or a case of nothing, is a misspelled name."""
    assert set(FORMULAS) | set(FIELDS) | set(NO_DEFAULTS) | BY_RANK | set(STATE) | set(DISAGREE) <= set(BY_NAME)


@pytest.mark.parametrize(("cls", "fields", "rows"), TRIED)
def test_it_is_the_papers_formula(cls, fields, rows):
    loss = cls(**fields).loss(build(cls, rows))
    expected = FORMULAS[cls.name](rows, STATE.get(cls.name, {}), **fields)
    assert loss.shape == (len(rows),)
    if cls.name in BY_RANK:
        assert loss.sum().item() == pytest.approx(math.fsum(expected), rel=1e-10)
        return
    rel = 1e-6 if cls.name == "alpha_dpo" else 1e-10  # a small number added to the deviation, against 0 / 0
    assert loss.tolist() == pytest.approx(expected, rel=rel, abs=1e-12)


def formula_difference(cls) -> float:
    """The largest relative difference of a loss from its paper's formula, over all batches and hyper-parameters."""
    far = 0.0
    for fields in cases(cls):
        for rows in batches(cls).values():
            ours = cls(**fields).loss(build(cls, rows)).tolist()
            papers = FORMULAS[cls.name](rows, STATE.get(cls.name, {}), **fields)
            if cls.name in BY_RANK:
                ours, papers = [math.fsum(ours)], [math.fsum(papers)]
            far = max(far, *(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(ours, papers, strict=True)))
    return far


WEIGHTED = {"wpo", "alpha_dpo", "beta_dpo"}
"""What these hold constant depends on the same log-probs; `test_held_constant` has their gradients."""


def direction(y: Completion) -> list[float]:
    return [math.sin(40 * own + i) for i, own in enumerate(y.tokens)]


def moved(row, by: float):
    """A row with every log-prob (and scalar) a little elsewhere; the mismatched ones, held constant, are not moved."""
    if isinstance(row, Pair):
        return replace(row, chosen=moved(row.chosen, by), rejected=moved(row.rejected, by))
    if isinstance(row, Single):
        return replace(row, completion=moved(row.completion, by))
    if isinstance(row, tuple):
        return tuple(moved(y, by) for y in row)
    tokens = tuple(own + by * step for own, step in zip(row.tokens, direction(row), strict=True))
    outputs = {name: value + by * direction(row)[0] for name, value in row.outputs.items()}
    return replace(row, tokens=tokens, scalar=row.scalar + by * direction(row)[0], outputs=outputs)


def completions_of(side: str, rows) -> list[Completion]:
    return [y for row in rows for y in (row if side == "completions" else [getattr(row, side)])]


@pytest.mark.parametrize("cls", [cls for cls in OBJECTIVES if cls.name not in WEIGHTED], ids=lambda cls: cls.name)
def test_its_gradient_is_the_formulas_slope(cls):
    """Along one direction of all token log-probs, by a central difference of the formula."""
    rows, fields, step = next(iter(batches(cls).values())), cases(cls)[-1], 1e-5

    def formula(by: float) -> float:
        return math.fsum(FORMULAS[cls.name]([moved(row, by) for row in rows], STATE.get(cls.name, {}), **fields))

    example = build(cls, rows)
    sides = {"chosen": example} if cls.data == "chosen" else example.sides()
    inputs, directions = [], []
    for name in sides.keys() - {"_mismatched"}:
        steps = [direction(y) for y in completions_of(name, rows)]
        if cls.head == "scalar":
            values = list(sides[name]._outputs.values()) or [sides[name].scalar]
            inputs += values
            directions += [[one[0] for one in steps]] * len(values)
            if cls.language_head:
                inputs.append(sides[name].log_prob)
                directions.append([math.fsum(one) for one in steps])
        elif cls.tokens:
            inputs.append(sides[name].tokens.log_prob)
            directions.append([move for one in steps for move in one])
        else:
            inputs.append(sides[name].log_prob)
            directions.append([math.fsum(one) for one in steps])
    slopes = torch.autograd.grad(cls(**fields).loss(example).sum(), inputs, allow_unused=True)
    slope = math.fsum(
        math.fsum(a * b for a, b in zip(gradient.flatten().tolist(), moves, strict=True))
        for gradient, moves in zip(slopes, directions, strict=True)
        if gradient is not None
    )
    assert slope == pytest.approx((formula(step) - formula(-step)) / (2 * step), rel=1e-5, abs=1e-7)
    assert slope != 0


def test_the_batches_reach_both_sides_of_every_bend():
    """Batches on one side of a maximum, a cap or a clip alone would not tell a formula from one without it."""
    pairs = [row for rows in PAIRS.values() for row in rows]
    ratios = [(row.chosen.r, row.rejected.r) for row in pairs]

    def both(values: list[float]) -> bool:
        return min(values) < 0 < max(values)

    assert both([w - x for w, x in ratios])  # the margin
    assert both([w for w, _ in ratios])  # dpop
    assert both([1 - (w - x) for w, x in ratios])  # rso_hinge
    assert both([math.exp(w) + w - math.exp(x) - x - 20 for w, x in ratios])  # chi_po's clip
    assert both([row.chosen.n - row.rejected.n for row in pairs])  # ld_dpo, sampo
    assert both([1 - row.chosen.logp + row.rejected.logp for row in pairs])  # slic_hf
    assert both([row.rejected.mean - row.chosen.mean for row in pairs])  # rrhf
    assert both([w + 0.3 * x for w, x in ratios])  # bpo
    assert both([x for _, x in ratios])  # minor_dpo
    assert both([0.6 - row.chosen.mean + row.rejected.mean for row in pairs])  # repo
    assert both([1 - row.chosen.score + row.rejected.score for row in pairs])  # mappo
    assert len({(row.chosen.safe, row.rejected.safe) for row in pairs}) == 4  # safe_dpo, bfpo
    assert both([row.chosen.scalar - row.rejected.scalar for row in pairs])  # focal_bradley_terry, and its bounds
    assert both([abs(y.scalar) - 5 for row in pairs for y in (row.chosen, row.rejected)])
    weights = [FORMULAS["wpo"]([row], {}, clamp=False)[0] / FORMULAS["wpo"]([row], {})[0] for row in pairs]
    assert min(weights) == 1 < max(weights)
    assert both([math.fsum(row.mismatched.r for row in rows) for rows in UNPAIRED.values()])  # kto
