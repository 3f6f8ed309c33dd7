"""Weights of pairs by their likelihood under the policy, and weights and bounds of tokens."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair, Scored


def pair_weight(pair: Pair, clamp: bool) -> Tensor:
    """Return the weight of each pair, shape (B,), without gradient, from the mean likelihoods of its tokens."""
    weight = 0
    for one in (pair.chosen, pair.rejected):
        weight = weight + one.tokens.mean(one.tokens.log_prob - one.tokens.log_collision_prob)
    product = weight.detach().exp()
    return product.clamp(max=1.0) if clamp else product


class WPO(Objective):
    """WPO: DPO with each pair weighted by its likelihood under the policy.

    When: completions of other models, which the policy would rarely give.

    Not when: completions are the policy's own: the weights are all near one.
    """

    name = "wpo"
    family = "weighting"
    source = "Zhou et al. 2024, arXiv:2406.11827, equations 1 and 2 (sampled alignment)"
    equation = "-w_w w_l log sigmoid(beta h), with w = exp(mean_t(log p_t - log sum_v p_v^2)), without gradient"
    already_applies = ("wpo_weighting",)
    tokens = True
    statistics = ("log_collision_prob",)
    stop_gradient = "the weight is a constant of each step, as in the paper"

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint")
    clamp: bool = Field(
        True, description="cap the weights at 1, as in the authors' code; false: no cap, as in the paper and TRL"
    )

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -pair_weight(pair, self.clamp) * logsigmoid(self.beta * pair.margin)


class WPOWeighting(Modifier):
    """WPO's weights for any objective on pairs."""

    name = "wpo_weighting"
    family = WPO.family
    source = WPO.source
    equation = "w_w w_l loss, with w = exp(mean_t(log p_t - log sum_v p_v^2)), without gradient"
    data = ("pair",)
    changes_log_ratio = False
    tokens = True
    statistics = ("log_collision_prob",)
    stop_gradient = WPO.stop_gradient

    clamp: bool = Field(True, description="cap the weights at 1, as in the authors' code")

    def incompatible_with(self, objective: Objective) -> str:
        """Return an error for a loss of the whole batch: weights belong to pairs."""
        if objective.scope == "example":
            return ""
        return f"wpo_weighting weights the losses of single pairs, and {objective.name} has a loss of the batch"

    def loss(self, objective: Objective, example: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return pair_weight(example, self.clamp) * objective.loss(example)


class D2PO(Objective):
    """D2PO: DPO with a weight of each token's log-ratio that decays with its position.

    The first token has the weight 1, as in the paper. In the authors' code (LotuSrc/D2PO) it has gamma, which is
    another beta.

    When: the first tokens decide, and long completions dilute them.

    Not when: the end decides, as the answer of a derivation does.
    """

    name = "d2po"
    family = "weighting"
    source = "Shao et al. 2025, arXiv:2502.14340"
    equation = "DPO with log_ratio = sum_t gamma^t log_ratio_t, t from 0"
    reference = "token"
    tokens = True

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint")
    gamma: float = Field(0.98, gt=0, le=1, description="decay from token to token; 1 is DPO")

    def loss(self, pair: Pair) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected))

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return beta times the discounted sum of the tokens' log-ratios."""
        one = scored.tokens
        return self.beta * one.sum(self.gamma ** one.position.to(one.log_ratio) * one.log_ratio)


class Humanline(Modifier):
    """Humanline clipping for any objective: the log-ratio of each token is held within bounds.

    A token outside of them has no gradient. The full method also moves the reference to the policy every few steps:
    `{name: tr_dpo, alpha: 1, every: 4, modifiers: [humanline]}`. The authors' code (ContextualAI/HALOs) copies the
    policy before each step, so that its reference is one step behind.
    """

    name = "humanline"
    family = "weighting"
    source = "Liu et al. 2025, arXiv:2509.24207"
    equation = "log_ratio = sum_t min(max(log_ratio_t, low), high)"
    reference = "token"
    tokens = True

    low: float = Field(-1.0, lt=0, ge=-100, description="lower bound of a token's log-ratio (log epsilon_P)")
    high: float = Field(1.5, gt=0, le=100, description="upper bound of a token's log-ratio (log epsilon_R)")

    def scored(self, scored: Scored) -> Scored:
        """Return the completions with the clipped log-ratios."""
        return scored.with_log_ratio(scored.tokens.sum(scored.tokens.log_ratio.clamp(self.low, self.high)))


WEIGHTING = [WPO, D2PO]
WEIGHTING_MODIFIERS = [WPOWeighting, Humanline]
