"""Whether an objective reads the log-ratio that it is given: asked before a modifier changes one that nobody reads.

Only the objective's code knows (AOT compares log-probs, LD-DPO adds up tokens anew), so it is asked for the loss of two
made-up rows, and what it reads of them is noted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Tokens, Unpaired
from alignzoo.interfaces.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

ROWS, TOKENS = 2, 3


@dataclass(frozen=True, slots=True)
class _Watched(Scored):
    """Completions that note that their log-ratio was read. What takes its place is not watched."""

    _notes: list[str] = field(default_factory=list)

    @property
    def log_ratio(self) -> Tensor:
        self._notes.append("log_ratio")
        return self.log_prob - self.ref_log_prob

    def with_log_ratio(self, log_ratio: Tensor) -> Scored:
        return Scored(
            self._log_prob, self.length, self._ref_log_prob, self._tokens, self._columns, self._scalar, log_ratio
        )


def reads_log_ratio(objective: Objective) -> bool:
    """Whether its loss depends on `scored.log_ratio`. What fails on made-up rows is let through: the kit says why."""
    notes: list[str] = []
    try:
        objective.loss(_example(objective, notes))
    except Exception:
        return True
    return bool(notes)


def _example(objective: Objective, notes: list[str]) -> Any:
    import torch

    def completions(*shape: int) -> Scored:
        count = ROWS * (shape[1] if len(shape) > 1 else 1)
        log_prob = -torch.linspace(0.5, 3.0, count * TOKENS)
        sequence = torch.arange(count).repeat_interleave(TOKENS)
        position = torch.arange(TOKENS).repeat(count)
        uniform = torch.linspace(0.1, 0.9, count * TOKENS)
        statistics = {"entropy": -log_prob, "log_collision_prob": log_prob, "kl": -log_prob}
        tokens = Tokens(log_prob, sequence, position, shape, log_prob - 0.1, statistics, uniform)
        columns = {name: torch.linspace(2.0, 1.0, count).reshape(shape) for name in objective.columns}
        length = torch.full(shape, float(TOKENS))
        return _Watched(tokens.sum(log_prob), length, tokens.sum(log_prob - 0.1), tokens, columns, _notes=notes)

    own: dict[str, Any] = {"_state": objective.initial_state(), "_uniform": torch.linspace(0.2, 0.8, ROWS)}
    if objective.data == "chosen":
        return completions(ROWS)
    if objective.data == "ranked":
        return Ranked(completions(ROWS, 2), **own)
    if objective.data == "unpaired":
        return Unpaired(completions(ROWS), torch.tensor([True, False]), completions(ROWS), **own)
    return Pair(completions(ROWS), completions(ROWS), **own)


TOKENS = 20


LOG_PROB = -2.0
"""Of each token, where the policy starts: as unsure as between seven words."""


@dataclass(frozen=True)
class SyntheticInputs:
    """Completions of one length whose policy starts at the reference; tensors are float64."""

    objective: Objective
    tokens: int = TOKENS
    start: float = LOG_PROB * TOKENS
    """The log-prob of a completion before it moves."""

    def doubled(self) -> SyntheticInputs:
        """Completions that are twice as long and start with the same log-prob per token."""
        return replace(self, tokens=2 * self.tokens, start=2 * self.start)

    def example(self, moves: Mapping[str, Tensor]) -> Any:
        """What `loss` gets when the log-probs (a reward model's scores) of each side, shape (B,), have moved so far.

        Sides are `chosen` and `rejected`. Unpaired completions have one of them, the label of the first; where
        `loss` sees the whole batch, the labels of the others alternate.
        """
        one = self.objective
        first = next(iter(moves.values()))
        more: dict[str, Any] = {"_state": one.initial_state()}
        if one.needs_uniform:
            more["_uniform"] = torch.full_like(first, 0.5, requires_grad=False)
        if one.data == "chosen":
            return self.scored(moves["chosen"], True)
        if one.data == "pair":
            return Pair(self.scored(moves["chosen"], True), self.scored(moves["rejected"], False), **more)
        if one.data == "ranked":
            best_first = torch.tensor([True, False])
            return Ranked(self.scored(torch.stack([moves["chosen"], moves["rejected"]], 1), best_first), **more)
        alternates = (torch.arange(len(first)) % 2 == 0) & (one.scope == "batch")
        desirable = alternates if "chosen" in moves else ~alternates
        if one.scope == "example":
            desirable = torch.full_like(alternates, "chosen" in moves)
        if one.mismatched:
            more["_mismatched"] = self.scored(torch.zeros_like(first), True)
        return Unpaired(self.scored(first, desirable), desirable, **more)

    def reward(self, move: Tensor, preferred: bool) -> Tensor:
        """The objective's own reward of completions that have moved so far, shape (B,)."""
        with torch.no_grad():
            return self.objective.implicit_reward(self.scored(move, preferred))

    def scored(self, move: Tensor, preferred: bool | Tensor) -> Scored:
        """With what the objective declares, and no more. A column is 1 where `preferred` and 0 elsewhere."""
        one = self.objective
        length = torch.full_like(move, self.tokens, requires_grad=False)
        columns = {name: length * 0 + torch.as_tensor(preferred) for name in one.columns}
        if one.head == "scalar":
            return Scored(None, length, _columns=columns, _scalar=move)
        log_prob = self.start + move
        ref = None if one.reference == "none" else torch.full_like(length, self.start)
        return Scored(log_prob, length, ref, self._tokens(log_prob) if one.tokens else None, columns)

    def _tokens(self, log_prob: Tensor) -> Tokens:
        """Every token has an equal share of its completion's log-prob; policy and reference are alike otherwise."""
        one, place = self.objective, torch.arange(log_prob.numel() * self.tokens)
        mean = self.start / self.tokens
        statistics = {"entropy": -mean, "log_collision_prob": mean, "kl": 0.0}

        def each(value: float) -> Tensor:
            return torch.full(place.shape, value, dtype=log_prob.dtype)

        return Tokens(
            (log_prob.reshape(-1) / self.tokens).repeat_interleave(self.tokens),
            place // self.tokens,
            place % self.tokens,
            tuple(log_prob.shape),
            each(mean) if one.reference in ("token", "live", "moving") else None,
            {name: each(statistics[name]) for name in one.statistics},
            each(0.5) if one.needs_uniform else None,
        )
