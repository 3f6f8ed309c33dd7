"""Direct Preference Optimization."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo.interfaces.loss_inputs import Pair
from alignzoo.interfaces.objective import Field, Objective


class DPO(Objective):
    """Direct Preference Optimization: a logistic loss on the difference of the log-ratios.

    When: pairs with labels that you trust; the baseline of every comparison.

    Not when: many labels are flipped, or the chosen likelihood must not fall.
    """

    name = "dpo"
    family = "link functions"
    source = "Rafailov et al. 2023, arXiv:2305.18290, equation 7"
    equation = "-log sigmoid(beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint; the paper uses 0.1, and 0.5 for TL;DR")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * pair.margin)
