"""Means over a global batch or over held-out rows, whatever the micro-batches."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks

Z = NormalDist().inv_cdf(0.975)
"""The normal's 97.5% quantile: half of a 95% interval, in standard errors."""


class Tally:
    """Sums over micro-batches and ranks, in float64."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    @torch.no_grad()
    def add(self, values: dict[str, Tensor]) -> None:
        """Add the values of one micro-batch; nan values do not count."""
        if not values:
            return
        stacked = torch.stack([value.detach().double() for value in values.values()])
        totals = torch.stack([stacked.nansum(1), (~stacked.isnan()).sum(1).double()]).tolist()
        for name, total, count in zip(values, *totals, strict=True):
            if count:
                self._sums[name] = self._sums.get(name, 0.0) + total
                self._counts[name] = self._counts.get(name, 0) + count

    def add_total(self, name: str, value: float) -> None:
        """Add a part of a total, which is not divided by a count."""
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = math.nan

    def means(self) -> dict[str, float]:
        """Return the mean of every name over all ranks; totals are summed."""
        if self._ranks is not None and self._ranks.count > 1:
            parts = self._ranks.all_gather((self._sums, self._counts))
            names = list(dict.fromkeys(name for sums, _ in parts for name in sums))
            self._sums = {name: sum(sums.get(name, 0.0) for sums, _ in parts) for name in names}
            self._counts = {name: sum(counts.get(name, 0) for _, counts in parts) for name in names}
        return {
            name: total if math.isnan(self._counts[name]) else total / self._counts[name]
            for name, total in self._sums.items()
        }


def mean(values: Tensor) -> float:
    """Return the mean of the values other than nan; nan without any."""
    return float(values.double().nanmean())


def standard_error(values: NDArray[Any], cluster: NDArray[np.int64]) -> float:
    """Return the standard error of the mean of the values other than nan, clustered.

    Values of one cluster, such as a prompt, may depend on each other. With one value a cluster it is that of
    independent values; nan with fewer than two clusters.

    Source: Liang and Zeger 1986, Biometrika 73, with the factor C / (C - 1) for C clusters.
    """
    known = ~np.isnan(values)
    values, cluster = values[known], cluster[known]
    clusters, own = np.unique(cluster, return_inverse=True)
    count = len(clusters)
    if count < 2:
        return math.nan
    sums = np.bincount(own, values - values.mean())
    return math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(values)
