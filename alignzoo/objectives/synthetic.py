"""Synthetic inputs of a loss: completions of equal length with given log-probs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.interfaces.group import Group
from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import OWN
from alignzoo.interfaces.tokens import Tokens

TOKENS = 20
LOG_PROB = -2.0
"""Initial log-prob of each token, in nats: a perplexity of about 7."""


@dataclass(frozen=True)
class SyntheticInputs:
    """Completions of one length for which the policy starts at the reference.

    Tensors are float64.
    """

    objective: Objective
    tokens: int = TOKENS
    start: float = LOG_PROB * TOKENS
    """Initial log-prob of a completion, in nats."""
    flag: float = 1.0
    """Value of flags where the completion is preferred: rows to forget are flagged, and rows to keep are not."""

    def doubled(self) -> SyntheticInputs:
        """Return completions of twice the length with the same initial log-prob per token."""
        return replace(self, tokens=2 * self.tokens, start=2 * self.start)

    def example(self, moves: Mapping[str, Tensor]) -> Any:
        """Return the example that `loss` gets after the log-probs have moved.

        Args:
            moves: the change of the log-prob (for a reward model: the score) of each side, shape (B,), in nats. Sides
                are `chosen` and `rejected`. Unpaired completions have one side, which is the label of the first
                completion; with `scope = "batch"` the labels alternate.
        """
        objective = self.objective
        first = next(iter(moves.values()))
        more: dict[str, Any] = {"_state": objective.initial_state()}
        if objective.needs_uniform:
            more["_uniform"] = torch.full_like(first, 0.5, requires_grad=False)
        if objective.data == "chosen":
            return self.scored(moves["chosen"], True)
        if objective.data == "pair":
            tied = torch.zeros(len(first), dtype=torch.bool) if objective.ties else None
            return Pair(self.scored(moves["chosen"], True), self.scored(moves["rejected"], False), tied, **more)
        if objective.data == "ranked":
            best_first = torch.tensor([True, False])
            return Ranked(self.scored(torch.stack([moves["chosen"], moves["rejected"]], 1), best_first), **more)
        if objective.data == "group":
            return self._group(torch.stack([moves["chosen"], moves["rejected"]], 1), more)
        label = torch.full((len(first),), "chosen" in moves)
        if objective.scope == "batch":
            label[1::2] = ~label[1::2]
        if objective.mismatched:
            more["_mismatched"] = self.scored(torch.zeros_like(first), True)
        return Unpaired(self.scored(first, label), label, **more)

    def _group(self, moves: Tensor, more: dict[str, Any]) -> Group:
        """Return groups of two draws with the rewards 1 and 0, drawn before the log-probs moved."""
        reward = torch.ones_like(moves, requires_grad=False) * torch.tensor([1.0, 0.0], dtype=moves.dtype)
        kept = torch.ones_like(reward, dtype=torch.bool)
        more |= {"_greedy_reward": reward.mean(1)} if self.objective.greedy_baseline else {}
        start = self.scored(torch.zeros_like(reward), True)
        group = Group(start, reward, kept, kept, self.tokens, **more)
        with torch.no_grad():
            advantage = self.objective.advantage(group)
            returns = self.objective.returns(group) if self.objective.head == "value" else None
        return replace(group, completions=self.scored(moves, True), _advantage=advantage, _returns=returns)

    def reward(self, move: Tensor, preferred: bool) -> Tensor:
        """Return the implicit reward, shape (B,), of completions with log-probs moved by `move`."""
        with torch.no_grad():
            return self.objective.implicit_reward(self.scored(move, preferred))

    def scored(self, move: Tensor, preferred: bool | Tensor) -> Scored:
        """Return completions with the declared inputs and no others.

        Columns are 1 where `preferred`, else 0.
        """
        objective = self.objective
        length = torch.full_like(move, self.tokens, requires_grad=False)
        columns = {name: length * 0 + torch.as_tensor(preferred) for name in objective.columns}
        columns |= {name: columns[name] * self.flag for name in objective.flags}
        if objective.head == "scalar":
            own = self.start + move if objective.language_head else None
            return Scored(own, length, _columns=columns, _scalar=move, _outputs=dict.fromkeys(objective.outputs, move))
        log_prob = self.start + move
        ref = None if objective.reference == "none" else torch.full_like(length, self.start)
        old = torch.full_like(length, self.start) if objective.data == "group" else None
        refs = {name: torch.full_like(length, self.start) for name in objective.references}
        tokens = self._tokens(log_prob) if objective.tokens else None
        hidden = length[..., None] if objective.hidden_sum else None
        return Scored(log_prob, length, ref, tokens, columns, None, None, old, refs, _hidden_sum=hidden)

    def _tokens(self, log_prob: Tensor) -> Tokens:
        """Return equal tokens: each has the same share of its completion's log-prob."""
        objective, index = self.objective, torch.arange(log_prob.numel() * self.tokens)
        mean = self.start / self.tokens
        statistics = {"entropy": -mean, "log_collision_prob": mean, "forward_kl": 0.0, "reverse_kl": 0.0}
        statistics |= {"ref_normalized_entropy": 0.1}

        def constant(value: float) -> Tensor:
            return torch.full(index.shape, value, dtype=log_prob.dtype)

        return Tokens(
            (log_prob.reshape(-1) / self.tokens).repeat_interleave(self.tokens),
            index // self.tokens,
            index % self.tokens,
            tuple(log_prob.shape),
            constant(mean) if objective.reference in ("token", "live", "moving") else None,
            {name.partition(OWN)[0]: constant(statistics.get(name, 0.0)) for name in objective.statistics},
            constant(0.5) if objective.needs_uniform else None,
            constant(mean) if objective.data == "group" else None,
            {name: constant(mean) for name in objective.references},
            *((constant(0.0), constant(0.0)) if objective.head == "value" else ()),
        )
