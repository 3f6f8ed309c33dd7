"""Metrics of each row: rewards, log-ratios, margins, and orderings of its completions.

Training steps, evaluations and comparisons report means of these over the rows that have them.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.arrays import concat_ranges
from alignzoo.core.console import warn_once
from alignzoo.core.errors import attribute_errors
from alignzoo.evaluation.off_policy import LARGEST_LOG_RATIO, off_policy
from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import TIE
from alignzoo.interfaces.ties import ULPS, tie_groups
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import OLD, RETURNS, ScoredBatch


@torch.no_grad()
def row_metrics(
    builder: BatchBuilder,
    batch: ScoredBatch,
    orders: Collection[str],
    pooled: bool = False,
    test: NDArray[np.bool_] | None = None,
) -> dict[str, Tensor]:
    """Return name -> (rows,) float64, with nan where a row has no such value.

    `chosen_*` and `rejected_*` belong to a row's best and worst completion, by the first term's implicit reward. For
    rows with a single completion they are means over its desirable and undesirable ones. Names without any value are
    left out. A reward that is not finite has no value, and neither have the row's margin and accuracy.

    Args:
        builder: Objective, trees and data columns.
        batch: Scores of the completions.
        orders: Accuracies to compute, of `preference_accuracy`, `likelihood_accuracy` and `length_normalized_accuracy`.
        pooled: Compare single completions with those of the other kind, on the same side of the split.
        test: Rows of the test split, shape (rows,).
    """
    rows = Rows(builder, batch, test)
    objective = builder.objective.terms[0][1]
    scored = builder.scored(batch, objective, rows.index)
    found: dict[str, Tensor] = {}
    scores: dict[str, tuple[Tensor, Tensor]] = {}
    if objective.data != "chosen" or rows.compared or (pooled and rows.labeled):
        reward, tolerance = implicit_rewards(objective, scored)
        scores["preference_accuracy"] = reward, tolerance
        found |= rows.both("reward", reward)
    if objective.head != "scalar":
        log_prob, length = scored.log_prob.double(), scored.length.double()
        scores["likelihood_accuracy"] = log_prob, scored.tolerance.double()
        scores["length_normalized_accuracy"] = log_prob / length, scored.tolerance.double() / length
        found |= rows.both("log_prob", log_prob)
        if "ref_log_prob" in batch.values:
            found |= rows.both("log_ratio", batch.log_ratio()[torch.from_numpy(rows.index)].double())
    if rows.compared or (pooled and rows.labeled):
        found |= {name: rows.ordered(*score) for name, score in scores.items() if name in orders}
        if "preference_accuracy" in scores:
            reward = scores["preference_accuracy"][0]
            found["margin"] = rows.margin(reward)
            if unknown := [
                name for name in ("preference_accuracy", "margin") if name in found and reward.isnan().any()
            ]:
                gone = rows.with_any(reward.isnan())
                found |= {name: found[name].where(~gone, torch.nan) for name in unknown}
    if TIE in builder.trees.columns and (
        tied := builder.tied(batch).nonzero()[0].tolist()
    ):  # neither of a tie's completions is the better one
        found = {
            name: value.index_fill(0, torch.tensor(tied, device=value.device), torch.nan)
            for name, value in found.items()
        }
    return found


def step_metrics(builder: BatchBuilder, batch: ScoredBatch) -> dict[str, Tensor]:
    """Return the metrics that a training step reports besides its loss."""
    if builder.groups:
        return group_metrics(builder, batch) | off_policy(builder, batch)
    found = row_metrics(builder, batch, ("preference_accuracy",))
    return {name.removeprefix("preference_"): value for name, value in found.items()}


@torch.no_grad()
def group_metrics(builder: BatchBuilder, batch: ScoredBatch) -> dict[str, Tensor]:
    """Return name -> (rows,) float64: means over the kept draws of each prompt.

    The mean is nan where no draw is kept. `log_ratio`, of policy and reference, estimates their KL divergence. `drift`
    is the mean |log pi - log pi_old| of a token, and `approx_kl` the mean of rho - 1 - log rho with rho = pi / pi_old,
    which estimates KL(pi_old || pi); both are 0 in the first update of a rollout. With a critic `value_error` is the
    mean (V - G)^2 / 2 of a token, the value loss without a clip.
    """
    kept = torch.from_numpy(builder.column(batch, "kept") > 0.5).to(batch.like.device)
    owner = torch.from_numpy(np.repeat(np.arange(len(batch.rows)), batch.counts)).to(batch.like.device)
    step = batch.values["log_prob"] - batch.values[OLD]
    of_tokens = {"drift": step.abs(), "approx_kl": step.clamp(max=LARGEST_LOG_RATIO).double().expm1() - step.double()}
    if RETURNS in batch.values:
        of_tokens["value_error"] = (batch.values["value"] - batch.values[RETURNS]).square() / 2
    moved = ScoredBatch(batch.rows, batch.counts, batch.lengths, of_tokens)
    lengths = torch.from_numpy(batch.lengths).to(batch.like.device)
    values = {
        "reward": torch.from_numpy(builder.column(batch, "reward")).to(batch.like.device),
        "log_prob": batch.sum("log_prob"),
        **{name: moved.sum(name) / lengths for name in of_tokens},
    }
    if "ref_log_prob" in batch.values:
        values["log_ratio"] = batch.log_ratio()
    return {
        name: means_by_row(value.double().where(kept, torch.nan), owner, len(batch.rows))
        for name, value in values.items()
    }


def count_kinds(builder: BatchBuilder, batch: ScoredBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the number of desirable and of other completions of each row, (rows,) each.

    None for pairs and lists.
    """
    rows = Rows(builder, batch)
    return rows.kinds() if rows.labeled else None


def implicit_rewards(objective: Objective, scored: Scored) -> tuple[Tensor, Tensor]:
    """Return float64 rewards of completions, and their rounding errors.

    A reward that is not finite is nan. Its rounding error is made of that of its log-prob and of its own last bits.
    """
    with attribute_errors(f"the implicit reward of {objective.name}", objective):
        reward = objective.implicit_reward(scored).double()
    finite = reward.isfinite()
    if not finite.all():
        count, name = int((~finite).sum()), objective.name
        warn_once(f"the implicit reward of {name} is not finite for {count:,} of {len(reward):,} completions")
        reward = reward.where(finite, torch.nan)
    moved = objective.implicit_reward(scored.moved(scored.tolerance)).double() - reward
    return reward, moved.abs().maximum(ULPS * torch.finfo(torch.float32).eps * reward.abs())


class Rows:
    """The completions of all rows, S in total, in one sequence, and their comparisons.

    If every row has several completions, each row compares its own. Else completions are desirable or not: a row's
    accuracy is then the share of the other kind's completions that are ordered correctly with respect to its own
    ("placements" of DeLong et al. 1988). The mean over one kind is the area under the curve. Ties count one half, in
    scores and in the data's ranks.
    """

    def __init__(self, builder: BatchBuilder, batch: ScoredBatch, test: NDArray[np.bool_] | None = None) -> None:
        self.count = builder.real(batch)
        self.index = concat_ranges(batch.first[:-1], self.count)
        """Positions of the completions in the batch, which may have mismatched sequences between them."""
        self.best = np.cumsum(self.count) - self.count
        self.worst = self.best + self.count - 1
        self.compared = builder.compared and bool((self.count > 1).all())
        """Depends on the data, not on the rows of one micro-batch."""
        self.labeled = not self.compared and "desirable" in builder.trees.columns
        self.place = builder.places(batch)[self.index]
        owner = np.repeat(np.arange(len(self.count)), self.count)
        self.owner = torch.from_numpy(owner)
        self.test = np.zeros(len(owner), dtype=bool) if test is None else test[owner]
        self.good = np.ones(len(owner), dtype=bool)
        if self.labeled:
            self.good = builder.column(batch, "desirable")[self.index] > 0.5

    def both(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """Return the values of the best and the worst completion, or the means over each kind."""
        if self.compared:
            return {f"chosen_{name}": values[self.best], f"rejected_{name}": values[self.worst]}
        good = torch.from_numpy(self.good).to(values.device)
        kinds = {"chosen": good, "rejected": ~good}
        return {f"{kind}_{name}": self._mean(values.where(own, torch.nan)) for kind, own in kinds.items() if own.any()}

    def kinds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the number of desirable and of other completions in each row, shape (rows,) each."""
        owner, count = self.owner.numpy(), len(self.count)
        good, bad = (np.bincount(owner[kind], minlength=count) for kind in (self.good, ~self.good))
        return good.astype(np.float64), bad.astype(np.float64)

    def ordered(self, score: Tensor, tolerance: Tensor) -> Tensor:
        """Return the share of each row's pairs of completions that the score orders correctly."""
        if self.labeled:
            return self._mean(self.placements(score, tolerance))
        found = score.new_zeros(len(self.count))
        for k in np.unique(self.count):
            rows = np.flatnonzero(self.count == k)
            own = self.best[rows][:, None] + np.arange(k)
            group = tie_groups(score[own], tolerance[own].amax(1, keepdim=True))
            place = torch.from_numpy(self.place[own]).to(group.device)
            right = [
                0.5 + 0.5 * (group[:, i] - group[:, j]).sign() * (place[:, j] - place[:, i]).sign()
                for i, j in combinations(range(int(k)), 2)
            ]
            found[torch.from_numpy(rows).to(found.device)] = torch.stack(right).double().mean(0)
        return found

    def with_any(self, marked: Tensor) -> Tensor:
        """Return True for rows with a marked completion.

        All rows are True if completions of different rows are compared.
        """
        if self.labeled:
            return torch.ones(len(self.count), dtype=torch.bool, device=marked.device)
        owner = self.owner.to(marked.device)
        return torch.zeros(len(self.count), device=marked.device).index_add(0, owner, marked.float()) > 0

    def margin(self, score: Tensor) -> Tensor:
        """Return best minus worst; for single completions the distance to the other kind's mean."""
        if self.compared:
            return score[self.best] - score[self.worst]
        found = torch.full_like(score, torch.nan)
        for own, other, sign in self._kinds():
            found[own] = (score[own] - score[other].mean()) * sign
        return self._mean(found)

    def placements(self, score: Tensor, tolerance: Tensor) -> Tensor:
        """Return the share of the other kind that each completion is ordered correctly with, (S,)."""
        found = torch.full_like(score, torch.nan)
        for own, other, sign in self._kinds():
            both = np.concatenate([own, other])
            group = tie_groups(score[both], tolerance[both])
            mine, others = group[: len(own)], group[len(own) :].sort().values
            below = torch.searchsorted(others, mine) + torch.searchsorted(others, mine, right=True)
            share = below.to(score) / 2 / len(others)
            found[own] = share if sign > 0 else 1 - share
        return found

    def _kinds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
        """Return (own kind, other kind, sign) on each side of the split; 1 is the desirable kind."""
        found = []
        for side, kind in product((False, True), repeat=2):
            own, other = (np.flatnonzero((self.good == k) & (self.test == side)) for k in (kind, not kind))
            if len(own) and len(other):
                found.append((own, other, 1 if kind else -1))
        return found

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean of each row's values other than nan, shape (rows,)."""
        return means_by_row(values, self.owner.to(values.device), len(self.count))


def means_by_row(values: Tensor, owner: Tensor, rows: int) -> Tensor:
    """Return the mean of each row's finite values, shape (rows,); nan without any."""
    known = values.isfinite()
    sums = values.new_zeros(rows).index_add(0, owner[known], values[known])
    return sums / owner[known].bincount(minlength=rows)
