"""Conservative DPO."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.objective import Field, Objective


class CDPO(Objective):
    """Conservative DPO: cross-entropy with labels of which a fraction e may be flipped.

    When: a known fraction of the labels is flipped.

    Not when: labels are clean: margins are held back.
    """

    name = "cdpo"
    family = "label noise"
    source = "Mitchell 2023, 'A note on DPO with noisy preferences and relationship to IPO', equation 3"
    equation = "-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), with e = label_smoothing"
    already_applies = ("label_smoothing",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="assumed fraction of flipped labels; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). Its minimum is at beta h = log((1 - e) / e)."""
        h = self.beta * pair.margin
        return -(1 - self.label_smoothing) * logsigmoid(h) - self.label_smoothing * logsigmoid(-h)
