"""Functions of the margin other than DPO's log sigmoid."""

from math import log, log1p, pi
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair
from alignzoo_zoo.bounded import exp

Link = Literal["logistic", "hinge", "square", "exponential", "truncated_quadratic", "savage", "cauchy"]


def linked(link: Link, z: Tensor) -> Tensor:
    """Return the loss of a margin for each link of `GPO`, in the shape of z."""
    if link == "logistic":
        return -logsigmoid(z)
    if link == "cauchy":  # the angle of (-z, 1) is pi / 2 + atan(z), without a difference of near equals
        return -(torch.atan2(torch.ones_like(z), -z) / pi).log()
    if link == "savage":
        return (-z).sigmoid() ** 2
    if link == "exponential":
        return exp(-z)
    missing = 1 - z
    return {"hinge": missing.relu(), "square": missing**2, "truncated_quadratic": missing.relu() ** 2}[link]


class RSOHinge(Objective):
    """RSO's hinge loss on the normalized margin, which is zero from h = 1 / beta.

    When: pairs should stop counting once they are apart by 1 / beta.

    Not when: margins should keep growing.
    """

    name = "rso_hinge"
    family = "link functions"
    source = "Liu et al. 2023 (RSO), arXiv:2309.06657, section 3 (hinge-norm)"
    equation = "max(0, 1 - beta h)"

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint (the paper's gamma)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (1 - self.beta * pair.margin).relu()


class EXOPair(Objective):
    """EXO on pairs: the reverse KL divergence between the model's preference and the label.

    When: the policy should match the labels by reverse KL, seeking one mode.

    Not when: label_smoothing cannot be set: it decides the scale of the loss.
    """

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

    When: to reproduce the paper: the loss was found by search.

    Not when: the start is at the reference: the slope has the wrong sign there.
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


class GPO(Objective):
    """GPO: any convex function of the margin, such as the exponential of AdaBoost, or Cauchy's.

    `logistic` is DPO, `hinge` is `rso_hinge`, and `square` is IPO with tau = beta / 2, times beta^2. `savage` and
    `cauchy` are not convex: their slope falls again for a pair that is ranked wrongly. Cauchy's is from MallowsPO
    (arXiv:2405.14953).

    When: to compare link functions with all else equal.

    Not when: a link has been chosen: most have an objective or a name of their own.
    """

    name = "gpo"
    family = "link functions"
    source = "Tang et al. 2024, arXiv:2402.05749"
    equation = (
        "f(z), z = beta h: exponential e^-z, truncated_quadratic max(0, 1 - z)^2, savage 1 / (1 + e^z)^2, "
        "cauchy -log(1/2 + atan(z) / pi), logistic -log sigmoid(z), hinge max(0, 1 - z), square (1 - z)^2"
    )

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint; each link has its own best value")
    link: Link = Field("exponential", description="function of the margin")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return linked(self.link, self.beta * pair.margin)


class FocalPO(Objective):
    """FocalPO: DPO with a factor that gives less weight to pairs that are ranked wrongly.

    The gradient goes through the factor. The loss falls again where log sigmoid(beta h) is below -1 / gamma: for gamma
    above 1.44 that is so at the reference, and gamma is at most 1. The authors' repository
    (TongLiu-github/focalpo) has no code, and the paper's equations were not at hand: the formula is that of a second
    implementation (warlockee/oxRL), which holds the factor constant, and fits the paper's abstract.

    When: pairs that are ranked wrongly are mostly noise.

    Not when: the wrongly ranked pairs are the ones to learn.
    """

    name = "focal_po"
    family = "link functions"
    source = "Liu et al. 2025, arXiv:2501.06645"
    equation = "-sigmoid(beta h)^gamma log sigmoid(beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    gamma: float = Field(0.05, ge=0, le=1, description="power of the factor; 0 is DPO; the paper uses 0.05 in all runs")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        log_right = logsigmoid(self.beta * pair.margin)
        return -(self.gamma * log_right).exp() * log_right


LINKS = [RSOHinge, EXOPair, DiscoPOP, GPO, FocalPO]
