"""XPO: online DPO with a bonus for exploration."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


class XPO(Objective):
    """XPO: DPO between a draw of the policy and one of the reference, and less likelihood for the reference's draw.

    When: rewards are cheap to ask for, and good replies are ones that the reference hardly ever writes.

    Not when: the policy must stay close to its start: the bonus pushes it away.
    """

    name = "xpo"
    family = "pairs of draws"
    source = "Xie et al. 2024, arXiv:2405.21046, algorithm 1"
    equation = "-log sigmoid(beta h) + alpha log pi(y_ref), with y_ref the one of the two that the reference has drawn"
    drawn_by = ("policy", "reference")

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(1e-5, ge=0, description="strength of the bonus; TRL uses 1e-5")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        bonus = [one.drawn_by("reference") * one.log_prob for one in (pair.chosen, pair.rejected)]
        return -logsigmoid(self.beta * pair.margin) + self.alpha * (bonus[0] + bonus[1])
