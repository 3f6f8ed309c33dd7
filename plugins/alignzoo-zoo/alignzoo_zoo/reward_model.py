"""Reward models: a scalar head on the policy's body, one number a completion."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


class BradleyTerry(Objective):
    """The Bradley-Terry reward model that RLHF trains first: the chosen score must exceed the rejected one.

    Centering is on by default, at the 0.01 that TRL recommends; TRL's own default is none. It fixes the constant that
    the loss leaves free and hardly moves differences.
    """

    name = "bradley_terry"
    family = "reward models"
    source = "Rafailov et al. 2023, arXiv:2305.18290, equation 2; centering: Eisenstein et al. 2023, arXiv:2312.09244"
    equation = "-log sigmoid(s_w - s_l) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"

    centering: float = Field(0.01, ge=0, description="keeps the scores' mean near 0, where the loss leaves it free")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        return -logsigmoid(chosen - rejected) + self.centering * (chosen + rejected) ** 2


class BradleyTerryMargin(Objective):
    """The Bradley-Terry reward model with a margin of each pair's own, from the data."""

    name = "bradley_terry_margin"
    family = "reward models"
    source = "Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2"
    equation = "-log sigmoid(s_w - s_l - margin) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"
    columns = ("margin",)

    centering: float = Field(0.01, ge=0, description="keeps the scores' mean near 0, where the loss leaves it free")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        apart = chosen - rejected - pair.column("margin")
        return -logsigmoid(apart) + self.centering * (chosen + rejected) ** 2


REWARD_MODELS = [BradleyTerry, BradleyTerryMargin]
