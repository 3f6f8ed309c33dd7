"""Weights of pairs by their likelihood under the policy."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair


def pair_weight(pair: Pair, clamp: bool) -> Tensor:
    """Return the weight of each pair, shape (B,), without gradient, from the mean likelihoods of its tokens."""
    weight = 0
    for one in (pair.chosen, pair.rejected):
        weight = weight + one.tokens.mean(one.tokens.log_prob - one.tokens.log_collision_prob)
    product = weight.detach().exp()
    return product.clamp(max=1.0) if clamp else product


class WPO(Objective):
    """WPO: DPO with each pair weighted by its likelihood under the policy."""

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


WEIGHTING = [WPO]
