"""Objectives on pairs of which some are ties: neither completion was preferred."""

from math import expm1, log
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair


def rao_kupper(z: Tensor, tied: Tensor, log_nu: float) -> Tensor:
    """Return -log p of a win at a difference of strengths z, or where `tied` of a tie (Rao and Kupper 1967)."""
    win, loss = -logsigmoid(z - log_nu), -logsigmoid(-z - log_nu)
    return (win + loss - 2 * log_nu - log(-expm1(-2 * log_nu))).where(tied, win)


def davidson(z: Tensor, tied: Tensor, log_nu: float) -> Tensor:
    """Return -log p of a win at a difference of strengths z, or where `tied` of a tie (Davidson 1970)."""
    tie = log(2) + log_nu - z / 2
    win = torch.stack([torch.zeros_like(z), -z, tie]).logsumexp(0)
    return (win - tie).where(tied, win)


class DPORaoKupper(Objective):
    """DPO-RK: DPO on wins and ties by the model of Rao and Kupper.

    When: part of the pairs are ties, marked or with equal scores.

    Not when: all pairs have a winner: the loss is then DPO with a margin.
    """

    name = "dpo_rk"
    family = "ties"
    source = "Chen et al. 2024, arXiv:2409.17431, equations 8 and 9"
    equation = (
        "-log sigmoid(z - log nu) of a win; -log(nu^2 - 1) - log sigmoid(z - log nu) - log sigmoid(-z - log nu) of a "
        "tie, with z = beta h"
    )
    ties = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    nu: float = Field(3.0, gt=1, description="a pair with h = 0 is a tie with probability (nu - 1) / (nu + 1)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return rao_kupper(self.beta * pair.margin, pair.tied, log(self.nu))


class DPODavidson(Objective):
    """DPO-D: DPO on wins and ties by the model of Davidson.

    The model is that of the R package BradleyTerry2 (`GenDavidson`), with nu the exponential of its `tie.max`. The
    paper's own equation was not read; the default nu, a tie with probability 1/2 at h = 0, is that of its Rao-Kupper
    form.

    When: part of the pairs are ties, and a tie should pull less the farther apart two rewards are.

    Not when: all pairs have a winner.
    """

    name = "dpo_d"
    family = "ties"
    source = "Chen et al. 2024, arXiv:2409.17431"
    equation = (
        "log(1 + e^-z + 2 nu e^(-z/2)) of a win; that + z/2 - log(2 nu) of a tie, with z = beta h"
    )  # fmt: skip
    ties = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    nu: float = Field(1.0, gt=0, description="a pair with h = 0 is a tie with probability nu / (nu + 1)")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return davidson(self.beta * pair.margin, pair.tied, log(self.nu))


class TODO(Objective):
    """TODO: DPO on wins and ties by the tie-rank oriented Bradley-Terry model.

    It is `dpo_rk` with alpha = log nu. The defaults are those of the authors' scripts (XXares/TODO). Their file has a
    second formula for ties, whose outcomes do not sum to 1; this is the first one.

    When: results of the paper are compared; else `dpo_rk` is the same loss.

    Not when: all pairs have a winner.
    """

    name = "todo"
    family = "ties"
    source = "Guo et al. 2024, arXiv:2411.02442"
    equation = (
        "-log sigmoid(z - alpha) of a win; -log(e^(2 alpha) - 1) - log sigmoid(z - alpha) - log sigmoid(-z - alpha) "
        "of a tie, with z = beta h"
    )
    ties = True

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    alpha: float = Field(0.5, gt=0, description="rewards that differ by less are ties more often than wins")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return rao_kupper(self.beta * pair.margin, pair.tied, self.alpha)


class BradleyTerryTies(Objective):
    """A reward model of wins and ties.

    The paper takes the generalized Bradley-Terry model with ties (BTT), read here as that of Rao and Kupper: its
    equations were not at hand. `davidson` is the other common one. As in `bradley_terry`, centering keeps the mean
    score near 0.

    When: annotators may call two answers equally good.

    Not when: all pairs have a winner: `bradley_terry` has no nu to choose.
    """

    name = "bradley_terry_ties"
    family = "reward models"
    source = "Liu et al. 2024, arXiv:2410.05328"
    equation = (
        "the losses of dpo_rk (or dpo_d) with z = s_w - s_l, nu = (1 + p) / (1 - p) (or p / (1 - p)), "
        "+ centering (s_w + s_l)^2"
    )
    head = "scalar"
    reference = "none"
    ties = True

    model: Literal["rao_kupper", "davidson"] = Field("rao_kupper", description="the model of a tie")
    p: float = Field(0.5, gt=0, lt=1, description="probability of a tie at equal scores, which sets nu")
    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        model, odds = (rao_kupper, 1 + self.p) if self.model == "rao_kupper" else (davidson, self.p)
        log_nu = log(odds / (1 - self.p))
        return model(chosen - rejected, pair.tied, log_nu) + self.centering * (chosen + rejected) ** 2


TIED = [DPORaoKupper, DPODavidson, TODO, BradleyTerryTies]
