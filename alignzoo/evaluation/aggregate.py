"""Means over a global batch, or over the held-out rows: they don't depend on how the batch was cut."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks


class Tally:
    """Sums over micro-batches and ranks, in float64."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    @torch.no_grad()
    def add(self, values: dict[str, Tensor]) -> None:
        """Add one micro-batch's values: each name's mean is over the values that are numbers."""
        if not values:
            return
        whole = torch.stack([value.detach().double() for value in values.values()])
        totals = torch.stack([whole.nansum(1), (~whole.isnan()).sum(1).double()]).tolist()
        for name, total, count in zip(values, *totals, strict=True):
            if count:
                self._sums[name] = self._sums.get(name, 0.0) + total
                self._counts[name] = self._counts.get(name, 0) + count

    def add_total(self, name: str, value: float) -> None:
        """Add a part of something that is a sum by itself."""
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = math.nan

    def means(self) -> dict[str, float]:
        """The mean of every name, over all ranks; what was added as a total, as it is."""
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
    """Over the values that are numbers; not-a-number without any."""
    return float(values.double().nanmean())


def standard_error(values: Tensor) -> float:
    """Of a mean over independent examples, of those that are numbers."""
    values = values[~values.isnan()]
    return float(values.double().std(correction=0)) / math.sqrt(len(values)) if len(values) else math.nan
