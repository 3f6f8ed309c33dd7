"""The shape of an objective: its loss and its gradients as functions of the margin.

The curves come from the objective's own `loss`. The policy starts at the reference. Then the chosen log-prob rises by h
/ 2 and the rejected one falls by h / 2. Gradients with respect to these two log-probs come from autograd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.errors import first_line
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import OWN
from alignzoo.objectives.synthetic import TOKENS, SyntheticInputs

POINTS = 201
REACH = 6.0
"""Margin of the objective's own reward (beta h) at both ends of the axis."""
OTHERS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Reward margins of the other examples, for an objective whose loss depends on the whole batch."""
Curves = dict[str, Tensor]
Curve = NDArray[np.float64]


@dataclass
class Shape:
    """The curves of one objective, or the `problem` that keeps them from being drawn."""

    name: str
    cls: type[Objective]
    axis: str = ""
    """Label of h, which is in nats except for scores."""
    h: Curve = field(default_factory=lambda: np.zeros(0))
    losses: dict[str, Curve] = field(default_factory=dict)
    """Loss at each h: `loss`, or `chosen` and `rejected` for the two kinds of unpaired completions."""
    pulls: dict[str, Curve] = field(default_factory=dict)
    """`chosen`: -d loss / d log pi(y_w), the upward gradient. `rejected`: d loss / d log pi(y_l), downward."""
    notes: list[str] = field(default_factory=list)
    """Assumptions."""
    problem: str = ""


def shape_of(name: str, cls: type[Objective]) -> Shape:
    """Return the curves with default hyper-parameters; an error of a plugin becomes `problem`."""
    required = [key for key, info in cls.model_fields.items() if info.is_required()]
    if required:
        return Shape(name, cls, problem=f"{', '.join(required)} has no default")
    try:
        return _draw(name, cls)
    except Exception as error:
        reason = first_line(error)
        return Shape(name, cls, problem=f"{type(error).__name__}: {reason}".removesuffix(": "))


def _draw(name: str, cls: type[Objective]) -> Shape:
    made = SyntheticInputs(cls())
    one = torch.ones(1, dtype=torch.float64)
    if cls.flags and not any(weight.any() for weight in _measure(made, one, weights=True)[0].values()):
        made = replace(made, flag=0.0)  # the objective is for rows without the flag
    per_token = _per_token(made)
    reach, unit = _reach(made, per_token), TOKENS if per_token else 1
    if cls.reference != "none":  # where the policy starts is free; keep every log-prob below zero
        made = replace(made, start=min(made.start, -reach / 2 - TOKENS / 5))
    h = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    losses, pulls = _curves(made, h, reach)
    if not all(bool(curve.isfinite().any()) for curve in losses.values()):
        raise ValueError("its loss is not finite")
    return Shape(
        name, cls, _axis(cls, per_token), (h / unit).numpy(),
        {key: loss.numpy() for key, loss in losses.items()},
        {key: (unit * pull).numpy() for key, pull in pulls.items()},
        _notes(made),
    )  # fmt: skip


def _curves(made: SyntheticInputs, h: Tensor, reach: float) -> tuple[Curves, Curves]:
    """Return losses and pulls at each h, shape (P,), all at once or each among other examples."""
    if made.objective.scope == "example":
        return _measure(made, h)
    others = torch.tensor(OTHERS, dtype=h.dtype) * reach / REACH
    each = [_measure(made, torch.cat([one[None], others])) for one in h]
    losses = {key: torch.stack([found[key][0] for found, _ in each]) for key in each[0][0]}
    pulls = {key: torch.stack([found[key][0] for _, found in each]) for key in each[0][1]}
    return losses, pulls


def _measure(made: SyntheticInputs, h: Tensor, weights: bool = False) -> tuple[Curves, Curves]:
    """Return losses and pulls of a batch of examples with these margins, shape (B,).

    With `weights` the objective's weights take the place of its losses.
    """
    losses: Curves = {}
    pulls: Curves = {}
    for moves in _moves(made.objective.data, h):
        leaves = {side: move.clone().requires_grad_() for side, move in moves.items()}
        measured = made.objective.weight if weights else made.objective.loss
        loss = measured(made.example(leaves))
        if loss.shape != h.shape:
            raise ValueError(f"loss returned shape {tuple(loss.shape)} for {len(h)} examples")
        total = loss.sum() + sum(0 * leaf.sum() for leaf in leaves.values())  # also of what is no leaf's function
        slopes = torch.autograd.grad(total, list(leaves.values()))
        losses["loss" if made.objective.data != "unpaired" else next(iter(leaves))] = loss.detach()
        pulls |= {side: -slope if side == "chosen" else slope for side, slope in zip(leaves, slopes, strict=True)}
    return losses, pulls


def _moves(data: str, h: Tensor) -> Iterator[Curves]:
    """Yield the change of each side's log-prob; one without a counterpart changes by h."""
    if data in ("pair", "ranked", "group"):
        yield {"chosen": h / 2, "rejected": -h / 2}
    else:
        yield {"chosen": h}
    if data == "unpaired":
        yield {"rejected": h}


def _per_token(made: SyntheticInputs) -> bool:
    """Return True if doubling log-probs and lengths leaves the loss as it is."""
    if made.objective.head == "scalar":
        return False
    h = torch.tensor([-7.0, 0.0, 5.0], dtype=torch.float64)
    short, long = _measure(made, h)[0], _measure(made.doubled(), 2 * h)[0]
    return all(torch.allclose(short[key], long[key], rtol=1e-9) for key in short)


def _reach(made: SyntheticInputs, per_token: bool) -> float:
    """Return the h in nats where the reward margin is 6, less if a log-prob would exceed zero."""
    one, unit = made.objective, TOKENS if per_token else 1
    # With a reward of sums and a loss of means, the axis would end at 1 / TOKENS of the loss's range.
    scale = TOKENS if per_token and not math.isclose(_margin(made, 1), _margin(made.doubled(), 2)) else 1

    def inside(h: float) -> bool:
        return max(abs(_margin(made, h)), abs(_margin(made, -h))) <= REACH * scale

    low, high = 1e-2, 1e-2
    while high < 1e5 and inside(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    if one.reference == "none" and one.head != "scalar":
        low = min(low, -made.start * (0.99 if one.data in ("chosen", "unpaired") else 1.98))
    digit = 10.0 ** (math.floor(math.log10(low / unit)) - 1)
    return float(f"{round(low / unit / digit - 0.4999) * digit:.2g}") * unit  # down to two digits, but 5.9999999 is 6


def _margin(made: SyntheticInputs, h: float) -> float:
    """Return the objective's own reward of chosen minus rejected.

    For a single completion it is the change since the start.
    """
    ends = (h / 2, -h / 2) if made.objective.data in ("pair", "ranked", "group") else (h, 0.0)
    up, down = (made.reward(torch.tensor([end], dtype=torch.float64), n == 0) for n, end in enumerate(ends))
    return float(up - down)


def _axis(cls: type[Objective], per_token: bool) -> str:
    if cls.head == "scalar":
        return "difference of scores"
    quantity = "log-prob" if cls.reference == "none" else "log-ratio"
    if cls.data == "chosen":
        return f"change of {quantity}"
    if cls.data == "unpaired":
        return quantity
    return f"difference of {quantity}s{' per token' if per_token else ''}"


def _notes(made: SyntheticInputs) -> list[str]:
    objective = made.objective
    applies: dict[str, Any] = {
        "K = 2": objective.data == "ranked",
        "rewards 1 and 0": objective.data == "group",
        f"among {len(OTHERS)} others": objective.scope == "batch",
        "first step": objective.initial_state(),
        "mismatched at 0": objective.mismatched,
        **{
            f"{name} {made.flag:.0f}" if objective.data == "chosen" else f"{name} 1 and 0": True
            for name in objective.columns
        },
        **{f"equal {name.partition(OWN)[0]}": True for name in objective.statistics},
        "equal lengths": objective.tokens and not objective.statistics,
    }
    return [note for note, holds in applies.items() if holds]
