"""A model that a run trains: the policy, or the critic beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignzoo.scoring.scorer import Scorer
from alignzoo.training.optimizers import RATE_FACTOR


@dataclass(frozen=True)
class Learner:
    """A scorer with its model's optimizer, peak learning rate and gradient limit."""

    scorer: Scorer
    optimizer: torch.optim.Optimizer
    learning_rate: float
    max_grad_norm: float | None = None
    """Limit of the norm of this learner's gradient; None: no clipping."""

    def set_rate(self, factor: float) -> float:
        """Set the learning rate to `factor` times its peak, and return it."""
        rate = self.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get(RATE_FACTOR, 1.0)
        return rate
