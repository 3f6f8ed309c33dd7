"""Forward and backward passes over one process's rows of a step, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.memory import handle_out_of_memory
from alignzoo.data.trees import Tree
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.microbatches import halve_budget, plan_micro_batches
from alignzoo.scoring.scored_batch import ScoredBatch
from alignzoo.training.parallelism import Parallelism

T = TypeVar("T")


@dataclass
class Passes:
    """Score rows and run backwards, with the largest micro-batches that fit in memory."""

    builder: BatchBuilder
    parallelism: Parallelism
    ranks: Ranks
    budget: int
    """Token slots of a micro-batch; halved when memory runs out, for this step and those after it."""
    observe: Callable[[ScoredBatch], None]
    """Called with every scored micro-batch."""

    def in_micro_batches(self, rows: list[int], work: Callable[[list[list[int]]], T]) -> T:
        """Call `work` with these rows cut into micro-batches.

        When memory runs out, it is called again at half the budget. Where passes are collective all processes get the
        same number of micro-batches, the last of them empty.
        """
        trees = [self.builder.tree(row) for row in rows]
        layout = self.parallelism.scorer.layout
        while True:
            parts = [[rows[i] for i in part] for part in plan_micro_batches(trees, self.budget, layout)]
            if self.parallelism.collective:
                parts += [[]] * (max(self.ranks.all_gather(len(parts))) - len(parts))
            with handle_out_of_memory(lambda error: self._halve(trees, error)):
                return work(parts)

    def _halve(self, trees: Sequence[Tree], error: BaseException) -> None:
        self.budget = halve_budget(self.budget, trees, error)
        self.parallelism.zero_grad()

    def score(self, rows: list[int]) -> tuple[ScoredBatch, int]:
        """Score one micro-batch. Returns its scores and the token slots computed."""
        with self.parallelism.together(self.budget):
            batch, slots = self.builder.score(self.parallelism.module, rows)
        self.observe(batch)
        return batch, slots

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's loss."""
        with self.parallelism.together(self.budget):
            self.parallelism.backward(loss)


def zero_loss(batch: ScoredBatch) -> Tensor:
    """Return a loss of zero whose backward passes through the whole model."""
    live = [value.sum() for value in batch.values.values() if value.requires_grad]
    return torch.stack(live).sum() * 0 if live else batch.like.new_zeros(())
