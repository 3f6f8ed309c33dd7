"""Means over a global batch, or over the held-out rows: they don't depend on how the batch was cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from alignzoo.arrays import ranges
from alignzoo.examples import Flat, Supply
from alignzoo.objective import Scored
from alignzoo.ranks import Ranks


def correct(better: Tensor, worse: Tensor) -> Tensor:
    """1 where `better` is larger, 0 where it is smaller, one half where they tie (all of step 0, by definition)."""
    return 0.5 * ((better > worse).double() + (better >= worse).double())


@torch.no_grad()
def describe(supply: Supply, flat: Flat) -> dict[str, Tensor]:
    """What is known of each row besides its loss: rewards, log-ratios and log-probs of its best completion ("chosen")
    and its worst one ("rejected"), by the first term's implicit reward; where some rows of the data have a single
    completion, of the desirable ones and of the others. Shape (rows,), or the number of completions of the kind."""
    objective = supply.objective.terms[0][1]
    first, counts = flat.first[:-1], supply.real(flat)
    compared = supply.compared and bool((counts > 1).all())  # the data decides, not the rows of one micro-batch
    values: dict[str, Tensor] = {}

    def of(name: str, index: np.ndarray) -> None:
        one = supply.scored(flat, objective, index)
        if objective.head == "language_model":
            values[f"{name}_log_prob"] = one.log_prob
            if objective.reference != "none":
                values[f"{name}_log_ratio"] = one.log_prob - one.ref_log_prob
        if objective.data != "chosen" or compared:
            values[f"{name}_reward"] = objective.reward(one)

    if compared:
        of("chosen", first)
        of("rejected", first + counts - 1)
    elif "desirable" in supply.trees.columns:
        index = ranges(first, counts)
        desirable = supply.column(flat, "desirable")[index] > 0.5
        for name, of_kind in (("chosen", index[desirable]), ("rejected", index[~desirable])):
            if len(of_kind):
                of(name, of_kind)
    else:
        of("chosen", first)
    if "rejected_reward" in values and compared:
        values["margin"] = values["chosen_reward"] - values["rejected_reward"]
        values["accuracy"] = concordance(supply, flat, objective.reward)
    return values


def concordance(supply: Supply, flat: Flat, value: Callable[[Scored], Tensor]) -> Tensor:
    """For each row, the share of its pairs of completions that a value orders as the data does."""
    objective = supply.objective.terms[0][1]
    first, counts = flat.first[:-1], supply.real(flat)
    if (counts == 2).all():
        chosen, rejected = (value(supply.scored(flat, objective, first + i)) for i in (0, 1))
        return correct(chosen, rejected)
    total = torch.zeros(len(counts), dtype=torch.float64)
    for k in np.unique(counts):
        rows = np.flatnonzero(counts == k)
        values = value(supply.scored(flat, objective, first[rows][:, None] + np.arange(k))).cpu()
        pairs = [correct(values[:, i], values[:, j]) for i, j in combinations(range(int(k)), 2)]
        total[rows] = torch.stack(pairs).mean(0)
    return total


class Tally:
    """Sums over micro-batches and ranks, in float64."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    @torch.no_grad()
    def add(self, values: dict[str, Tensor]) -> None:
        """Add one micro-batch's values: each name's mean is over as many as were given."""
        sums = (
            torch.stack([value.detach().double().sum().cpu() for value in values.values()]).tolist() if values else []
        )
        for (name, value), total in zip(values.items(), sums, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._counts[name] = self._counts.get(name, 0) + value.numel()

    def add_total(self, name: str, value: float) -> None:
        """Add a part of something that is a sum by itself."""
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = math.nan

    def means(self) -> dict[str, float]:
        """The mean of every name, over all ranks; what was added as a total, as it is."""
        if self._ranks is not None and self._ranks.count > 1:
            parts = self._ranks.everyone((self._sums, self._counts))
            names = list(dict.fromkeys(name for sums, _ in parts for name in sums))
            self._sums = {name: sum(sums.get(name, 0.0) for sums, _ in parts) for name in names}
            self._counts = {name: sum(counts.get(name, 0) for _, counts in parts) for name in names}
        return {
            name: total if math.isnan(self._counts[name]) else total / self._counts[name]
            for name, total in self._sums.items()
        }


def standard_error(values: Tensor) -> float:
    """Of a mean over independent examples."""
    return float(values.double().std(correction=0)) / math.sqrt(len(values)) if len(values) else math.nan
