"""Objectives for divergences between policy and reference other than the reverse KL."""

from math import log
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair, Scored
from alignzoo_zoo.bounded import expm1

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha", "chi_squared"]


def derivative(divergence: Divergence, log_ratio: Tensor, alpha: float = 0.5) -> Tensor:
    """Return f'(u) - f'(1) at u = pi / pi_ref = exp(log_ratio), for each f-divergence of the paper's table 1.

    It is 0 where the policy equals the reference. Exponentials are linear beyond an exponent of 20, so that values are
    finite and gradients do not vanish. For the alpha divergence that bounds alpha times the log-ratio.
    """
    if divergence == "reverse_kl":
        return log_ratio
    if divergence == "js":
        return log(2) + logsigmoid(log_ratio)
    if divergence == "forward_kl":
        return -expm1(-log_ratio)
    if divergence == "chi_squared":
        return 2 * expm1(log_ratio)
    return -expm1(-alpha * log_ratio) / alpha


class FDPO(Objective):
    """f-DPO: DPO with f'(pi / pi_ref) of another divergence in place of the log-ratio.

    The paper's theorem needs an f' that is not defined at 0. The chi-squared divergence, with f' = 2 (u - 1), does not
    satisfy it: the optimal policy may have probability 0 where the reference has not, and the loss is a heuristic.
    `chi_po` adds the KL divergence and satisfies it.

    When: diversity: forward KL or JS keep more modes than DPO's reverse KL.

    Not when: the chi-squared divergence alone is wanted: `chi_po` is sound.
    """

    name = "f_dpo"
    family = "divergences"
    source = "Wang et al. 2023, arXiv:2309.16240, table 1"
    equation = "-log sigmoid(beta (f'(e^log_ratio_w) - f'(e^log_ratio_l)))"
    already_applies = ("f_divergence",)

    beta: float = Field(0.1, gt=0, description="strength of the constraint")
    divergence: Divergence = Field("js", description="reverse_kl is DPO")
    alpha: float = Field(0.5, gt=0, lt=1, description="of the alpha divergence; the reverse KL in the limit of 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta f'(pi / pi_ref), up to a constant of the prompt."""
        return self.beta * derivative(self.divergence, scored.log_ratio, self.alpha)


class ChiPO(Objective):
    """Chi-PO: DPO with the chi-squared divergence added to the KL divergence.

    When: few data: the chi-squared term limits over-optimization.

    Not when: rewards outside of the clip must still learn.
    """

    name = "chi_po"
    family = "divergences"
    source = "Huang et al. 2024, arXiv:2407.13399, algorithm 1"
    equation = "-log sigmoid(clip(beta (phi(log_ratio_w) - phi(log_ratio_l)), +-2 clip)), with phi(r) = e^r + r"
    already_applies = ("f_divergence",)

    beta: float = Field(0.1, gt=0, description="strength of the constraint")
    clip: float = Field(1.0, gt=0, description="R_max: rewards lie within +-clip, so that margins lie within +-2 clip")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). The gradient is zero outside the clip, as in the paper."""
        margin = self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)
        return -logsigmoid(margin.clamp(-2 * self.clip, 2 * self.clip))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta phi(log_ratio), minus its value at the reference."""
        return self.beta * (expm1(scored.log_ratio) + scored.log_ratio)


class FDivergence(Modifier):
    """f-DPO's change for any objective: f'(pi / pi_ref) in place of the log-ratio."""

    name = "f_divergence"
    family = FDPO.family
    source = FDPO.source
    equation = "f'(e^log_ratio) in place of log_ratio"
    reference = "sequence"

    divergence: Divergence = Field("js", description="reverse_kl changes nothing")
    alpha: float = Field(0.5, gt=0, lt=1, description="parameter of the alpha divergence")

    def scored(self, scored: Scored) -> Scored:
        """Return the completions with f' in place of the log-ratio."""
        return scored.with_log_ratio(derivative(self.divergence, scored.log_ratio, self.alpha))


DIVERGENCE = [FDPO, ChiPO]
