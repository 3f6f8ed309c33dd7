"""Functions of the margin other than DPO's log sigmoid, and losses on each log-ratio."""

from math import log, log1p

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair
from alignzoo_zoo.bounded import exp


class RSOHinge(Objective):
    """RSO's hinge loss on the normalized margin, which is zero from h = 1 / beta."""

    name = "rso_hinge"
    family = "link functions"
    source = "Liu et al. 2023 (RSO), arXiv:2309.06657, section 3 (hinge-norm)"
    equation = "max(0, 1 - beta h)"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint (the paper's gamma)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (1 - self.beta * pair.margin).relu()


class EXOPair(Objective):
    """EXO on pairs: the reverse KL divergence between the model's preference and the label."""

    name = "exo_pair"
    family = "link functions"
    source = "Ji et al. 2024, arXiv:2402.00856, equation 16"
    equation = "p (log p - log(1 - e)) + (1 - p)(log(1 - p) - log e), with p = sigmoid(beta h), e = label_smoothing"
    already_applies = ("label_smoothing",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    label_smoothing: float = Field(1e-3, gt=0, lt=0.5, description="the label is (1 - e, e); infinite loss for e = 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        h, e = self.beta * pair.margin, self.label_smoothing
        right = h.sigmoid() * (logsigmoid(h) - log1p(-e))
        return right + (-h).sigmoid() * (logsigmoid(-h) - log(e))


class DiscoPOP(Objective):
    """DiscoPOP: a blend of logistic and exponential loss, discovered by a language model.

    The loss is not monotone. At temperature 0.05 its slope by beta h at 0 is +0.78, so that a policy that starts at the
    reference first lowers the margin, toward a local minimum at beta h = -0.12.
    """

    name = "discopop"
    family = "link functions"
    source = "Lu et al. 2024, arXiv:2406.08414, equation 5"
    equation = "-(1 - m) log sigmoid(beta h) + m exp(-beta h), with m = sigmoid(beta h / temperature)"
    raises = "nothing"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint")
    temperature: float = Field(0.05, gt=0, description="width of the blend, in units of beta h")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). m exp(-z) is computed as exp(log m - z), which does not overflow."""
        z = self.beta * pair.margin
        gate = z / self.temperature
        return -(-gate).sigmoid() * logsigmoid(z) + exp(logsigmoid(gate) - z)


class SPPOHard(Objective):
    """SPPO with hard labels: squared losses that drive the log-ratios to +-1 / (2 beta)."""

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
    """

    name = "apo_down"
    family = "pointwise"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 8"
    equation = "sigmoid(beta log_ratio_w) + 1 - sigmoid(beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (self.beta * pair.chosen.log_ratio).sigmoid() + (-self.beta * pair.margin).sigmoid()


LINKS = [RSOHinge, EXOPair, DiscoPOP]
POINTWISE = [SPPOHard, NCAPair, BCOPair, APOZero, APODown]
