"""Records of single held-out rows, from the scores that an evaluation has anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.evaluation.row_metrics import Rows, row_metrics
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch
from alignzoo.scoring.scorer import PER_SEQUENCE


def row_records(
    builder: BatchBuilder, batch: ScoredBatch, states: Sequence[Mapping[str, float]] = ()
) -> list[dict[str, Any]]:
    """Return a record of each row: id, the figures of `row_metrics`, lengths, gradient weight.

    Lengths are the scored tokens of the best and the worst completion, of rows that compare their own. Figures that are
    not finite are left out. No model is run.

    Args:
        builder: Objective, trees and data columns.
        batch: Scores of all rows, in their order.
        states: State of each term of the objective.
    """
    values = dict(row_metrics(builder, batch, (), pooled=True))
    rows = Rows(builder, batch)
    if rows.compared:
        lengths = torch.from_numpy(batch.lengths[rows.index]).double()
        values |= rows.both("length", lengths)
    if (weights := gradient_weights(builder, batch, states)) is not None:
        values["gradient_weight"] = weights
    columns = {name: value.double().cpu().tolist() for name, value in values.items()}
    return [
        {"id": builder.trees.ids[row], **{name: own[i] for name, own in columns.items() if math.isfinite(own[i])}}
        for i, row in enumerate(batch.rows)
    ]


@torch.enable_grad()
def gradient_weights(
    builder: BatchBuilder, batch: ScoredBatch, states: Sequence[Mapping[str, float]] = ()
) -> Tensor | None:
    """Return each row's weight in the gradient of the loss, shape (rows,).

    It is the sum over the row's sequences of |dL / d log pi|, with L the mean loss over all rows and the derivative of
    a sequence the mean over its tokens. For a reward model the derivative is that of the scalar. None for a loss that
    can't be differentiated.
    """
    names = [name for name in ("log_prob", "scalar") if name in batch.values]
    leaves = {name: batch.values[name].detach().clone().requires_grad_() for name in names}
    scored = ScoredBatch(batch.rows, batch.counts, batch.lengths, batch.values | leaves)
    total = scored.like.new_zeros(())
    try:
        for n, (share, term) in enumerate(builder.objective.terms):
            loss, weight = total.new_zeros(()), 0.0
            for loss_input in builder.examples(scored, term, states[n] if states else term.initial_state()):
                loss = loss + term.loss(loss_input.example).sum()
                weight += float(term.weight(loss_input.example).detach().double().sum())
            total = total + share * loss / weight if weight else total
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    except Exception:  # the loss has no gradient, or a plugin's code needs one of training
        return None
    owner = torch.from_numpy(np.repeat(np.arange(len(batch.rows)), batch.counts))
    found = torch.zeros(len(batch.rows), dtype=torch.float64)
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            sizes = gradient.detach().abs().double()
            if name in PER_SEQUENCE:
                found.index_add_(0, owner, sizes.reshape(len(owner), -1).sum(1))
            else:
                of_tokens = ScoredBatch(batch.rows, batch.counts, batch.lengths, {name: sizes})
                found.index_add_(0, owner, of_tokens.sum(name) / torch.from_numpy(batch.lengths).clamp(min=1))
    return found
