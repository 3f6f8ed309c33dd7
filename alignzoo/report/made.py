"""Completions made up to look at an objective: what its `loss` gets when log-probs have moved off the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.objective import Objective, Pair, Ranked, Scored, Tokens, Unpaired

TOKENS = 20
LOG_PROB = -2.0
"""Of each token, where the policy starts: as unsure as between seven words."""


@dataclass(frozen=True)
class Made:
    """Completions of one length whose policy starts at the reference; tensors are float64."""

    objective: Objective
    tokens: int = TOKENS
    start: float = LOG_PROB * TOKENS
    """The log-prob of a completion before it moves."""

    def doubled(self) -> Made:
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
        if one.random:
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
            return self.objective.reward(self.scored(move, preferred))

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
        statistics = {"entropy": -mean, "collision": mean, "kl": 0.0}

        def each(value: float) -> Tensor:
            return torch.full(place.shape, value, dtype=log_prob.dtype)

        return Tokens(
            (log_prob.reshape(-1) / self.tokens).repeat_interleave(self.tokens),
            place // self.tokens,
            place % self.tokens,
            tuple(log_prob.shape),
            each(mean) if one.reference in ("token", "live", "moving") else None,
            {name: each(statistics[name]) for name in one.statistics},
            each(0.5) if one.random else None,
        )
