"""Pairs weighted by how likely the policy itself would have written them."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Modifier, Objective, Pair


def pair_weight(pair: Pair, clamp: bool) -> Tensor:
    """Shape (B,), without gradient: how on-policy both completions are, 1 where the policy would sample them."""
    weight = 0
    for one in (pair.chosen, pair.rejected):
        weight = weight + one.tokens.mean(one.tokens.log_prob - one.tokens.log_collision_prob)
    product = weight.detach().exp()
    return product.clamp(max=1.0) if clamp else product


class WPO(Objective):
    """WPO: DPO with every pair weighted by its likelihood under the policy, which simulates on-policy data."""

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
        True, description="weights of at most 1, as in the authors' code; false: as in the paper and TRL"
    )

    def loss(self, pair: Pair) -> Tensor:
        """Shape (B,)."""
        return -pair_weight(pair, self.clamp) * logsigmoid(self.beta * pair.margin)


class WPOWeighting(Modifier):
    """WPO's weights for any pairwise objective."""

    name = "wpo_weighting"
    family = WPO.family
    source = WPO.source
    equation = "w_w w_l loss, with w = exp(mean_t(log p_t - log sum_v p_v^2)), without gradient"
    data = ("pair",)
    changes_log_ratio = False
    tokens = True
    statistics = ("log_collision_prob",)
    stop_gradient = WPO.stop_gradient

    clamp: bool = Field(True, description="weights of at most 1, as in the authors' code")

    def incompatible_with(self, objective: Objective) -> str:
        """A pair's weight says nothing of a loss that is the whole batch's."""
        if objective.scope == "example":
            return ""
        return f"wpo_weighting weighs the losses of single pairs, and {objective.name} has one of the batch"

    def loss(self, objective: Objective, example: Pair) -> Tensor:
        """Shape (B,)."""
        return pair_weight(example, self.clamp) * objective.loss(example)


WEIGHTING = [WPO]
