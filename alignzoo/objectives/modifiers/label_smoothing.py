"""Label smoothing of any pairwise loss."""

from __future__ import annotations

from torch import Tensor

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Field, Objective


class LabelSmoothing(Modifier):
    """Assumes a share of the labels to be flipped: mixes the loss with that of the swapped pair."""

    name = "label_smoothing"
    source = "Mitchell 2023, 'A note on DPO with noisy preferences and relationship to IPO', equation 3"
    equation = "(1 - e) loss(y_w, y_l) + e loss(y_l, y_w), with e = share"
    data = ("pair",)
    changes_log_ratio = False

    epsilon: float = Field(0.1, ge=0, lt=0.5, description="assumed share of flipped labels")

    def incompatible_with(self, objective: Objective) -> str:
        """Labels are flipped one by one, which says nothing of a loss that is the whole batch's."""
        if objective.scope == "example":
            return ""
        return f"label_smoothing mixes the losses of single pairs, and {objective.name} has one of the batch"

    def loss(self, objective: Objective, example: Pair) -> Tensor:
        """Shape (B,)."""
        return (1 - self.epsilon) * objective.loss(example) + self.epsilon * objective.loss(example.swapped())
