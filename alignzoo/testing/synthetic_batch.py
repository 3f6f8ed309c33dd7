"""Seeded batches for any objective, made by the same builder as in a run.

An objective gets the same fields in the kit as in training: those that it declares and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.objective import Objective
from alignzoo.scoring.batches import BatchBuilder, LossInput, ScoredBatch

SEED = 20231
ROWS = 6
BRANCHES = {"pair": 2, "chosen": 1, "unpaired": 2, "ranked": 4}
DECLARATIONS = ("data", "reference", "tokens", "statistics", "columns", "mismatched", "needs_uniform", "head")
"""Attributes that `BatchBuilder` reads of an objective."""
BOUNDS = {
    "log_prob": (-math.inf, 0.0), "log_collision_prob": (-math.inf, 0.0), "entropy": (0.0, math.inf),
    "kl": (0.0, math.inf), "scalar": (-math.inf, math.inf),
}  # fmt: skip
"""Ranges of a policy's values."""


@dataclass
class Batch:
    """Rows and their scores. `leaves` are the values that depend on the policy's weights."""

    objective: Objective
    trees: Trees
    leaves: dict[str, Tensor]
    """name -> (N,) of each token, or (S,) of each sequence for `scalar`; they require a gradient."""
    ref_log_prob: Tensor
    """(N,)."""

    def flat(self, leaves: Mapping[str, Tensor] | None = None, rows: Sequence[int] | None = None) -> ScoredBatch:
        """Return all rows as a ScoredBatch, or some in the given order, optionally with other leaves."""
        flat = self._builder.empty(range(len(self.trees)))
        flat.values = {**(self.leaves if leaves is None else leaves), "ref_log_prob": self.ref_log_prob}
        return flat if rows is None else flat.in_order(rows)

    def given(
        self, flat: ScoredBatch | None = None, declared: Any = None, state: Mapping[str, float] | None = None
    ) -> LossInput:
        """Return the input of `loss`. `declared` replaces the objective's declarations (see `less`)."""
        state = self.state if state is None else state
        term = self.objective if declared is None else declared
        return next(iter(self._builder.examples(self.flat() if flat is None else flat, term, dict(state))))

    @property
    def example(self) -> Any:
        """The example of all rows."""
        return self.given().example

    @cached_property
    def state(self) -> dict[str, float]:
        """The objective's state after these rows, as `loss` has it in the first step of a run."""
        before = self.objective.initial_state()
        with torch.no_grad():
            return self.objective.next_state(self.given(state=before).example) if before else {}

    def zeros(self) -> Any:
        """Return the example with scores of zero, as `weight` has it before any forward."""
        zeros = self._builder.zeros(range(len(self.trees)))
        return next(iter(self._builder.examples(zeros, self.objective, self.state))).example

    @cached_property
    def _builder(self) -> BatchBuilder:
        return BatchBuilder(self.objective, self.trees, seed=SEED)


def less(objective: Objective, **changes: Any) -> Any:
    """Return the objective's declarations with some replaced."""
    return SimpleNamespace(**{key: getattr(objective, key) for key in DECLARATIONS} | changes)


def batch_for(objective: Objective, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> Batch:
    """Make rows of 1 to 4 completions with 3 to 12 tokens each and log-ratios of up to +-3 nats."""
    dice = np.random.default_rng(SEED)
    trees = _trees(objective, rows, dice)
    lengths = _lengths(trees)
    ref = dice.uniform(-4.0, -0.5, lengths.sum())
    own = ref + np.repeat(dice.uniform(-3, 3, len(lengths)) / lengths, lengths) + dice.uniform(-0.2, 0.2, len(ref))
    entropy = dice.uniform(0.5, 3.0, len(ref))
    values = {
        "log_prob": own.clip(max=-0.05),
        "entropy": entropy,
        "log_collision_prob": -entropy
        * dice.uniform(0.5, 0.95, len(ref)),  # Renyi's entropy of order 2 is below Shannon's
        "kl": dice.uniform(0.01, 0.5, len(ref)),
        "scalar": dice.uniform(-3, 3, len(lengths)),
    }
    return _batch(objective, trees, values, ref, dtype)


def batch_at_start(objective: Objective) -> Batch:
    """Make the rows of `batch_for` with a policy equal to its reference, as at the start of a run."""
    batch = batch_for(objective)
    if objective.reference != "none":
        batch.leaves["log_prob"] = batch.ref_log_prob.clone().requires_grad_()
    return batch


def batch_apart(objective: Objective, margin: float, dtype: torch.dtype = torch.float32) -> Batch:
    """Make six rows in which policy and reference differ by `margin` nats on best or worst completions."""
    dice = np.random.default_rng(SEED)
    trees = _trees(objective, ROWS, dice)
    lengths = _lengths(trees)
    per_row = len(lengths) // ROWS
    own, ref = np.zeros((ROWS, per_row)), np.zeros((ROWS, per_row))
    own[0, 0] = own[1, -1] = own[4, :] = ref[2, 0] = ref[3, -1] = -margin  # all is alike in the last row
    each, ref_each = (np.repeat(shift.reshape(-1) / lengths, lengths) for shift in (own, ref))
    entropy = dice.uniform(0.5, 3.0, lengths.sum())
    values = {
        "log_prob": each - 2.5,
        "entropy": entropy,
        "log_collision_prob": -0.8 * entropy,
        "kl": 0.1 + (each - ref_each).clip(min=0),
        "scalar": (own - ref).reshape(-1),
    }
    return _batch(objective, trees, values, ref_each - 2.5, dtype)


def _batch(
    objective: Objective, trees: Trees, values: Mapping[str, NDArray[Any]], ref: NDArray[Any], dtype: torch.dtype
) -> Batch:
    names = ("scalar",) if objective.head == "scalar" else ("log_prob", *objective.statistics)
    leaves = {name: torch.tensor(values[name], dtype=dtype, requires_grad=True) for name in names}
    return Batch(objective, trees, leaves, torch.tensor(ref, dtype=dtype))


def _trees(objective: Objective, rows: int, dice: np.random.Generator) -> Trees:
    """Make trees with ragged branches; mismatched ones are those of the next row."""
    count = BRANCHES[objective.data]
    own = [[_branch(dice) for _ in range(count)] for _ in range(rows)]
    others = [own[(row + 1) % rows] if objective.mismatched else [] for row in range(rows)]
    items = [
        Tree(f"row {row}", dice.integers(1, 99, 4).astype(np.int32), (*own[row], *others[row])) for row in range(rows)
    ]
    columns = {name: _column(name, rows, count, dice) for name in (*objective.columns, "desirable")}
    if objective.mismatched:
        columns = {name: np.concatenate([values, values[[*range(1, rows), 0]]], 1) for name, values in columns.items()}
    flat = {name: values.reshape(-1).astype(np.float32) for name, values in columns.items()}
    return Trees.build(items, flat, objective.mismatched)


def _branch(dice: np.random.Generator) -> Branch:
    return Branch(dice.integers(1, 99, dice.integers(3, 13)).astype(np.int32))


def _column(name: str, rows: int, count: int, dice: np.random.Generator) -> NDArray[Any]:
    """Return (rows, count), best first. A margin is one a row, any other number one a completion, positive."""
    if name == "desirable":
        return np.repeat([[1.0] + [0.0] * (count - 1)], rows, 0)
    if name == "margin":
        return np.repeat(dice.uniform(0.2, 2.0, (rows, 1)), count, 1)
    return -np.sort(-dice.uniform(0.2, 4.0, (rows, count)), 1)


def _lengths(trees: Trees) -> NDArray[np.int64]:
    return np.array([branch.scored for tree in trees for branch in tree.branches])
