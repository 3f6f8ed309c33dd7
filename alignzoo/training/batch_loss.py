"""Loss of a global batch: each term's sum of losses over its sum of weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.core.errors import attribute_errors
from alignzoo.evaluation.aggregate import Tally
from alignzoo.interfaces.objective import Objective
from alignzoo.scoring.batches import BatchBuilder, LossInput
from alignzoo.scoring.scored_batch import ScoredBatch

States = list[dict[str, float]]
"""The state of each term, kept from step to step."""


@dataclass
class BatchLoss:
    """The weighted sum of an objective's terms over the rows of a batch."""

    builder: BatchBuilder

    def __post_init__(self) -> None:
        self.terms = self.builder.objective.terms
        self.labels = number_repeats([term.name for _, term in self.terms])

    def initial_states(self) -> States:
        """Return each term's state before the first step."""
        return [term.initial_state() for _, term in self.terms]

    def total_weights(self, rows: Sequence[int], step: int) -> list[float]:
        """Return each term's sum of weights over the rows, which is known without a forward."""
        zeros = self.builder.zeros(rows)
        return [_total_weight(term, self.builder.examples(zeros, term, step=step)) for _, term in self.terms]

    def loss(
        self, step: int, batch: ScoredBatch, states: States, totals: Sequence[float] | None, tally: Tally
    ) -> Tensor:
        """Return these rows' part of the step's loss, a scalar, and add it to the tally.

        Args:
            step: The optimizer step, from 0.
            batch: The scores of some rows of the global batch.
            states: The state of each term.
            totals: Each term's sum of weights over the global batch; None if these rows are all of it.
            tally: Receives the loss, and each term's where there are several.

        Raises:
            RunFailed: A term's loss raises an error or is not finite.
        """
        parts = []
        for n, (weight, term) in enumerate(self.terms):
            inputs = list(self.builder.examples(batch, term, states[n], step))
            losses = [batch.like.new_zeros(())]
            for loss_input in inputs:
                with self._attribute(step, term, "loss", batch.rows):
                    found = term.loss(loss_input.example)
                self.builder.check_losses(f"step {step + 1}: ", term.name, found, loss_input, batch)
                losses.append(found.sum())
            loss = torch.stack(losses).sum()
            if inputs:  # a term without an example in these rows adds nothing
                total = totals[n] if totals else _total_weight(term, inputs)
                loss = loss / total if total else torch.zeros_like(loss)
            parts.append(weight * loss)
            if len(self.terms) > 1:
                tally.add_total(f"loss_{self.labels[n]}", float(loss.detach()))
        total_loss = torch.stack(parts).sum()
        tally.add_total("loss", float(total_loss.detach()))
        return total_loss

    def next_states(self, batch: ScoredBatch, states: States, step: int) -> States:
        """Return each term's state after it has seen the global batch."""
        return [self._next_state(n, batch, state, step) for n, state in enumerate(states)]

    @torch.no_grad()
    def _next_state(self, n: int, batch: ScoredBatch, state: dict[str, float], step: int) -> dict[str, float]:
        if not state:
            return {}
        term = self.terms[n][1]
        with self._attribute(step, term, "next_state", batch.rows):
            loss_input = next(iter(self.builder.examples(batch, term, state, step)), None)
            after = state if loss_input is None else term.next_state(loss_input.example)
        return {key: float(value) for key, value in after.items()}

    def _attribute(self, step: int, term: Objective, call: str, rows: Sequence[int]) -> AbstractContextManager[None]:
        return attribute_errors(
            f"step {step + 1}: the {call} of {term.name}", term, f", for rows {self.builder.names(rows)}"
        )


def number_repeats(names: Sequence[str]) -> list[str]:
    """Append a number to a name that repeats: dpo, sft, dpo_2."""
    return [name if name not in names[:i] else f"{name}_{names[: i + 1].count(name)}" for i, name in enumerate(names)]


@torch.no_grad()
def _total_weight(term: Objective, inputs: Iterable[LossInput]) -> float:
    return sum(float(term.weight(loss_input.example).double().sum()) for loss_input in inputs)
