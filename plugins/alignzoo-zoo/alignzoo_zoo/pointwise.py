"""Losses on each log-ratio: the sum of a term of the chosen completion and one of the rejected completion."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair
from alignzoo_zoo.bounded import exp


class SPPOHard(Objective):
    """SPPO with hard labels: squared losses that drive the log-ratios to +-1 / (2 beta).

    When: win rates are unknown and the chosen completion is a sure winner.

    Not when: win rates are known: `sppo` uses them.
    """

    name = "sppo_hard"
    family = "pointwise"
    source = "Wu et al. 2024, arXiv:2405.00675, equation 4.7 with the win rate set to 1 and 0"
    equation = "(log_ratio_w - 1 / (2 beta))^2 + (log_ratio_l + 1 / (2 beta))^2"

    beta: float = Field(1e-3, gt=0, description="the paper's 1/eta: log-ratios are driven to +-1/(2 beta)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It is of order 1 / beta^2, which the learning rate must fit."""
        goal = 1 / (2 * self.beta)
        return (pair.chosen.log_ratio - goal) ** 2 + (pair.rejected.log_ratio + goal) ** 2


class NCAPair(Objective):
    """NCA on pairs: noise contrastive alignment, which keeps the chosen likelihood up.

    The loss equals that of TRL and of the authors' code (thu-ml/Noise-Contrastive-Alignment), whose beta is 0.01.

    When: the chosen likelihood should not fall.

    Not when: only the ranking counts.
    """

    name = "nca_pair"
    family = "pointwise"
    source = "Chen et al. 2024, arXiv:2402.05369, section 4 and table 1, for K = 2"
    equation = "-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2, with r = beta log_ratio"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint; 0.01 in the paper, 0.1 for reasoning")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = self.beta * pair.chosen.log_ratio, self.beta * pair.rejected.log_ratio
        return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))


class BCOPair(Objective):
    """BCO's binary classifier on pairs, without the reward shift of `bco`.

    TRL and Liger-Kernel have the same loss under this name.

    When: each reward should have the right sign by itself, also as a quality term of a sum.

    Not when: rewards have an offset: `bco` shifts it away.
    """

    name = "bco_pair"
    family = "pointwise"
    source = "Jung et al. 2024, arXiv:2404.04656, equation 6: the bound on DPO's loss, before the reward shift"
    equation = "-log sigmoid(beta log_ratio_w) - log sigmoid(-beta log_ratio_l)"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * pair.chosen.log_ratio) - logsigmoid(-self.beta * pair.rejected.log_ratio)


class APOZero(Objective):
    """APO-zero: a loss that raises the chosen log-ratio and lowers the rejected one.

    The paper recommends it if the chosen answers are better than the model's.

    When: the chosen completions are better than the policy's own.

    Not when: the policy is already better: see `apo_down`.
    """

    name = "apo_zero"
    family = "pointwise"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7"
    equation = "-sigmoid(beta log_ratio_w) + sigmoid(beta log_ratio_l) + 1"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (-self.beta * pair.chosen.log_ratio).sigmoid() + (self.beta * pair.rejected.log_ratio).sigmoid()


class APODown(Objective):
    """APO-down: a loss that lowers both log-ratios, the rejected one more.

    The paper recommends it if the chosen answers are worse than the model's.

    When: the policy's own completions are better than the chosen ones.

    Not when: the chosen completions should be imitated.
    """

    name = "apo_down"
    family = "pointwise"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 8"
    equation = "sigmoid(beta log_ratio_w) + 1 - sigmoid(beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (self.beta * pair.chosen.log_ratio).sigmoid() + (-self.beta * pair.margin).sigmoid()


class DIL(Objective):
    """DIL: imitation of the chosen completions by density-ratio estimation, with LSIF or UKL.

    The paper's third estimator, BCE, is `bco_pair` with beta = 1. The authors' code (tengxiao1/DIL) trains with LSIF;
    its script passes a beta that the loss does not read. Exponentials are linear beyond an exponent of 20.

    When: to imitate chosen completions with the rejected ones as the contrast.

    Not when: log-ratios may grow: the loss has no lower bound.
    """

    name = "dil"
    family = "pointwise"
    source = "Xiao et al. 2025, arXiv:2503.05079"
    equation = "lsif: -e^log_ratio_w + e^(2 log_ratio_l) / 2; ukl: -log pi_w + e^log_ratio_l"

    estimator: Literal["lsif", "ukl"] = Field("lsif", description="loss of the density ratio; lsif is the authors'")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It has no lower bound."""
        if self.estimator == "ukl":
            return -pair.chosen.log_prob + exp(pair.rejected.log_ratio)
        return -exp(pair.chosen.log_ratio) + exp(2 * pair.rejected.log_ratio) / 2


POINTWISE = [SPPOHard, NCAPair, BCOPair, APOZero, APODown, DIL]
