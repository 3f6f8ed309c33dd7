"""The same losses and gradients as the authors' own code and other trainers', recorded on hand-chosen pairs and lists.

The record names repositories, commits, files and functions. Each was called alone, in float64 where its code allows,
with the settings in a plain object in the place of its trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from alignzoo_zoo import MODIFIERS
from cases import BY_NAME, build
from notation import Completion, Pair
from peers import Case, Record, relative

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.composition import Modified

RECORD = Record("peer_authors.json")
pytestmark = pytest.mark.skipif(not RECORD.path.is_file(), reason=f"no {RECORD.path}")

DIFFERS = {
    "oxRL focalpo": "the second implementation holds the factor constant; the values are the same",
    "D2PO": "the authors' exponent begins at 1, so that beta is divided by gamma",
    "ConfPO": "the authors give up on a completion whose tokens are all as likely; those pairs are left out",
}
CONSTANT = {"oxRL focalpo"}
"""Compared by value alone."""
FLOAT32 = {"D2PO": 1e-6, "QRPO identity": 1e-6, "QRPO log": 1e-6, "xtuner focal + log_barrier": 1e-4}
"""The peer casts a part of its loss to float32: weights, a partition function, a barrier near its bounds."""


def left_out(name: str, row: Pair) -> bool:
    """True for a pair on which the peer's loss is another, or where rounding decides which side has its gradient."""
    if name == "ConfPO":
        return any(len(set(y.tokens)) == 1 for y in (row.chosen, row.rejected))
    return name.startswith("BPO") and abs(row.chosen.r + row.rejected.r) < 1e-9


def completions(rows: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[Completion, ...]]:
    return [
        tuple(Completion(**{key: tuple(one) if isinstance(one, list) else one for key, one in y.items()}) for y in row)
        for row in rows
    ]


def leaf(side: Scored, kind: str) -> torch.Tensor:
    """What the peer's gradient is by: scores, tokens or sums."""
    return {"scalar": side._scalar, "tokens": side._tokens and side._tokens.log_prob}.get(kind, side._log_prob)


def differences(name: str) -> Iterator[float]:
    """Relative ones, of the loss of each example and of the gradient by each input."""
    theirs = RECORD.losses[name]
    cls, fields = BY_NAME[theirs["objective"]], dict(theirs["fields"])
    names = fields.pop("modifiers", ())
    around = [one for one in MODIFIERS if one.name in names]
    objective = Modified(inner=DPO(**fields), modifiers=tuple(one() for one in around)) if around else cls(**fields)
    seen = BY_NAME["d2po"] if around else cls  # which reads tokens of policy and reference, as the modifier does
    kind = "scalar" if cls.head == "scalar" else "tokens" if seen.tokens else "sums"
    rows = completions(RECORD.data["lists" if cls.data == "ranked" else "pairs"])
    for k, row in enumerate(rows):
        if cls.data == "pair" and left_out(name, Pair(*row)):
            continue
        example = build(seen, [row if cls.data == "ranked" else Pair(*row)])
        loss = objective.loss(example)
        yield relative([(loss.item(), theirs["per_example"][k])])
        if name not in CONSTANT:
            sides = list(example.sides().values())
            own = torch.autograd.grad(
                loss, [leaf(one, kind) for one in sides], allow_unused=True, materialize_grads=True
            )
            flat = [slope for side in own for slope in side.flatten().tolist()]
            yield max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(flat, theirs["gradients"][k], strict=True))


@pytest.mark.parametrize("name", RECORD.losses if RECORD.path.is_file() else ())
def test_it_is_the_authors(name):
    assert max(differences(name)) < FLOAT32.get(name, 1e-9)


def all_differences() -> list[tuple[Case, float]]:
    """Of every recorded loss, for the table of all objectives."""
    return [
        (Case(theirs["objective"], name, theirs["fields"], DIFFERS.get(name, "")), max(differences(name)))
        for name, theirs in RECORD.losses.items()
    ]
