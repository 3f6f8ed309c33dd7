"""Reward models: a scalar head in place of the language model head, one score per completion."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Pair, Ranked, Unpaired
from alignzoo_zoo.ranked import couples, plackett_luce
from alignzoo_zoo.unpaired import signed


class BradleyTerry(Objective):
    """The Bradley-Terry reward model of RLHF: a logistic loss on the difference of scores.

    The loss does not determine the mean of the scores. Centering keeps it near 0 and hardly changes differences. It is
    on by default with the weight 0.01, which TRL recommends; in TRL it is off by default.

    When: the default reward model of pairs.

    Not when: strengths of preferences are known.
    """

    name = "bradley_terry"
    family = "reward models"
    source = "Rafailov et al. 2023, arXiv:2305.18290, equation 2; centering: Eisenstein et al. 2023, arXiv:2312.09244"
    equation = "-log sigmoid(s_w - s_l) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"

    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        return -logsigmoid(chosen - rejected) + self.centering * (chosen + rejected) ** 2


class BradleyTerryMargin(Objective):
    """The Bradley-Terry reward model with a margin from the data for each pair.

    When: ratings say how far apart scores should be.

    Not when: ratings are noisy: a margin is enforced.
    """

    name = "bradley_terry_margin"
    family = "reward models"
    source = "Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2"
    equation = "-log sigmoid(s_w - s_l - margin) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"
    columns = ("margin",)

    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        apart = chosen - rejected - pair.column("margin")
        return -logsigmoid(apart) + self.centering * (chosen + rejected) ** 2


class BradleyTerryScaled(Objective):
    """The Bradley-Terry reward model with the loss of each pair scaled by the strength of its preference.

    The strength, 1 to 3 in HelpSteer2-Preference, is the column `margin`, which `bradley_terry_margin` subtracts
    instead.

    When: ratings say how much a pair should count.

    Not when: ratings say how far apart scores should be: the margin form.
    """

    name = "bradley_terry_scaled"
    family = "reward models"
    source = "Wang et al. 2024 (HelpSteer2-Preference), arXiv:2410.01257"
    equation = "-margin log sigmoid(s_w - s_l) + centering (s_w + s_l)^2"
    head = "scalar"
    reference = "none"
    columns = ("margin",)

    centering: float = Field(0.01, ge=0, description="weight of the squared sum, which keeps the mean score near 0")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        return -pair.column("margin") * logsigmoid(chosen - rejected) + self.centering * (chosen + rejected) ** 2


class BradleyTerryAbsolute(Objective):
    """The Bradley-Terry reward model of Eurus, which also drives scores apart around zero.

    When: the sign of a score should tell good from bad, as for reasoning.

    Not when: chosen completions are often bad in absolute terms.
    """

    name = "bradley_terry_absolute"
    family = "reward models"
    source = "Yuan et al. 2024 (Eurus), arXiv:2404.02078"
    equation = "-log sigmoid(s_w - s_l) - log sigmoid(s_w) - log sigmoid(-s_l)"
    head = "scalar"
    reference = "none"

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen.scalar, pair.rejected.scalar
        return -logsigmoid(chosen - rejected) - logsigmoid(chosen) - logsigmoid(-rejected)


class FocalBradleyTerry(Objective):
    """The reward model of InternLM2: a focal ranking loss, and a barrier that bounds the scores.

    Pairs that are ranked wrongly have the plain loss, and surely ranked ones nearly none. The barrier has no gradient
    within 0.001 of a bound and beyond, as in the authors' code (InternLM/xtuner).

    When: easy pairs outnumber hard ones, and scores must stay bounded.

    Not when: scores beyond the bounds are needed.
    """

    name = "focal_bradley_terry"
    family = "reward models"
    source = "Cai et al. 2024 (InternLM2), arXiv:2403.17297"
    equation = (
        "-(1 - 2 max(0, sigmoid(D) - 1/2))^gamma log sigmoid(D) - barrier sum_s (log(bound - s) + log(bound + s)), "
        "D = s_w - s_l"
    )
    head = "scalar"
    reference = "none"

    gamma: float = Field(2.0, ge=1, description="power of the factor of surely ranked pairs")
    barrier: float = Field(0.01, ge=0, description="weight of the log barrier")
    bound: float = Field(5.0, gt=0.01, description="scores are held within +-bound")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,). 2 sigmoid(D) - 1 is tanh(D / 2)."""
        apart = pair.chosen.scalar - pair.rejected.scalar
        unsure = 1 - (apart / 2).tanh().relu()
        return -(unsure**self.gamma) * logsigmoid(apart) + self.barrier * (
            self._penalty(pair.chosen.scalar) + self._penalty(pair.rejected.scalar)
        )

    def _penalty(self, score: Tensor) -> Tensor:
        edge = 1e-3
        inside = score.clamp(edge - self.bound, self.bound - edge)
        return -sum((self.bound + side).clamp(min=edge).log() for side in (inside, -inside))


class GRM(Objective):
    """GRM: the Bradley-Terry reward model, regularized by the likelihood of the chosen text under a language head.

    The defaults are those of the authors' code (YangRui2015/Generalizable-Reward-Model), whose scalar head is a small
    network with dropout; here it is linear. The language head is the embedding, so embeddings have to be tied.

    When: a reward model has to generalize from few pairs to other prompts.

    Not when: pairs are many, or embeddings are not tied.
    """

    name = "grm"
    family = "reward models"
    source = "Yang et al. 2024, arXiv:2406.10216"
    equation = (
        "-(1 - lambda) log sigmoid(s_w - s_l) + lambda reg, with reg = -log sigmoid(beta log pi_w), -log pi_w or "
        "-log sigmoid(beta (log pi_w - log pi_l))"
    )
    head = "scalar"
    language_head = True
    reference = "none"

    lambda_: float = Field(0.01, ge=0, le=1, description="weight of the regularization")
    beta: float = Field(0.1, gt=0, description="scale of the log-probs")
    regularization: Literal["sft", "nll", "dpo"] = Field(
        "sft", description="the three forms of reg, in this order; dpo is DPO without a reference"
    )

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        chosen, rejected = pair.chosen, pair.rejected
        if self.regularization == "nll":
            text = -chosen.log_prob
        else:
            text = chosen.log_prob - (rejected.log_prob if self.regularization == "dpo" else 0)
            text = -logsigmoid(self.beta * text)
        return -(1 - self.lambda_) * logsigmoid(chosen.scalar - rejected.scalar) + self.lambda_ * text


class PlackettLuce(Objective):
    """The Plackett-Luce reward model of ranked lists: the likelihood of their order.

    When: a reward model of whole rankings.

    Not when: lists have many ties.
    """

    name = "plackett_luce"
    family = "reward models"
    source = "Plackett 1975; Rafailov et al. 2023, arXiv:2305.18290, appendix A.3"
    equation = "-sum_k (s_k - log sum_{j >= k} e^{s_j}), the best first"
    data = "ranked"
    head = "scalar"
    reference = "none"

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,): a mean over all orders of completions with equal scores in the data."""
        return plackett_luce(ranked.completions.scalar, ranked.places)


class BradleyTerryList(Objective):
    """The reward model of InstructGPT: the Bradley-Terry loss, a mean over all pairs of a list.

    When: several ranked completions of a prompt: all pairs of a list in one batch overfit less.

    Not when: lists are of two: `bradley_terry`.
    """

    name = "bradley_terry_list"
    family = "reward models"
    source = "Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, equation 1"
    equation = "-mean_{i < j} log sigmoid(s_i - s_j), the best first"
    data = "ranked"
    head = "scalar"
    reference = "none"

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,). Two completions with equal scores in the data have the mean of both orders."""
        apart, places = couples(ranked.completions.scalar), ranked.places
        order = (places[:, None, :] - places[:, :, None]).sign()
        share = ((1 + order) / 2).to(apart) * (1 - torch.eye(places.shape[1], device=apart.device).to(apart))
        return -(share * logsigmoid(apart)).sum((1, 2)) / share.sum((1, 2))


class ScoreRegression(Objective):
    """A reward model fitted to the data's scores by least squares, as HelpSteer's, for one attribute.

    A row may have a single completion.

    When: scores are on a scale that means something, as ratings from 0 to 4.

    Not when: only their order does.
    """

    name = "score_regression"
    family = "reward models"
    source = "Wang et al. 2023 (HelpSteer), arXiv:2311.09528"
    equation = "mean_k (s_k - score_k)^2 over the completions of a prompt"
    data = "ranked"
    min_completions = 1
    head = "scalar"
    reference = "none"
    columns = ("score",)

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        return ((ranked.completions.scalar - ranked.completions.column("score")) ** 2).mean(1)


class RewardClassifier(Objective):
    """A reward model of single labels: the log-odds that a completion is desirable.

    The judge `reward_model` with `probability: true` scores with the probability itself, as the sentiment classifier of
    the DPO paper does.

    When: thumbs up or down, right or wrong, positive or negative.

    Not when: completions of one prompt are compared: `bradley_terry`.
    """

    name = "reward_classifier"
    family = "reward models"
    source = "Cobbe et al. 2021, arXiv:2110.14168, section 4.2 (a verifier, with one score for each completion)"
    equation = "desirable: -log sigmoid(s); undesirable: -log sigmoid(-s)"
    data = "unpaired"
    head = "scalar"
    reference = "none"

    def loss(self, batch: Unpaired) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(signed(batch, batch.completion.scalar))


REWARD_MODELS = [
    BradleyTerry, BradleyTerryMargin, BradleyTerryScaled, BradleyTerryAbsolute, FocalBradleyTerry, GRM,
    PlackettLuce, BradleyTerryList, ScoreRegression, RewardClassifier,
]  # fmt: skip
