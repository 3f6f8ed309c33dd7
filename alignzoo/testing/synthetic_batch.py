"""A seeded synthetic batch for any objective: token trees and their scores.

The scores are in the engine's own `BatchBuilder`. Objectives see in the conformance kit what they see in training: the
fields that they declare and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.group import Group
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import CONSTANT, Requirements
from alignzoo.interfaces.rows import TIE
from alignzoo.scoring.advantages import advantage_input, advantages, returns
from alignzoo.scoring.batches import BatchBuilder, LossInput
from alignzoo.scoring.scored_batch import NAMED, OLD_VALUE, RETURNS, ScoredBatch
from alignzoo.scoring.scorer import HIDDEN_SUM, VALUE

SEED = 20231
ROWS = 6
BRANCHES = {"pair": 2, "chosen": 1, "unpaired": 2, "ranked": 4, "group": 4}
MAX_NEW_TOKENS = 12
FLAGS = ((1, 1), (1, 0), (1, 1), (0, 1), (1, 1), (0, 0))
"""A flag of the best completion and of the others, by row: every case, and more rows that it does not change."""
BOUNDS = {
    "log_prob": (-math.inf, 0.0), "log_collision_prob": (-math.inf, 0.0), "entropy": (0.0, math.inf),
    "forward_kl": (0.0, math.inf), "reverse_kl": (0.0, math.inf),
}  # fmt: skip
"""Bounds of each value that a policy computes; an objective's own statistics and scalars have none."""
UNBOUNDED = (-math.inf, math.inf)


@dataclass
class Batch:
    """Rows with the values of their scored tokens.

    `leaves` are the values that depend on the policy's weights.
    """

    objective: Objective
    trees: Trees
    leaves: dict[str, Tensor]
    """name -> (N,) for tokens, or (S,) sequences for `scalar` ((S, K) for K outputs); they require a gradient."""
    ref_log_prob: Tensor
    """(N,) log-probs under the reference, in nats."""
    old_log_prob: Tensor
    """(N,) log-probs at the time of drawing, for groups."""
    named: Mapping[str, Tensor]
    """name -> (N,) log-probs under each named reference, in nats."""
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    """name -> (N,) statistics of the reference alone, and a critic's values at the time of drawing."""

    def scored_batch(
        self, leaves: Mapping[str, Tensor] | None = None, rows: Sequence[int] | None = None
    ) -> ScoredBatch:
        """Return the scores as the engine holds them.

        Args:
            leaves: values to use instead of the batch's own.
            rows: the rows to keep, in this order; all rows by default.
        """
        named = {NAMED.format(name): values for name, values in self.named.items()}
        values = {**(self.leaves if leaves is None else leaves), "ref_log_prob": self.ref_log_prob, **named}
        values |= self.constants
        batch = replace(self._empty, values=values)
        if HIDDEN_SUM in self._builder.asked:
            rng = np.random.default_rng(SEED)
            batch.values[HIDDEN_SUM] = torch.tensor(rng.normal(size=(len(batch.lengths), 3))).to(self.ref_log_prob)
        if self.objective.data == "group":
            batch.values["old_log_prob"] = self.old_log_prob
            if self.advantage.dim() == 1:
                batch.values["token_advantage"] = self.advantage
            if self.objective.head == VALUE:
                batch.values[RETURNS] = self.returns
        return batch if rows is None else batch.in_order(rows)

    def group(self, requirements: Requirements | None = None) -> Group:
        """Return all draws as `advantage` sees them, with the state before the step."""
        values = {"old_log_prob": self.old_log_prob, "ref_log_prob": self.ref_log_prob, **self.constants}
        batch = replace(self._empty, values=values)
        return advantage_input(self._builder, batch, self.objective, self.objective.initial_state(), requirements)

    @property
    def kept_tokens(self) -> Tensor:
        """(N,) True for tokens of draws that are kept."""
        return torch.from_numpy(np.repeat(self.trees.columns["kept"] > 0.5, _lengths(self.trees)))

    @cached_property
    def advantage(self) -> Tensor:
        """The advantages of all draws.

        If there is one for each completion, they are also a column of the trees.
        """
        found = advantages(self.objective, self.group(), "of the kit")
        if found.dim() == 2:
            self.trees.columns["advantage"] = found.double().reshape(-1).numpy()
        return found

    @cached_property
    def returns(self) -> Tensor:
        """The targets of a critic's values, (N,)."""
        return returns(self.objective, self.group(), "of the kit")

    def loss_input(
        self,
        batch: ScoredBatch | None = None,
        requirements: Requirements | None = None,
        state: Mapping[str, float] | None = None,
    ) -> LossInput:
        """Return the input of `loss` for these scores.

        Args:
            batch: scores to use instead of the batch's own.
            requirements: declarations to use instead of the objective's.
            state: the objective's state; by default the one after these rows.
        """
        state = self.state if state is None else state
        term: Any = requirements or self.objective
        return next(iter(self._builder.examples(batch or self.scored_batch(), term, dict(state))))

    @property
    def example(self) -> Any:
        """All rows as the objective sees them."""
        return self.loss_input().example

    @cached_property
    def state(self) -> dict[str, float]:
        """The objective's state after these rows, as `loss` sees it in the first step of a run."""
        before = self.objective.initial_state()
        with torch.no_grad():
            return self.objective.next_state(self.loss_input(state=before).example) if before else {}

    def zeros(self) -> Any:
        """Return the rows as `weight` sees them before any forward pass: all scores are zero."""
        zeros = self._builder.zeros(range(len(self.trees)))
        return next(iter(self._builder.examples(zeros, self.objective, self.state))).example

    @cached_property
    def _empty(self) -> ScoredBatch:
        """All rows without values.

        Reading the trees again for each step of a check would take most of its time.
        """
        return self._builder.empty(range(len(self.trees)))

    @cached_property
    def _builder(self) -> BatchBuilder:
        return BatchBuilder(self.objective, self.trees, seed=SEED, max_new_tokens=MAX_NEW_TOKENS)


def batch_for(objective: Objective, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> Batch:
    """Return rows of 1 to 4 completions of 3 to 12 tokens.

    Their log-ratios are within about 3 nats of 0.
    """
    rng = np.random.default_rng(SEED)
    trees = _trees(objective, rows, rng)
    lengths = _lengths(trees)
    ref = rng.uniform(-4.0, -0.5, lengths.sum())
    own = ref + np.repeat(rng.uniform(-3, 3, len(lengths)) / lengths, lengths) + rng.uniform(-0.2, 0.2, len(ref))
    entropy = rng.uniform(0.5, 3.0, len(ref))
    values = {
        "log_prob": own.clip(max=-0.05),
        "entropy": entropy,
        # The Renyi entropy of order 2 is below the Shannon entropy.
        "log_collision_prob": -entropy * rng.uniform(0.5, 0.95, len(ref)),
        "forward_kl": rng.uniform(0.01, 0.5, len(ref)),
        "scalar": rng.uniform(-3, 3, len(lengths)),
        "reverse_kl": rng.uniform(0.01, 0.5, len(ref)),
        "ref_normalized_entropy": entropy / 4,
    }
    values |= {name: rng.uniform(0.01, 0.5, len(ref)) for name in objective.own_statistics}
    old = values["log_prob"] + rng.uniform(-0.1, 0.1, len(ref)).clip(max=-values["log_prob"] - 0.01)
    values[OLD_VALUE] = rng.uniform(-0.3, 0.3, len(ref))
    values[VALUE] = values[OLD_VALUE] + rng.uniform(-0.1, 0.1, len(ref))
    return _batch(objective, trees, values, ref, old, dtype)


def batch_at_start(objective: Objective) -> Batch:
    """Return the rows of `batch_for` with the policy equal to the reference.

    This is the case at the start of a run.
    """
    batch = batch_for(objective)
    if objective.reference != "none":
        batch.leaves["log_prob"] = batch.ref_log_prob.clone().requires_grad_()
    if objective.data == "group":
        batch.old_log_prob = batch.leaves["log_prob"].detach()
    if objective.head == VALUE:
        batch.leaves[VALUE] = batch.constants[OLD_VALUE].clone().requires_grad_()
    return batch


def batch_apart(objective: Objective, margin: float, dtype: torch.dtype = torch.float32) -> Batch:
    """Return six rows with log-ratios of up to `margin` nats, of either sign.

    The ratio is that of policy and reference.
    """
    rng = np.random.default_rng(SEED)
    trees = _trees(objective, ROWS, rng)
    lengths = _lengths(trees)
    per_row = len(lengths) // ROWS
    own, ref = np.zeros((ROWS, per_row)), np.zeros((ROWS, per_row))
    own[0, 0] = own[1, -1] = own[4, :] = ref[2, 0] = ref[3, -1] = -margin  # no difference in the last row
    each, ref_each = (np.repeat(shift.reshape(-1) / lengths, lengths) for shift in (own, ref))
    entropy = rng.uniform(0.5, 3.0, lengths.sum())
    values = {
        "log_prob": each - 2.5,
        "entropy": entropy,
        "log_collision_prob": -0.8 * entropy,
        "forward_kl": 0.1 + (each - ref_each).clip(min=0),
        "reverse_kl": 0.1 + (ref_each - each).clip(min=0),
        "ref_normalized_entropy": entropy / 4,
        "scalar": (own - ref).reshape(-1),
        OLD_VALUE: rng.uniform(-0.3, 0.3, lengths.sum()),
        VALUE: each - ref_each,
    }
    values |= {name: 0.1 + abs(each - ref_each) for name in objective.own_statistics}
    return _batch(objective, trees, values, ref_each - 2.5, ref_each - 2.5, dtype)


def _batch(
    objective: Objective, trees: Trees, values: Mapping[str, NDArray[Any]], ref: NDArray[Any], old: NDArray[Any],
    dtype: torch.dtype,
) -> Batch:  # fmt: skip
    reward = ("scalar", "log_prob") if objective.language_head else ("scalar",)
    learned = (name for name in objective.statistics if name not in CONSTANT)
    critic = (VALUE,) if objective.head == VALUE else ()
    names = reward if objective.head == "scalar" else ("log_prob", *critic, *learned)
    if objective.outputs:  # as many numbers a sequence, all different
        apart = np.linspace(0.5, 1.5, len(objective.outputs))
        values = {**values, "scalar": values["scalar"][:, None] * apart}
    leaves = {name: torch.tensor(values[name], dtype=dtype, requires_grad=True) for name in names}
    moves = np.random.default_rng(SEED).uniform(-0.4, 0.4, (len(objective.references), len(ref)))
    named = {
        name: torch.tensor(ref + move, dtype=dtype) for name, move in zip(objective.references, moves, strict=True)
    }
    constant = [*filter(CONSTANT.__contains__, objective.statistics), *((OLD_VALUE,) if critic else ())]
    constants: dict[str, Tensor] = {name: torch.tensor(values[name], dtype=dtype) for name in constant}
    return Batch(
        objective, trees, leaves, torch.tensor(ref, dtype=dtype), torch.tensor(old, dtype=dtype), named, constants
    )  # fmt: skip


def _trees(objective: Objective, rows: int, rng: np.random.Generator) -> Trees:
    """Return trees with branches of different lengths.

    The mismatched branches are those of the next row.
    """
    count = len(objective.drawn_by) or BRANCHES[objective.data]
    own = [[_branch(rng) for _ in range(count)] for _ in range(rows)]
    others = [own[(row + 1) % rows] if objective.mismatched else [] for row in range(rows)]
    items = [
        Tree(f"row {row}", rng.integers(1, 99, 4).astype(np.int32), (*own[row], *others[row])) for row in range(rows)
    ]
    columns = {name: _column(name, objective, rows, count, rng) for name in (*objective.columns, "desirable")}
    names = np.array(objective.drawn_by)
    for who in dict.fromkeys(objective.drawn_by):  # of a pair in turn the better one and the worse one
        columns[f"by_{who}"] = np.tile(names == who, (rows, 1))
        if objective.data == "pair":
            columns[f"by_{who}"][1::2] = columns[f"by_{who}"][1::2, ::-1]
    if objective.ties:
        columns[TIE] = np.repeat((np.arange(rows) % 3 == 1)[:, None], count, 1)
    if objective.data == "group":
        columns |= {"reward": rng.uniform(-1, 3, (rows, count)), "kept": np.ones((rows, count))}
        columns |= {
            "finished": np.ones((rows, count)),
            "greedy_reward": np.repeat(rng.uniform(-1, 3, (rows, 1)), count, 1),
        }
        out = -1, count // 2
        columns["kept"][out] = columns["reward"][out] = columns["finished"][0, 0] = 0
    if objective.mismatched:
        columns = {name: np.concatenate([values, values[[*range(1, rows), 0]]], 1) for name, values in columns.items()}
    flat = {name: values.reshape(-1).astype(np.float32) for name, values in columns.items()}
    return Trees.build(items, flat, objective.mismatched)


def _branch(rng: np.random.Generator) -> Branch:
    return Branch(rng.integers(1, 99, rng.integers(3, 13)).astype(np.int32))


def _column(name: str, objective: Objective, rows: int, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return (rows, count) values of a column, best first.

    They are a margin for the row, or a positive number for each completion.
    """
    if name in objective.flags:
        pattern = np.array(FLAGS)[np.arange(rows) % len(FLAGS)]
        return np.concatenate([pattern[:, :1], pattern[:, 1:].repeat(max(count - 1, 0), 1)], 1)
    if name in objective.probabilities:
        return -np.sort(-rng.uniform(0, 1, (rows, count)), 1)
    if name == "desirable":
        return np.repeat([[1.0] + [0.0] * (count - 1)], rows, 0)
    if name == "margin":
        return np.repeat(rng.uniform(0.2, 2.0, (rows, 1)), count, 1)
    return -np.sort(-rng.uniform(0.2, 4.0, (rows, count)), 1)


def _lengths(trees: Trees) -> NDArray[np.int64]:
    return np.array([branch.scored for tree in trees for branch in tree.branches])
