"""Rewards and log-probs of every completion of rows, under a finished run's policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.data.trees import Trees
from alignzoo.evaluation.evaluate import score_all
from alignzoo.evaluation.row_metrics import implicit_rewards
from alignzoo.interfaces.ties import tie_groups, tie_means
from alignzoo.training.open_finished import FinishedPolicy

Values = NDArray[np.float64]


@dataclass(frozen=True)
class CompletionScores:
    """Scores of each row's completions, in their order; nan where there is none.

    Scores of a row that differ by rounding alone are equal.
    """

    rewards: list[Values]
    """Those of a reward model, or the implicit ones of the objective's first term."""
    log_probs: list[Values]
    """Log-probs of the whole completions, in nats; empty for a reward model."""


@torch.no_grad()
def score_completions(policy: FinishedPolicy, counts: Sequence[int], trees: Trees) -> CompletionScores:
    """Score every completion of every row.

    Args:
        policy: The policy.
        counts: Number of completions of each row.
        trees: The rows' trees, with the columns that the objective declares.

    Raises:
        UserError: The weights of a reference are gone, or have changed.
    """
    builder = policy.builder(trees)
    batch = score_all(policy.scorer, builder, policy.budget, policy.screen, "evaluation")
    batch.values = {name: value.double() for name, value in batch.values.items()}
    term = policy.recipe.objective.terms[0][1]
    scored = builder.scored(batch, term, np.arange(int(batch.first[-1])))
    rewards = without_rounding(*implicit_rewards(term, scored), counts)
    if term.head == "scalar":
        return CompletionScores(rewards, [])
    return CompletionScores(rewards, without_rounding(scored.log_prob, scored.tolerance, counts))


def without_rounding(values: Tensor, tolerances: Tensor, counts: Sequence[int]) -> list[Values]:
    """Return each row's values; those that differ by rounding alone have their mean.

    Args:
        values: (S,) values of all completions.
        tolerances: (S,) rounding error of each value.
        counts: Number of completions of each row, with sum S.
    """
    found = []
    for own, tolerance in zip(values.split(list(counts)), tolerances.double().split(list(counts)), strict=True):
        own = own.double().nan_to_num(nan=-math.inf)  # a nan would tie with its neighbor
        shared = tie_means(own, tie_groups(own, tolerance)).cpu().numpy()
        found.append(np.where(np.isneginf(shared), np.nan, shared))
    return found
