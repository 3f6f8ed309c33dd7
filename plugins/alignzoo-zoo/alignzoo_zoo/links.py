"""Other functions of the margin than DPO's log sigmoid."""

from math import log, log1p

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair
from alignzoo_zoo.bounded import exp


class RSOHinge(Objective):
    """RSO's hinge loss on the normalized margin: pairs that are right by 1/beta or more are left alone."""

    name = "rso_hinge"
    family = "link functions"
    source = "Liu et al. 2023 (RSO), arXiv:2309.06657, section 3 (hinge-norm)"
    equation = "max(0, 1 - beta h)"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint (the paper's gamma)")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return (1 - self.beta * pair.margin).relu()


class EXOPair(Objective):
    """EXO on pairs: the reverse KL from the model's preference to the smoothed label; DPO takes the forward one."""

    name = "exo_pair"
    family = "link functions"
    source = "Ji et al. 2024, arXiv:2402.00856, equation 16"
    equation = "p (log p - log(1 - e)) + (1 - p)(log(1 - p) - log e), with p = sigmoid(beta h), e = label_smoothing"
    already_applies = ("label_smoothing",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    label_smoothing: float = Field(1e-3, gt=0, lt=0.5, description="the label is 1 - e and e: 0 would be infinite")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        h, e = self.beta * pair.margin, self.label_smoothing
        right = h.sigmoid() * (logsigmoid(h) - log1p(-e))
        return right + (-h).sigmoid() * (logsigmoid(-h) - log(e))


class DiscoPOP(Objective):
    """DiscoPOP: the log-ratio modulated loss that a language model discovered, between logistic and exponential.

    It is not monotone: at temperature 0.05 its slope by beta h at 0 is +0.78, so that a policy that is its reference
    first lowers the margin, towards a local minimum at beta h = -0.12.
    """

    name = "discopop"
    family = "link functions"
    source = "Lu et al. 2024, arXiv:2406.08414, equation 5"
    equation = "-(1 - m) log sigmoid(beta h) + m exp(-beta h), with m = sigmoid(beta h / temperature)"
    raises = "nothing"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint")
    temperature: float = Field(0.05, gt=0, description="how sharply the two are told apart")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,). m exp(-z) is written as exp(log m - z): for a negative z alone the second factor overflows."""
        z = self.beta * pair.margin
        gate = z / self.temperature
        return -(-gate).sigmoid() * logsigmoid(z) + exp(logsigmoid(gate) - z)


class SPPOHard(Objective):
    """SPPO with hard labels: drives both log-ratios to +-1/(2 beta), each by itself."""

    name = "sppo_hard"
    family = "pointwise"
    source = "Wu et al. 2024, arXiv:2405.00675, equation 4.7 with the win rate set to 1 and 0"
    equation = "(log_ratio_w - 1 / (2 beta))^2 + (log_ratio_l + 1 / (2 beta))^2"

    beta: float = Field(1e-3, gt=0, description="the paper's 1/eta: log-ratios are driven to +-1/(2 beta)")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,). Of order 1/beta^2: learning rate and clipping must fit."""
        goal = 1 / (2 * self.beta)
        return (pair.chosen.log_ratio - goal) ** 2 + (pair.rejected.log_ratio + goal) ** 2


class NCAPair(Objective):
    """NCA on pairs: noise contrastive alignment, which also keeps the chosen likelihood from falling.

    The same loss as the authors' code (thu-ml/Noise-Contrastive-Alignment) and TRL's; beta is the authors', 0.01.
    """

    name = "nca_pair"
    family = "pointwise"
    source = "Chen et al. 2024, arXiv:2402.05369, section 4 and table 1, for K = 2"
    equation = "-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2, with r = beta log_ratio"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint; the paper has 0.01, 0.1 for reasoning")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        chosen, rejected = self.beta * pair.chosen.log_ratio, self.beta * pair.rejected.log_ratio
        return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))


class BCOPair(Objective):
    """BCO's classifier on pairs without its reward shift, as in TRL and Liger-Kernel; `bco` has the shift."""

    name = "bco_pair"
    family = "pointwise"
    source = "Jung et al. 2024, arXiv:2404.04656, equation 6: the bound on DPO's loss, before the reward shift"
    equation = "-log sigmoid(beta log_ratio_w) - log sigmoid(-beta log_ratio_l)"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -logsigmoid(self.beta * pair.chosen.log_ratio) - logsigmoid(-self.beta * pair.rejected.log_ratio)


class APOZero(Objective):
    """APO-zero: raises the chosen likelihood, lowers the rejected one; for chosen answers better than the model's."""

    name = "apo_zero"
    family = "pointwise"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7"
    equation = "-sigmoid(beta log_ratio_w) + sigmoid(beta log_ratio_l) + 1"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return (-self.beta * pair.chosen.log_ratio).sigmoid() + (self.beta * pair.rejected.log_ratio).sigmoid()


class APODown(Objective):
    """APO-down: lowers both, the rejected one more; for chosen answers worse than the model's."""

    name = "apo_down"
    family = "pointwise"
    source = "D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 8"
    equation = "sigmoid(beta log_ratio_w) + 1 - sigmoid(beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return (self.beta * pair.chosen.log_ratio).sigmoid() + (-self.beta * pair.margin).sigmoid()


LINKS = [RSOHinge, EXOPair, DiscoPOP]
POINTWISE = [SPPOHard, NCAPair, BCOPair, APOZero, APODown]
