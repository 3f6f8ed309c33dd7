"""REINFORCE++: advantages normalized over all tokens of the rollout."""

from torch import Tensor

from alignzoo import Field, Group, Objective
from alignzoo import policy_gradient as pg
from alignzoo_online.clipped import Clip, ratio


class ReinforcePP(Objective):
    """REINFORCE++: PPO's clip without a critic, KL in each token's reward, advantages normalized over the rollout.

    When: few draws of many prompts, and a penalty at each token.

    Not when: rewards differ more between prompts than between draws of one: `rloo` or `grpo`.
    """

    name = "reinforce_pp"
    family = "policy gradients"
    source = "Hu 2025, arXiv:2501.03262v2, equations 1 and 8 to 10"
    equation = "mean_i mean_t -min(rho A, clip(rho, 1 +- clip) A), A_t = r - beta sum_{s >= t} k1_s, normalized"
    data = "group"
    tokens = True
    reference = "token"
    advantage_reads_log_probs = True
    min_completions = 1

    beta: float = Field(0.001, ge=0, description="strength of the KL penalty in the reward")
    clip: float = Clip
    eps: float = Field(1e-8, gt=0, description="added to the standard deviation")

    def advantage(self, group: Group) -> Tensor:
        """Return the normalized advantage of each token, (N,), 0 for draws that are left out."""
        tokens = group.completions.tokens
        penalty = self.beta * pg.k1(tokens.log_ratio)
        through = penalty.cumsum(0)  # over all draws: the sum from a token on is a difference
        ends = tokens.sum(penalty).reshape(-1).cumsum(0).reshape(group.reward.shape)
        value = tokens.spread(group.reward) - (tokens.spread(ends) - through + penalty)
        kept = tokens.spread(group.kept).to(value)
        count = kept.sum().clamp(min=1)
        mean = (value * kept).sum() / count
        std = ((value - mean).square() * kept).sum().div(count).sqrt()
        return (value - mean) / (std + self.eps) * kept

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        surrogate = pg.clipped(ratio(group), group.token_advantage, self.clip, self.clip)
        return pg.reduce_tokens(group, surrogate, "completion")
