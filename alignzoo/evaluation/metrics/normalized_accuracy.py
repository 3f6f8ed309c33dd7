"""Preference accuracy by length-normalized likelihood."""

from __future__ import annotations

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective


class NormalizedAccuracy(Metric):
    """Share of pairs whose chosen completion has the higher mean log-prob per token.

    Ties count one half.
    """

    name = "normalized_accuracy"
    source = "Meng et al. 2024 (SimPO), arXiv:2405.14734, section 2"
    equation = "[log pi(y_w) / |y_w| > log pi(y_l) / |y_l|]"

    def values(self, example: Pair, objective: Objective) -> Tensor:
        """Return 1, 0 or 0.5 for each pair, shape (B,)."""
        from alignzoo.interfaces.ties import wins

        sides = (example.chosen, example.rejected)
        chosen, rejected = (one.log_prob / one.length for one in sides)
        rounding = (one.tolerance / one.length for one in sides)
        return wins(chosen, rejected, next(rounding).maximum(next(rounding)))
