"""Objectives that fit the policy to the data's scores, win rates or quantiles."""

from math import exp, log, log1p
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Scored


def gap(pair: Pair, column: str = "score") -> Tensor:
    """Return the difference of a column, chosen minus rejected, shape (B,)."""
    return pair.chosen.column(column) - pair.rejected.column(column)


def two_point_kl(a: Tensor, b: Tensor) -> Tensor:
    """Return the KL divergence of (sigmoid(a), sigmoid(-a)) from (sigmoid(b), sigmoid(-b)), in nats."""
    return a.sigmoid() * (logsigmoid(a) - logsigmoid(b)) + (-a).sigmoid() * (logsigmoid(-a) - logsigmoid(-b))


class RewardRPO(Objective):
    """Reward-aware PO (NVIDIA's RPO): the margin is fitted to the difference of the data's scores.

    `rpo` is another method, Iterative RPO. The shipped configuration of NeMo-Aligner has beta = 0.2.

    When: a reward model's scores are calibrated: margins should equal their gaps.

    Not when: only the order of the scores means something.
    """

    name = "reward_rpo"
    family = "scores"
    source = "Adler et al. 2024 (Nemotron-4), arXiv:2406.11704; Sun et al. 2025, arXiv:2502.00203"
    equation = (
        "P = sigmoid(eta (s_w - s_l)), Q = sigmoid(beta h): bwd_kl KL(P || Q), fwd_kl KL(Q || P); "
        "sq: (beta h - eta (s_w - s_l))^2"
    )
    column_fields = ("score",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    eta: float = Field(1.0, gt=0, description="scale of the scores")
    variant: Literal["bwd_kl", "fwd_kl", "sq"] = Field("bwd_kl", description="distance of the two margins")
    score: str = Field("score", description="the data's column of scores")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,): zero where beta h = eta (s_w - s_l)."""
        h, goal = self.beta * pair.margin, self.eta * gap(pair, self.score)
        if self.variant == "sq":
            return (h - goal) ** 2
        return two_point_kl(goal, h) if self.variant == "bwd_kl" else two_point_kl(h, goal)


class REBEL(Objective):
    """REBEL: a squared loss that drives the margin to the difference of the data's scores.

    When: regression onto reward gaps, as one step of policy improvement.

    Not when: the scores' unit is arbitrary: eta must fit it.
    """

    name = "rebel"
    family = "scores"
    source = "Gao et al. 2024, arXiv:2404.16767"
    equation = "(h - eta (s_w - s_l))^2"
    column_fields = ("score",)

    eta: float = Field(1.0, gt=0, description="step size: nats of margin per unit of score (1 / beta)")
    score: str = Field("score", description="the data's column of scores")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return (pair.margin - self.eta * gap(pair, self.score)) ** 2

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the log-ratio in units of the score."""
        return scored.log_ratio / self.eta


class SPPO(Objective):
    """SPPO: a squared loss that drives each log-ratio to the win rate of its completion.

    The win rate is that against the policy's own completions: a number from 0 to 1 in the column `win_rate` of each
    completion.

    When: win rates against the policy's own completions are known.

    Not when: a pair has labels alone: `sppo_hard`.
    """

    name = "sppo"
    family = "scores"
    source = "Wu et al. 2024, arXiv:2405.00675"
    equation = "((log_ratio_w - (P_w - 1/2) / beta)^2 + (log_ratio_l - (P_l - 1/2) / beta)^2) / 2, P the win rates"
    probabilities = ("win_rate",)

    beta: float = Field(1e-3, gt=0, description="the paper's 1/eta: log-ratios are driven to (P - 1/2) / beta")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It is of order 1 / beta^2, which the learning rate must fit."""
        sides = (pair.chosen, pair.rejected)
        return sum((one.log_ratio - (one.column("win_rate") - 0.5) / self.beta) ** 2 for one in sides) / 2


class MaPPO(Objective):
    """MaPPO: DPO whose rejected reward is scaled by the difference of the data's scores.

    Scores are rewards from 0 to 1. The paper maps those of a reward model there by a logistic function. A difference
    outside of [0, 1] is clipped.

    When: scores from 0 to 1, and near ties should not be pushed apart.

    Not when: scores are on another scale, where every gap counts as 1.
    """

    name = "mappo"
    family = "scores"
    source = "Lan et al. 2025, arXiv:2507.21183, equation 8"
    equation = "-log sigmoid(beta (log_ratio_w - (s_w - s_l) log_ratio_l)), with s the data's scores, from 0 to 1"
    column_fields = ("score",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    score: str = Field("score", description="the data's column of scores")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). It is DPO's where the scores are 1 and 0."""
        return -logsigmoid(
            self.beta * (pair.chosen.log_ratio - gap(pair, self.score).clamp(0, 1) * pair.rejected.log_ratio)
        )


class MODPO(Objective):
    """MODPO: DPO for one objective with the rewards of another as a margin.

    The labels of the data are those of the first objective. `others` names the columns with the rewards of the others;
    their weighted sum is the margin. Weights that sum to 1 keep it in the unit of one reward.

    When: two aims, one with labels and one with a reward, at a fixed trade-off.

    Not when: one reward has it all.
    """

    name = "modpo"
    family = "scores"
    source = "Zhou et al. 2023, arXiv:2310.03708"
    equation = "-log sigmoid((beta h - (1 - w) (m_w - m_l)) / w), with m the rewards of the other objective"
    column_fields = ("others",)

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    w: float = Field(0.5, gt=0, le=1, description="weight of the labels' objective; 1 is DPO")
    others: dict[str, float] = Field(
        {"other_score": 1.0}, min_length=1, description="columns of the other objectives' rewards, with weights"
    )

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        other = sum(weight * gap(pair, name) for name, weight in self.others.items())
        return -logsigmoid((self.beta * pair.margin - (1 - self.w) * other) / self.w)


class QRPO(Objective):
    """QRPO: a regression of each reward onto its quantile, with the exact partition function.

    The quantile of a completion is the share of the reference's own completions of the prompt that score no higher: a
    number from 0 to 1 in the column `quantile`. With `log` it counts as at least 0.001. The authors' code
    (CLAIRE-Labo/quantile-reward-policy-optimization) omits the -1 in Z, which is below a double's precision for beta <
    0.027.

    When: absolute rewards, with rewards of the reference's own completions of each prompt.

    Not when: such quantiles are not at hand.
    """

    name = "qrpo"
    family = "scores"
    source = "Matrenok et al. 2025, arXiv:2507.08068, equation 11"
    equation = (
        "mean over both of (g - beta log Z - beta log_ratio)^2: identity g = F, Z = beta (e^(1/beta) - 1); "
        "log g = log F, Z = beta / (1 + beta), with F the quantiles"
    )
    probabilities = ("quantile",)

    beta: float = Field(3e-3, gt=0, description="strength of the KL constraint; 0.003 in the authors' configuration")
    transform: Literal["identity", "log"] = Field("identity", description="function g of the quantile")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return sum((self._goal(one) - self.beta * one.log_ratio) ** 2 for one in (pair.chosen, pair.rejected)) / 2

    def _goal(self, scored: Scored) -> Tensor:
        """Return g(F) - beta log Z, the reward that each completion should have."""
        quantile, beta = scored.column("quantile"), self.beta
        if self.transform == "log":
            return quantile.clamp(min=1e-3).log() - beta * log(beta / (1 + beta))
        return quantile - 1 - beta * (log(beta) + log1p(-exp(-1 / beta)))


SCORES = [RewardRPO, REBEL, SPPO, MaPPO, MODPO, QRPO]
