"""Figures of each row: rewards, log-ratios, margins, and how a score orders the row's completions.

A step, an evaluation and a comparison report means of these, over the rows that have the figure.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.arrays import concat_ranges
from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.ties import ULPS, tie_groups
from alignzoo.scoring.batches import BatchBuilder, ScoredBatch


@torch.no_grad()
def row_metrics(
    supply: BatchBuilder,
    flat: ScoredBatch,
    orders: Collection[str],
    pooled: bool = False,
    test: NDArray[np.bool_] | None = None,
) -> dict[str, Tensor]:
    """Name -> (rows,) float64, not-a-number where a row has no such figure. Names that no row has are left out.

    `chosen_*` and `rejected_*` are of a row's best and worst completion, by the first term's implicit reward; where
    rows of the data have a single completion, means over the row's desirable and undesirable ones. `orders` names the
    accuracies wanted: `preference_accuracy`, `likelihood_accuracy`, `length_normalized_accuracy`. With `pooled`, a
    single completion is compared with those of the other kind on its side of the split that `test` gives.
    """
    rows = Rows(supply, flat, test)
    objective = supply.objective.terms[0][1]
    scored = supply.scored(flat, objective, rows.index)
    found: dict[str, Tensor] = {}
    scores: dict[str, tuple[Tensor, Tensor]] = {}
    if objective.data != "chosen" or rows.compared or (pooled and rows.labeled):
        reward = objective.implicit_reward(scored).double()
        scores["preference_accuracy"] = reward, _reward_tolerance(objective, scored, reward)
        found |= rows.both("reward", reward)
    if objective.head == "language_model":
        log_prob, length = scored.log_prob.double(), scored.length.double()
        scores["likelihood_accuracy"] = log_prob, scored.tolerance.double()
        scores["length_normalized_accuracy"] = log_prob / length, scored.tolerance.double() / length
        found |= rows.both("log_prob", log_prob)
        if "ref_log_prob" in flat.values:
            found |= rows.both("log_ratio", flat.log_ratio()[torch.from_numpy(rows.index)].double())
    if rows.compared or (pooled and rows.labeled):
        found |= {name: rows.ordered(*score) for name, score in scores.items() if name in orders}
        if "preference_accuracy" in scores:
            found["margin"] = rows.margin(scores["preference_accuracy"][0])
    return found


def step_metrics(supply: BatchBuilder, flat: ScoredBatch) -> dict[str, Tensor]:
    """What a training step reports of its rows besides the loss."""
    found = row_metrics(supply, flat, ("preference_accuracy",))
    return {name.removeprefix("preference_"): value for name, value in found.items()}


def desirable_rows(supply: BatchBuilder, flat: ScoredBatch) -> tuple[Tensor, Tensor] | None:
    """(rows,) twice, bool: rows whose best completion is desirable, and the others; None for pairs and lists."""
    rows = Rows(supply, flat)
    good = torch.from_numpy(rows.good[rows.best])
    return (good, ~good) if rows.labeled else None


def _reward_tolerance(objective: Objective, scored: Scored, reward: Tensor) -> Tensor:
    """Rounding of a reward: how far it moves when its log-prob moves by the rounding of one, and its own last bits."""
    moved = objective.implicit_reward(scored.moved(scored.tolerance)).double() - reward
    return moved.abs().maximum(ULPS * torch.finfo(torch.float32).eps * reward.abs())


class Rows:
    """The rows' own completions, S in all, one after the other, and how they are compared.

    Where every row has several, each row compares its own. Else there are desirable completions and others: a row's
    accuracy is then the share of the completions of the other kind on its side of the split that stand on the right
    side of its own (DeLong et al. 1988, "placements"), and the mean over the completions of one kind is the area under
    the curve. Ties, in a score or in the data's ranks, count one half.
    """

    def __init__(self, supply: BatchBuilder, flat: ScoredBatch, test: NDArray[np.bool_] | None = None) -> None:
        self.count = supply.real(flat)
        self.index = concat_ranges(flat.first[:-1], self.count)
        """Places of the completions among the flat's sequences, which may have mismatched ones between them."""
        self.best = np.cumsum(self.count) - self.count
        self.worst = self.best + self.count - 1
        self.compared = supply.compared and bool((self.count > 1).all())
        """The data decides this, not the rows of one micro-batch."""
        self.labeled = not self.compared and "desirable" in supply.trees.columns
        self.place = supply.places(flat)[self.index]
        owner = np.repeat(np.arange(len(self.count)), self.count)
        self.owner = torch.from_numpy(owner)
        self.test = np.zeros(len(owner), dtype=bool) if test is None else test[owner]
        self.good = np.ones(len(owner), dtype=bool)
        if self.labeled:
            self.good = supply.column(flat, "desirable")[self.index] > 0.5

    def both(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """Of the best and the worst completion, or the means over each kind."""
        if self.compared:
            return {f"chosen_{name}": values[self.best], f"rejected_{name}": values[self.worst]}
        good = torch.from_numpy(self.good).to(values.device)
        kinds = {"chosen": good, "rejected": ~good}
        return {f"{kind}_{name}": self._mean(values.where(own, torch.nan)) for kind, own in kinds.items() if own.any()}

    def kinds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How many desirable completions and how many others each row has, shape (rows,) each."""
        owner, count = self.owner.numpy(), len(self.count)
        good, bad = (np.bincount(owner[kind], minlength=count) for kind in (self.good, ~self.good))
        return good.astype(np.float64), bad.astype(np.float64)

    def ordered(self, score: Tensor, tolerance: Tensor) -> Tensor:
        """The share of each row's couples of completions that the score orders as the data does."""
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

    def margin(self, score: Tensor) -> Tensor:
        """The best less the worst; of single completions the distance to the mean of the other kind, on its side."""
        if self.compared:
            return score[self.best] - score[self.worst]
        found = torch.full_like(score, torch.nan)
        for own, other, sign in self._kinds():
            found[own] = (score[own] - score[other].mean()) * sign
        return self._mean(found)

    def placements(self, score: Tensor, tolerance: Tensor) -> Tensor:
        """(S,) the share of the other kind's completions, on its side, that stand on the right side of each."""
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
        """Places of the completions of one kind and of the other, on either side of the split; 1 for the good kind."""
        found = []
        for side, kind in product((False, True), repeat=2):
            own, other = (np.flatnonzero((self.good == k) & (self.test == side)) for k in (kind, not kind))
            if len(own) and len(other):
                found.append((own, other, 1 if kind else -1))
        return found

    def _mean(self, values: Tensor) -> Tensor:
        """(rows,) the mean over each row's values that are numbers."""
        return means_by_row(values, self.owner.to(values.device), len(self.count))


def means_by_row(values: Tensor, owner: Tensor, rows: int) -> Tensor:
    """(rows,) the mean of each row's values that are numbers; not-a-number where there are none."""
    known = values.isfinite()
    sums = values.new_zeros(rows).index_add(0, owner[known], values[known])
    return sums / owner[known].bincount(minlength=rows)
