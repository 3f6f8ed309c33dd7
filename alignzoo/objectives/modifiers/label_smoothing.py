"""Label smoothing of any loss on pairs."""

from __future__ import annotations

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Field, Objective


class LabelSmoothing(Modifier):
    """Label smoothing: a mixture of the loss and that of the swapped pair."""

    name = "label_smoothing"
    source = "Mitchell 2023, 'A note on DPO with noisy preferences and relationship to IPO', equation 3"
    equation = "(1 - e) loss(y_w, y_l) + e loss(y_l, y_w), with e = epsilon"
    data = ("pair",)
    changes_log_ratio = False

    epsilon: float = Field(0.1, ge=0, lt=0.5, description="assumed fraction of flipped labels")

    def incompatible_with(self, objective: Objective) -> str:
        """Return an error for a loss of the whole batch: labels are flipped one by one."""
        if objective.scope == "example":
            return ""
        return f"label_smoothing mixes the losses of single pairs, and {objective.name} has a loss of the batch"

    def loss(self, objective: Objective, example: Pair) -> Tensor:
        """Return the loss mixed with that of the swapped pair, shape (B,)."""
        return (1 - self.epsilon) * objective.loss(example) + self.epsilon * objective.loss(example.swapped())
