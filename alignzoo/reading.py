"""Whether an objective reads the log-ratio that it is given: asked before a modifier changes one that nobody reads.

Only the objective's code knows (AOT compares log-probs, LD-DPO adds up tokens anew), so it is asked for the loss of two
made-up rows, and what it reads of them is noted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignzoo.objective import Objective, Pair, Ranked, Scored, Tokens, Unpaired

if TYPE_CHECKING:
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
        statistics = {"entropy": -log_prob, "collision": log_prob, "kl": -log_prob}
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
