"""Entropy of the policy's next-token distribution."""

from __future__ import annotations

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Scored
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective


class Entropy(Metric):
    """Entropy of the policy's next token, in nats, averaged over the chosen completion.

    It falls as a policy collapses to a few phrases.
    """

    name = "entropy"
    source = "Shannon 1948, 'A mathematical theory of communication'"
    equation = "mean_t -sum_v pi(v) log pi(v)"
    data = "chosen"
    tokens = True
    statistics = ("entropy",)

    def values(self, example: Scored, objective: Objective) -> Tensor:
        """Return the mean entropy of each example, shape (B,)."""
        return example.tokens.mean(example.tokens.entropy)
