"""Objectives for pairs whose completions are labeled safe or unsafe: the column `safe` is 1 or 0."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


class SafeDPO(Objective):
    """SafeDPO: DPO on relabeled pairs, with a margin between safe and unsafe completions.

    If only the chosen completion is unsafe, the labels are swapped. A pair of two unsafe ones has no loss and no weight
    in the mean, as if it were dropped. The paper's main runs have delta = 10, and it compares 0 to 20. The authors'
    code is not public.

    When: unsafe completions must lose whatever the helpfulness label says.

    Not when: safety is a matter of degree.
    """

    name = "safe_dpo"
    family = "safety"
    source = "Kim et al. 2025, arXiv:2505.20065, equations 11 and 12"
    equation = "-log sigmoid(beta h - delta [one is unsafe]), h swapped if only y_w is unsafe; 0 if both are"
    flags = ("safe",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    delta: float = Field(10.0, ge=0, description="margin between a safe and an unsafe completion; 0 only relabels")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = (one.flag("safe") for one in (pair.chosen, pair.rejected))
        z = self.beta * pair.margin.where(chosen | ~rejected, -pair.margin)
        return -logsigmoid((z - self.delta).where(chosen ^ rejected, z)) * (chosen | rejected)

    def weight(self, pair: Pair) -> Tensor:
        """Return 0 for pairs of two unsafe completions, else 1, shape (B,)."""
        return (pair.chosen.flag("safe") | pair.rejected.flag("safe")).to(pair.chosen.length)


class BFPO(Objective):
    """BFPO: a squared loss whose target is lower the less safe the chosen completion is.

    With the defaults the target is (safe, unsafe) 1 / beta, both safe 1 / (2 beta), which is IPO, both unsafe -1 / (2
    beta) and (unsafe, safe) -1 / beta. The authors also replay safety data. Their configuration has beta = 0.01.

    When: helpfulness labels and safety labels should be weighed in one loss.

    Not when: an unsafe completion must never win: `safe_dpo` swaps it.
    """

    name = "bfpo"
    family = "safety"
    source = "Zhang et al. 2024, arXiv:2408.15313"
    equation = "(h - f / beta)^2, f = (b1 safe_w - safe_l) / (b1 - 1) - alpha"
    flags = ("safe",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint; IPO's tau for two safe completions")
    b1: float = Field(3.0, gt=1, description="weight of the chosen completion's safety")
    alpha: float = Field(0.5, ge=0, description="shift of the target")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        safe = self.b1 * pair.chosen.column("safe") - pair.rejected.column("safe")
        return (pair.margin - (safe / (self.b1 - 1) - self.alpha) / self.beta) ** 2


SAFETY = [SafeDPO, BFPO]
