"""Reward models: a scalar head in place of the language model head, one score per completion."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


class BradleyTerry(Objective):
    """The Bradley-Terry reward model of RLHF: a logistic loss on the difference of scores.

    The loss does not determine the mean of the scores. Centering keeps it near 0 and hardly changes differences. It is
    on by default with the weight 0.01, which TRL recommends; in TRL it is off by default.
    """

    name = "bradley_terry"
    family = "reward models"
    source = "Rafailov et al. 2023, arXiv:2305.18290, equation 2; centering: Eisenstein et al. 2023, arXiv:2312.09244"
    equation = "-log sigmoid(s_w - s_l) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"

    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        return -logsigmoid(chosen - rejected) + self.centering * (chosen + rejected) ** 2


class BradleyTerryMargin(Objective):
    """The Bradley-Terry reward model with a margin from the data for each pair."""

    name = "bradley_terry_margin"
    family = "reward models"
    source = "Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2"
    equation = "-log sigmoid(s_w - s_l - margin) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"
    columns = ("margin",)

    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        apart = chosen - rejected - pair.column("margin")
        return -logsigmoid(apart) + self.centering * (chosen + rejected) ** 2


REWARD_MODELS = [BradleyTerry, BradleyTerryMargin]
