"""Pairs whose labels may be wrong, or are worth different margins."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair
from alignzoo.interfaces import ties


class RobustDPO(Objective):
    """Robust DPO: an unbiased estimate of DPO's loss on clean labels, from labels of which a known share is flipped."""

    name = "robust_dpo"
    family = "label noise"
    source = "Chowdhury et al. 2024, arXiv:2403.00409, section 3.1"
    equation = "(-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1 - 2 e), with e = label_smoothing"
    already_applies = ("label_smoothing",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="share of flipped labels")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,); may be negative."""
        h, e = self.beta * pair.margin, self.label_smoothing
        return (-(1 - e) * logsigmoid(h) + e * logsigmoid(-h)) / (1 - 2 * e)


class ODPO(Objective):
    """DPO with an offset: a pair whose scores are far apart must be told apart by a larger margin."""

    name = "odpo"
    family = "label noise"
    source = "Amini et al. 2024, arXiv:2402.10571, section 3"
    equation = "-log sigmoid(beta h - alpha log(s_w - s_l)), with s the data's scores"
    columns = ("score",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(1.0, ge=0, description="weight of the offset; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,). Scores that don't rank the chosen completion higher count as almost equal."""
        apart = (pair.chosen.column("score") - pair.rejected.column("score")).clamp(min=1e-3)
        return -logsigmoid(self.beta * pair.margin - self.alpha * apart.log())


class DPOShift(Objective):
    """DPO-Shift: counts the rejected reward a little less, so that the chosen probability falls less."""

    name = "dpo_shift"
    family = "displacement"
    source = "Yang et al. 2025, arXiv:2502.07599, equation 3 with a constant f(lambda)"
    equation = "-log sigmoid(beta log_ratio_w - shift beta log_ratio_l)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    shift: float = Field(0.95, gt=0, le=1, description="what the rejected reward is multiplied by; 1 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -logsigmoid(self.beta * (pair.chosen.log_ratio - self.shift * pair.rejected.log_ratio))


class DPOP(Objective):
    """DPO-Positive (Smaug): DPO with a penalty where the chosen completion gets less likely than it was."""

    name = "dpop"
    family = "displacement"
    source = "Pal et al. 2024, arXiv:2402.13228, equation 3"
    equation = "-log sigmoid(beta (h - penalty max(0, -log_ratio_w)))"

    beta: float = Field(0.3, gt=0, description="strength of the KL constraint")
    penalty: float = Field(50.0, ge=0, description="the paper's lambda; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,). Where the policy is its reference, half of the penalty's slope counts."""
        fallen = ties.hinge(-pair.chosen.log_ratio, pair.chosen.tolerance)
        return -logsigmoid(self.beta * (pair.margin - self.penalty * fallen))


class RPO(Objective):
    """Iterative RPO's loss: DPO plus the chosen completion's negative log-likelihood per token."""

    name = "rpo"
    family = "displacement"
    source = "Pang et al. 2024 (Iterative Reasoning Preference Optimization), arXiv:2404.19733, equation 1"
    equation = "-log sigmoid(beta h) - alpha log pi(y_w) / |y_w|"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(1.0, ge=0, description="weight of the likelihood; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -logsigmoid(self.beta * pair.margin) - self.alpha * pair.chosen.log_prob / pair.chosen.length


class CalDPO(Objective):
    """Cal-DPO: the contrastive loss on raw log-ratios, with both rewards calibrated to +-1/(2 beta).

    The paper's loss. The authors' code (tengxiao1/Cal-DPO) counts the calibration half.
    """

    name = "cal_dpo"
    family = "displacement"
    source = "Xiao et al. 2024, arXiv:2412.14516"
    equation = "-log sigmoid(h) + (log_ratio_w - 1 / (2 beta))^2 + (log_ratio_l + 1 / (2 beta))^2"

    beta: float = Field(1e-3, gt=0, description="scale of the calibration: rewards are driven to +-1/(2 beta)")

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        goal = 1 / (2 * self.beta)
        calibration = (pair.chosen.log_ratio - goal) ** 2 + (pair.rejected.log_ratio + goal) ** 2
        return -logsigmoid(pair.margin) + calibration


NOISE = [RobustDPO, ODPO]
DISPLACEMENT = [DPOShift, DPOP, RPO, CalDPO]
