"""Gradient of a step, by micro-batches or through the scores of the global batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.evaluation.aggregate import Tally
from alignzoo.evaluation.off_policy import shares
from alignzoo.evaluation.row_metrics import step_metrics
from alignzoo.scoring.scored_batch import ScoredBatch, concat_scored
from alignzoo.training.batch_loss import BatchLoss, States
from alignzoo.training.passes import Passes, zero_loss

NO_ROWS = ScoredBatch([], [], np.zeros(0, np.int64), {})
"""The share of a process in a batch of fewer rows than processes, which draws without spread make."""


class StepGradient(NamedTuple):
    """The outcome of the passes of one step; the gradient itself is in the parameters."""

    metrics: dict[str, float]
    slots: int
    """Token slots that this process computed."""
    states: States
    """Each term's state after the step."""
    zero_weight: bool
    """True if all weights of the batch are 0: there is no gradient, and no step to take."""


def gradient_by_row(
    passes: Passes, loss: BatchLoss, step: int, rows: Sequence[int], mine: list[int], states: States
) -> StepGradient:
    """Compute the gradient of an objective whose rows are independent.

    Each micro-batch has one forward and one backward.

    Args:
        passes: This process's forwards and backwards.
        loss: The objective's loss.
        step: The optimizer step, from 0.
        rows: The rows of the global batch.
        mine: This process's share of them.
        states: Each term's state before the step.
    """
    totals = loss.total_weights(rows, step)
    moves = any(totals)
    collective = passes.parallelism.collective

    def learn(parts: list[list[int]]) -> tuple[Tally, int]:
        tally, slots = Tally(passes.ranks), 0
        problem: RunFailed | None = None
        for part in parts:
            with torch.set_grad_enabled(moves):
                batch, used = passes.score(part or mine[:1])
            try:
                part_loss = loss.loss(step, batch, states, totals, tally) if part else zero_loss(batch)
            except RunFailed as error:
                if not collective:
                    raise
                problem, part_loss = error, zero_loss(batch)  # the other processes are in the middle of theirs
            if moves:  # also without an example: the backward may be collective
                passes.backward(part_loss if part_loss.requires_grad else zero_loss(batch))
            if part:
                tally.add(step_metrics(loss.builder, batch))
            slots += used
        if problem is not None:
            raise problem
        return tally, slots

    tally, slots = passes.in_micro_batches(mine, learn)
    return StepGradient(shares(tally.means()), slots, states, not moves)


def gradient_by_batch(
    passes: Passes, loss: BatchLoss, step: int, rows: list[int], mine: list[int], states: States
) -> StepGradient:
    """Compute the gradient of an objective with dependent rows, by gradient caching.

    All rows are scored without a graph. The loss's gradient with respect to every score of the global batch then
    weights the scores of a second forward, micro-batch by micro-batch. The arguments are those of `gradient_by_row`.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    arXiv:2101.06983.
    """
    builder = loss.builder

    def score(parts: list[list[int]]) -> ScoredBatch:
        with torch.no_grad():
            scored = [passes.score(part or mine[:1])[0] for part in parts]
            return concat_scored([batch for batch, part in zip(scored, parts, strict=True) if part] or [NO_ROWS])

    batch = _gather(passes.in_micro_batches(mine, score), passes.ranks).in_order(rows)
    builder.with_reference(batch, passes.ranks.device)
    leaves = {name: batch.values[name].requires_grad_() for name in builder.with_gradient if name in batch.values}
    after = loss.next_states(batch, states, step)
    tally = Tally()
    total = loss.loss(step, batch, after, None, tally)
    tally.add(step_metrics(builder, batch))
    if not total.requires_grad:
        return StepGradient(tally.means(), 0, after, True)
    total.backward()
    gradients = {name: _gradient(leaf) for name, leaf in leaves.items()}
    coefficients = ScoredBatch(rows, batch.counts, batch.lengths, gradients)

    def replay(parts: list[list[int]]) -> int:
        slots = 0
        for part in parts:
            again, used = passes.score(part or mine[:1])
            own = coefficients.in_order(part).values
            terms = [(again.values[name] * own[name]).sum() for name in own if part]
            passes.backward(torch.stack(terms).sum() if terms else zero_loss(again))
            slots += used
        return slots

    return StepGradient(tally.means(), passes.in_micro_batches(mine, replay), after, False)


def _gather(mine: ScoredBatch, ranks: Ranks) -> ScoredBatch:
    """The scores of the global batch, in every process."""
    if ranks.count == 1:
        return mine
    values = {name: value.cpu() for name, value in mine.values.items()}
    found = ranks.all_gather(ScoredBatch(mine.rows, mine.counts, mine.lengths, values))
    batch = concat_scored([part for part in found if part.rows])
    batch.values = {name: value.to(ranks.device) for name, value in batch.values.items()}
    return batch


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
