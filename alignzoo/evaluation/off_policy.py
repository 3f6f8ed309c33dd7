"""Off-policy figures of a step: effective sample size and share of clipped tokens.

They measure how far the step's policy is from the one that drew.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from alignzoo.interfaces.group import Group
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import OLD, ScoredBatch
from alignzoo.scoring.scorer import VALUE

DRAWS, RATIOS, SQUARES, TAUGHT, CLIPPED = "draws", "ratios", "squared_ratios", "taught_tokens", "clipped_tokens"
VALUES, VALUES_CLIPPED = "values", "clipped_values"
"""Sums that `off_policy` returns and `shares` removes."""
LARGEST_LOG_RATIO = 300.0
"""Keeps squares of ratios finite in float64."""


def off_policy(builder: BatchBuilder, batch: ScoredBatch) -> dict[str, Tensor]:
    """Return name -> (rows,) float64: sums over each prompt's draws that are kept.

    The function `shares` makes figures of them. Nothing is returned in the first update of a rollout, in which every
    ratio is 1. A token is clipped if it has an advantage, and the loss has the same slope by its log-prob as without
    advantages: penalties still teach it. A value is clipped if the loss has no slope by it.
    """
    if OLD not in builder.recorded:
        return {}
    term = builder.objective.terms[0][1]
    leaf = batch.values["log_prob"].detach().requires_grad_()
    values = {name: value.detach() for name, value in batch.values.items()} | {"log_prob": leaf}
    critic = values[VALUE].requires_grad_() if VALUE in values else None
    (given,) = builder.examples(replace(batch, values=values), term, term.initial_state())
    group = given.example
    assert isinstance(group, Group)
    nothing = replace(group, _advantage=torch.zeros_like(group.advantage))
    with torch.enable_grad():
        losses = [term.loss(one).sum() for one in (group, nothing)]
        slopes = [
            torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True, retain_graph=True)[0]
            if loss.requires_grad else torch.zeros_like(leaf)
            for loss in losses
        ]  # fmt: skip
        by_value = None if critic is None else torch.autograd.grad(losses[0], critic)[0]
    lengths = torch.from_numpy(batch.lengths).to(leaf.device)
    kept = group.kept.reshape(-1).repeat_interleave(lengths)
    advantage = (
        group.advantage if group.advantage.dim() == 1 else group.advantage.reshape(-1).repeat_interleave(lengths)
    )
    taught = kept & (advantage != 0)
    moved = ScoredBatch(batch.rows, batch.counts, batch.lengths, {
        "moved": (leaf.detach() - batch.values[OLD]).double(),
        "taught": taught.double(),
        "clipped": (taught & (slopes[0] == slopes[1])).double(),
    })  # fmt: skip
    if by_value is not None:
        moved.values |= {VALUES: kept.double(), VALUES_CLIPPED: (kept & (by_value == 0)).double()}
    sums = {name: moved.sum(name).reshape(group.kept.shape) for name in moved.values}
    ratio = sums["moved"].clamp(max=LARGEST_LOG_RATIO).exp().masked_fill(~group.kept, 0)
    return {
        DRAWS: group.kept.double().sum(1), RATIOS: ratio.sum(1), SQUARES: ratio.square().sum(1),
        TAUGHT: sums["taught"].sum(1), CLIPPED: sums["clipped"].sum(1),
        **{name: sums[name].sum(1) for name in (VALUES, VALUES_CLIPPED) if name in sums},
    }  # fmt: skip


def shares(means: dict[str, float]) -> dict[str, float]:
    """Return the means of a step, with figures in place of the sums of `off_policy`.

    `effective_sample_size` is (sum of w)^2 / (n sum of w^2) of n draws, with w = pi / pi_old of a completion (Kong
    1992). `clipped` is the share of tokens with an advantage that the loss does not learn from, `value_clipped` that of
    tokens whose value it does not learn from.
    """
    names = (DRAWS, RATIOS, SQUARES, TAUGHT, CLIPPED, VALUES, VALUES_CLIPPED)
    sums = {name: means.pop(name) for name in names if name in means}
    if sums.get(VALUES):
        means["value_clipped"] = sums[VALUES_CLIPPED] / sums[VALUES]
    if sums.get(SQUARES):
        means["effective_sample_size"] = sums[RATIOS] ** 2 / (sums[DRAWS] * sums[SQUARES])
    if sums.get(TAUGHT):
        means["clipped"] = sums[CLIPPED] / sums[TAUGHT]
    return means
