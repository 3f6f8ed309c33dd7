"""Objectives on a gold completion beside a preferred and a rejected one: ranked lists of three or more, gold first."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Ranked, Scored
from alignzoo_zoo.per_token import per_token


class TPO(Objective):
    """TPO: a reference-free logistic loss, plus the likelihood of a third, gold completion.

    Of a list, the first completion is gold, the second is preferred, and the last is rejected.

    When: a third, best answer of each prompt is there, and no SFT run comes before.

    Not when: only pairs are there: `cpo` is the closest loss.
    """

    name = "tpo"
    family = "triples"
    source = "Saeidi et al. 2024 (Triple Preference Optimization), arXiv:2405.16681"
    equation = "-log sigmoid(beta (log pi(y_2) - log pi(y_K))) - alpha log pi(y_1) / |y_1|"
    data = "ranked"
    min_completions = 3
    reference = "none"

    beta: float = Field(0.01, gt=0, description="scale of the margin")
    alpha: float = Field(1.0, ge=0, description="weight of the gold completion's likelihood per token")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        own = ranked.completions.log_prob
        return -logsigmoid(self.beta * (own[:, 1] - own[:, -1])) - self.alpha * per_token(ranked.completions)[:, 0]


class TPOL(Objective):
    """TPO-L: TPO with log-probs per token and a target margin.

    Of a list, the first completion is gold, the second is preferred, and the last is rejected.

    When: as `tpo`, with answers of different lengths.

    Not when: only pairs are there: `simpo` is the same without the gold answer.
    """

    name = "tpo_l"
    family = "triples"
    source = "Saeidi et al. 2024 (Triple Preference Optimization), arXiv:2405.16681"
    equation = "-log sigmoid(beta (a_2 - a_K) - gamma) - alpha a_1, with a = log pi(y) / |y|"
    data = "ranked"
    min_completions = 3
    reference = "none"

    beta: float = Field(0.01, gt=0, description="scale of the margin")
    gamma: float = Field(0.5, ge=0, description="target margin")
    alpha: float = Field(1.0, ge=0, description="weight of the gold completion's likelihood per token")

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        own = per_token(ranked.completions)
        return -logsigmoid(self.beta * (own[:, 1] - own[:, -1]) - self.gamma) - self.alpha * own[:, 0]

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the mean log-prob."""
        return self.beta * per_token(scored)


TRIPLES = [TPO, TPOL]
