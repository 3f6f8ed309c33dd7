"""Objectives for noisy or graded labels, and against the fall of the chosen likelihood."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, ties
from alignzoo_zoo.links import Link, linked


class RobustDPO(Objective):
    """Robust DPO: an unbiased estimate, from noisy labels, of DPO's loss on clean ones.

    When: a known fraction of the labels is flipped at random, and the mean loss should be unbiased.

    Not when: the fraction is unknown or near one half: the loss grows without bound.
    """

    name = "robust_dpo"
    family = "label noise"
    source = "Chowdhury et al. 2024, arXiv:2403.00409, section 3.1"
    equation = "(-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1 - 2 e), with e = label_smoothing"
    already_applies = ("label_smoothing",)

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="fraction of flipped labels")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It may be negative."""
        h, e = self.beta * pair.margin, self.label_smoothing
        return (-(1 - e) * logsigmoid(h) + e * logsigmoid(-h)) / (1 - 2 * e)


class ODPO(Objective):
    """ODPO: DPO with an offset that grows with the difference of the data's scores.

    When: scores say by how much a completion is better.

    Not when: the scores' unit is arbitrary or their gaps are often zero.
    """

    name = "odpo"
    family = "label noise"
    source = "Amini et al. 2024, arXiv:2402.10571, section 3"
    equation = "-log sigmoid(beta h - alpha log(s_w - s_l)), with s the data's scores"
    columns = ("score",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(1.0, ge=0, description="weight of the offset; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The difference of scores is at least 1e-3."""
        apart = (pair.chosen.column("score") - pair.rejected.column("score")).clamp(min=1e-3)
        return -logsigmoid(self.beta * pair.margin - self.alpha * apart.log())


class DPOShift(Objective):
    """DPO-Shift: DPO with the rejected reward multiplied by a factor of at most 1.

    When: the chosen likelihood falls in DPO.

    Not when: the ranking is all that counts: a smaller shift gives some of it up.
    """

    name = "dpo_shift"
    family = "displacement"
    source = "Yang et al. 2025, arXiv:2502.07599, equation 3 with a constant f(lambda)"
    equation = "-log sigmoid(beta log_ratio_w - shift beta log_ratio_l)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    shift: float = Field(0.95, gt=0, le=1, description="factor of the rejected reward; 1 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * (pair.chosen.log_ratio - self.shift * pair.rejected.log_ratio))


class DPOP(Objective):
    """DPO-Positive (Smaug): DPO with a penalty on a negative chosen log-ratio.

    When: chosen and rejected completions are nearly the same text, as in mathematics.

    Not when: chosen completions should be free to become less likely.
    """

    name = "dpop"
    family = "displacement"
    source = "Pal et al. 2024, arXiv:2402.13228, equation 3"
    equation = "-log sigmoid(beta (h - penalty max(0, -log_ratio_w)))"

    beta: float = Field(0.3, gt=0, description="strength of the KL constraint")
    penalty: float = Field(50.0, ge=0, description="the paper's lambda; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The slope of the penalty is halved where the policy equals the reference."""
        fallen = ties.hinge(-pair.chosen.log_ratio, pair.chosen.tolerance)
        return -logsigmoid(self.beta * (pair.margin - self.penalty * fallen))


class RPO(Objective):
    """Iterative RPO: DPO plus the chosen completion's negative log-likelihood per token.

    When: reasoning chains, or whenever the chosen likelihood falls.

    Not when: chosen completions are not good enough to imitate.
    """

    name = "rpo"
    family = "displacement"
    source = "Pang et al. 2024 (Iterative Reasoning Preference Optimization), arXiv:2404.19733, equation 1"
    equation = "-log sigmoid(beta h) - alpha log pi(y_w) / |y_w|"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(1.0, ge=0, description="weight of the likelihood; 0 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.beta * pair.margin) - self.alpha * pair.chosen.log_prob / pair.chosen.length


class CalDPO(Objective):
    """Cal-DPO: DPO on unscaled log-ratios, plus their calibration to +-1 / (2 beta).

    This is the paper's loss. The authors' code (tengxiao1/Cal-DPO) multiplies the calibration by 1/2.

    When: rewards should be on a scale of their own, not only in order.

    Not when: the learning rate is DPO's: the loss is of order 1 / beta^2.
    """

    name = "cal_dpo"
    family = "displacement"
    source = "Xiao et al. 2024, arXiv:2412.14516"
    equation = "-log sigmoid(h) + (log_ratio_w - 1 / (2 beta))^2 + (log_ratio_l + 1 / (2 beta))^2"

    beta: float = Field(1e-3, gt=0, description="scale of the calibration: rewards are driven to +-1/(2 beta)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        goal = 1 / (2 * self.beta)
        calibration = (pair.chosen.log_ratio - goal) ** 2 + (pair.rejected.log_ratio + goal) ** 2
        return -logsigmoid(pair.margin) + calibration


class BPO(Objective):
    """Balanced PO: a loss on the smaller of the chosen reward and minus the scaled rejected one.

    Only the smaller side of a pair has a gradient, so that the chosen likelihood cannot fall for the sake of the
    rejected one; where both are equal, as at the reference with alpha = 1, each has half. The defaults are those of the
    authors' released configuration (sunlin-ai/BPO, `balance_hinge_alpha`).

    When: the chosen likelihood falls in DPO, and no further term is wanted.

    Not when: the rejected completions are off-policy and far away: alpha then decides which side learns.
    """

    name = "bpo"
    family = "displacement"
    source = "Sun et al. 2025, arXiv:2506.03557"
    equation = "f(beta min(log_ratio_w, -alpha log_ratio_l)), with f the link, as in `gpo`"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.3, gt=0, description="gap adaptor: scale of the rejected log-ratio")
    link: Link = Field("hinge", description="function of the smaller side")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        up, down = pair.chosen.log_ratio, -self.alpha * pair.rejected.log_ratio
        return linked(self.link, self.beta * (up - ties.hinge(up - down, pair.tolerance)))


class MinorDPO(Objective):
    """MinorDPO: DPO whose rejected reward counts only while it is above the reference.

    The authors' code is not public, and the paper's equations were not at hand. The formula was compared with a
    second implementation (warlockee/oxRL), and a summary of the paper: a rejected completion counts only while it is
    likelier than under the reference.

    When: large learning rates push rejected completions far below the reference.

    Not when: rejected completions should become much less likely than they were.
    """

    name = "minor_dpo"
    family = "displacement"
    source = "Xie et al. 2024, arXiv:2408.09834"
    equation = "-log sigmoid(beta (log_ratio_w - max(0, log_ratio_l)))"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The rejected slope is halved where the policy equals the reference."""
        risen = ties.hinge(pair.rejected.log_ratio, pair.rejected.tolerance)
        return -logsigmoid(self.beta * (pair.chosen.log_ratio - risen))


NOISE = [RobustDPO, ODPO]
DISPLACEMENT = [DPOShift, DPOP, RPO, CalDPO, BPO, MinorDPO]
